//! Replays the corpora of the fuzz targets: every input that was picked or found, through its target.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use fuzz::TARGETS;

#[test]
fn every_input_of_the_corpora_is_harmless() {
    for (name, target) in TARGETS {
        let inputs = files(&folder("corpus").join(name));
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for path in inputs {
            let input = fs::read(&path).unwrap();
            let _named = NameInput(&path);
            target(&input);
        }
    }
}

#[test]
fn every_target_is_a_program() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let programs: BTreeSet<_> = files(&folder("fuzz_targets")).iter().map(stem).collect();
    assert_eq!(programs, targets);
    let corpora: BTreeSet<_> = files(&folder("corpus")).iter().map(stem).collect();
    assert_eq!(corpora, targets);
}

fn folder(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.with_file_name("fuzz").join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let path = |entry: std::io::Result<fs::DirEntry>| entry.map(|entry| entry.path());
    let paths: std::io::Result<_> = entries.map(path).collect();
    paths.unwrap_or_else(|error| panic!("{folder:?}: {error}"))
}

/// Says which input it was when a target fails.
struct NameInput<'a>(&'a Path);

impl Drop for NameInput<'_> {
    #[expect(
        clippy::print_stdout,
        reason = "a test's output is where its failure is explained"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with {}", self.0.display());
        }
    }
}
