//! What a test leaves behind for the search.

use std::{
    collections::BTreeSet,
    env,
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process,
    sync::{Mutex, OnceLock, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tracing_subscriber::{
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::Secret;

/// The environment variable that names the folder.
pub const FOLDER: &str = "TOMBOLO_TEST_LOGS";

/// The folder, if the suite is to be searched.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER)
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
}

/// Keeps what this process logs from here on, at the most verbose level. A process that listens to its log already is left
/// to search it by itself.
///
/// # Panics
///
/// The folder cannot be written to: a log that is not kept would pass the search.
pub fn record() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let Some(log) = open("log") else { return };
        let lines = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(Mutex::new(log));
        // The program leaves the frames of WebSocket out of its log too (`tombolo::logs`).
        let is_not_a_frame = filter_fn(|metadata| {
            *metadata.level() != LevelFilter::TRACE || !metadata.target().starts_with("tungstenite")
        });
        let _ = lines.finish().with(is_not_a_frame).try_init();
    });
}

/// Keeps what another program has logged.
///
/// # Panics
///
/// The folder cannot be written to.
pub fn keep(text: &str) {
    if let Some(mut file) = open("kept.log") {
        writeln!(file, "{text}").expect(WRITABLE);
    }
}

/// Has a text looked for in everything that is kept.
///
/// # Panics
///
/// It is so short that it would be found by chance, or the folder cannot be written to.
pub fn mark(name: &str, text: &str) {
    write_down(Secret::text(name, text));
}

/// Has a key looked for, its base64 text and its bytes.
///
/// # Panics
///
/// The text is no base64, or the folder cannot be written to.
pub fn mark_key(name: &str, base64: &str) {
    let bytes = STANDARD.decode(base64).expect("a key is base64 text");
    write_down(Secret::text(format!("{name} as text"), base64));
    write_down(Secret::bytes(name, &bytes));
}

/// The secrets that a file names.
///
/// # Errors
///
/// It cannot be read, or names none.
pub fn read_secrets(path: &Path) -> io::Result<BTreeSet<Secret>> {
    let lines = BufReader::new(File::open(path)?).lines();
    lines
        .map(|line| serde_json::from_str(&line?).map_err(io::Error::from))
        .collect()
}

fn write_down(secret: Secret) {
    static KNOWN: Mutex<BTreeSet<Secret>> = Mutex::new(BTreeSet::new());
    assert!(secret.is_telling(), "{} is too short", secret.name);
    let Some(mut file) = open("secrets") else {
        return;
    };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if !known.contains(&secret) {
        let line = serde_json::to_string(&secret).expect("texts and numbers");
        writeln!(file, "{line}").expect(WRITABLE);
        known.insert(secret);
    }
}

/// A file of this process, to write more into.
fn open(extension: &str) -> Option<File> {
    let folder = folder()?;
    let program = env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_stem);
    let program = program.unwrap_or_default().to_string_lossy();
    let path = folder.join(format!("{program}-{}.{extension}", process::id()));
    let file = OpenOptions::new().create(true).append(true).open(path);
    Some(file.expect(WRITABLE))
}

const WRITABLE: &str = "the folder of TOMBOLO_TEST_LOGS can be written to";
