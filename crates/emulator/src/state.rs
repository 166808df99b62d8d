//! What an emulator keeps on disk from one start to the next, if it is told to.
//!
//! Each core has one file with all that it shall remember, written as a whole:
//!
//! ```text
//! {"format":"tombolo-emulator-hub","version":1,"sha256":"..."}      what it is, on a line of its own
//! {...}                                                             what the core remembers, as JSON
//! ```
//!
//! A whole file and not a log of changes: a hub for development has some megabytes at most, and a log would want replay and
//! compaction, two more ways to be wrong. The file is written under another name, flushed, and renamed, and the folder is
//! flushed, so that a crash leaves the old one or the new one. It is written [`PAUSE`] after a change, and at shutdown: a
//! crash takes the last second with it, an orderly end nothing.
//!
//! A file that is damaged, or from another version, ends the start with the name of the file: nobody loses a hub's devices
//! by a start that takes no notice.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Something that remembers.
pub(crate) trait Memory: Send + Sync + 'static {
    /// Names the file's content.
    const FORMAT: &'static str;
    /// The version of what [`Memory::remembered`] writes: another one whenever an older file could not be read any more.
    const VERSION: u32;

    /// Moves with each change, and perhaps without one.
    fn revision(&self) -> u64;

    /// All of it, as JSON.
    fn remembered(&self) -> Vec<u8>;
}

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system's word.
    #[error("could not {act} {path}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// Not what was written.
    #[error(
        "{path} is damaged ({what}): move it away and the emulator starts without what it held, or put back a copy"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What shows it.
        what: &'static str,
    },
    /// Of another version of the program.
    #[error(
        "{path} is of version {found} and this program reads version {expected}: move it away, or use the program that wrote it"
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The one that is read.
        expected: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    sha256: String,
}

/// The file of one core.
pub(crate) struct StateFile {
    path: PathBuf,
    /// What was written last: its revision and digest.
    written: Mutex<Option<(u64, String)>>,
}

impl StateFile {
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self {
            path,
            written: Mutex::new(None),
        }
    }

    /// Reads what `M` remembered; none if there is no file yet. `restore` reads the JSON.
    pub(crate) fn load<M: Memory, T>(
        &self,
        restore: impl FnOnce(&[u8]) -> serde_json::Result<T>,
    ) -> Result<Option<T>, StateError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io("read", source)),
        };
        let damaged = |what| StateError::Damaged {
            path: self.path.clone(),
            what,
        };
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (header, body) = bytes.split_at(end.ok_or_else(|| damaged("it has no first line"))?);
        let (header, body) = (
            serde_json::from_slice::<Header>(header),
            body.get(1..).unwrap_or_default(),
        );
        let header = header.map_err(|_| damaged("its first line cannot be read"))?;
        if header.format != M::FORMAT {
            return Err(damaged("it is of another kind"));
        }
        if header.version != M::VERSION {
            return Err(StateError::Version {
                path: self.path.clone(),
                found: header.version,
                expected: M::VERSION,
            });
        }
        if header.sha256 != sha256(body) {
            return Err(damaged("its content is not what was written"));
        }
        restore(body)
            .map(Some)
            .map_err(|_| damaged("its content cannot be read"))
    }

    /// Writes what `memory` remembers, if that has changed.
    pub(crate) fn save<M: Memory>(&self, memory: &M) -> Result<(), StateError> {
        let mut written = self.written.lock();
        let revision = memory.revision();
        if written.as_ref().is_some_and(|(last, _)| *last == revision) {
            return Ok(());
        }
        let body = memory.remembered();
        let sha256 = sha256(&body);
        if written.as_ref().is_none_or(|(_, last)| *last != sha256) {
            let bytes = file_of::<M>(&sha256, &body);
            replace(&self.path, &bytes).map_err(|source| self.io("write", source))?;
        }
        *written = Some((revision, sha256));
        Ok(())
    }

    fn io(&self, act: &'static str, source: io::Error) -> StateError {
        StateError::Io {
            act,
            path: self.path.clone(),
            source,
        }
    }
}

/// Writes what `memory` remembers whenever it has changed, until `stop`.
pub(crate) async fn keep<M: Memory>(file: Arc<StateFile>, memory: Arc<M>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
        let (file, memory) = (Arc::clone(&file), Arc::clone(&memory));
        let saved = tokio::task::spawn_blocking(move || file.save(&*memory)).await;
        if let Ok(Err(error)) = saved {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, source, "the state could not be kept; it is tried again");
        }
    }
}

fn file_of<M: Memory>(sha256: &str, body: &[u8]) -> Vec<u8> {
    let header = Header {
        format: M::FORMAT.to_owned(),
        version: M::VERSION,
        sha256: sha256.to_owned(),
    };
    let mut bytes = serde_json::to_vec(&header).expect("texts and a number have a JSON form");
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    bytes
}

/// The file has secrets in it, so it is for its owner alone.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(folder)?.sync_all()
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// How long after a change it is written: long enough that a burst is one write.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    struct Word(u64, &'static str);

    impl Memory for Word {
        const FORMAT: &'static str = "test";
        const VERSION: u32 = 3;

        fn revision(&self) -> u64 {
            self.0
        }

        fn remembered(&self) -> Vec<u8> {
            serde_json::to_vec(self.1).unwrap()
        }
    }

    fn load(path: &Path) -> Result<Option<String>, StateError> {
        StateFile::at(path.to_owned()).load::<Word, _>(|bytes| serde_json::from_slice(bytes))
    }

    #[test]
    fn what_was_saved_is_loaded_and_nothing_is_there_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("word.state");
        assert!(load(&path).unwrap().is_none());
        let file = StateFile::at(path.clone());
        file.save(&Word(1, "first")).unwrap();
        file.save(&Word(1, "not looked at: the revision is the same"))
            .unwrap();
        assert_eq!(load(&path).unwrap().unwrap(), "first");
        file.save(&Word(2, "second")).unwrap();
        assert_eq!(load(&path).unwrap().unwrap(), "second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_anywhere_is_found_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("word.state");
        StateFile::at(path.clone())
            .save(&Word(1, "a word"))
            .unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("word.state"), "byte {at}: {error}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(load(&path).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("word.state");
        fs::write(
            &path,
            "{\"format\":\"test\",\"version\":4,\"sha256\":\"\"}\n",
        )
        .unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(
            error.contains("version 4") && error.contains("version 3"),
            "{error}"
        );
    }
}
