//! The engine that keeps its promises on a disk of its own.
//!
//! What the [memory engine](crate::memory) does, and besides: [durable](crate::Survival::Durable) entries, receipts and
//! keys, and messages that are not tied to their connection survive a restart of the gateway, the death of its process
//! and a power cut. They are records in one log; where each is, is in memory and is found again at the start.
//!
//! - **A record is flushed before anybody is told of it.** Records that come while the disk is busy are flushed together.
//! - **After a failed flush nothing more is taken.** [`Keeper::failed`] says so; the process is to end, and the next one
//!   reads what the disk really has.
//! - **A full disk refuses what is new** ([`StorageFull`](crate::StoreError::StorageFull)), and goes on when there is room.
//! - **Damage is named, never served.** A start that finds some ends with [`OpenError::Damaged`]; [`salvage`] copies what
//!   can be read. A record that goes bad later is found when it is read or its segment is cleaned: its entry becomes a dead
//!   letter, and the others go on.
//!
//! What a process with this engine does not promise: that the answer to a write that it has not given stands for
//! nothing. A write whose answer was lost may have happened; its id settles that.

mod inspection;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use iothub::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::inspection::{Inspection, inspect, inspect_files, is_store};
use crate::{
    Clock, Store, SystemClock,
    log::{self, Cleaner, Kind, Limits, Log, OpenLogError},
    memory::{self, Counts, Engine, Living, Location, Moment, Unreadable},
};
pub use crate::{
    log::{
        Damage, Recovered,
        files::{Appender, Files, Folder},
    },
    memory::{Held, Kept, Said},
};

/// Where the engine keeps what must survive, and how much of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder. It is made if it is not there, readable for its owner alone; one process at a time may have it. On a disk
    /// that tells the truth about a flush: a network file system may not.
    pub folder: PathBuf,
    /// Bytes that the log may have there; 4 GiB by default. More promises are refused with `507`. About twice as much as
    /// what waits is needed, so that room can be made. A stored message takes some 100 bytes of memory besides.
    #[serde(default = "default_bytes")]
    pub bytes: u64,
    /// Bytes of a file of the log; 64 MiB by default, 1 GiB at most. Smaller: room is made in smaller steps; larger: with
    /// less work.
    #[serde(default = "default_segment_bytes")]
    pub segment_bytes: u64,
}

impl Config {
    /// The defaults in this folder.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            bytes: default_bytes(),
            segment_bytes: default_segment_bytes(),
        }
    }
}

const fn default_bytes() -> u64 {
    4 << 30
}

const fn default_segment_bytes() -> u64 {
    64 << 20
}

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file of tokens.
    #[error(transparent)]
    Registry(#[from] memory::OpenError),
    /// Another process has the folder.
    #[error("another process has the store's folder {}", .0.display())]
    InUse(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot read or write {file} in the store's folder")]
    Io {
        /// Which file; a dot is the folder.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is of a version that this program does not know.
    #[error(
        "{file} in the store's folder has version {version} of the format, which this program does not read: start the program that wrote it"
    )]
    Version {
        /// Which file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// Something that was flushed cannot be read.
    #[error("the store is damaged in {}", places(.0))]
    Damaged(Vec<Damage>),
    /// The folder that is to take what is salvaged is not empty.
    #[error("the folder {} is not empty", .0.display())]
    NotEmpty(PathBuf),
}

/// How many there are, and the first of them.
fn places(damage: &[Damage]) -> String {
    match damage {
        [] => "no place".to_owned(),
        [only] => format!("one place, {only}"),
        [first, ..] => format!("{} places, the first is {first}", damage.len()),
    }
}

impl From<OpenLogError> for OpenError {
    fn from(error: OpenLogError) -> Self {
        match error {
            OpenLogError::Io { file, source } => Self::Io { file, source },
            OpenLogError::Version { file, version } => Self::Version { file, version },
            OpenLogError::Damaged(damage) => Self::Damaged(damage),
        }
    }
}

/// An engine that has started.
pub struct Opened {
    /// The engine.
    pub store: Store,
    /// What the start found.
    pub recovery: Recovery,
    /// What its owner holds on to.
    pub keeper: Keeper,
}

/// What a start found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// Of the log.
    pub log: Recovered,
    /// Entries of the outbox that wait.
    pub entries: u64,
    /// When the oldest of them was submitted.
    pub oldest: Option<Timestamp>,
    /// Messages of the inbox that wait.
    pub messages: u64,
    /// Dead letters of both.
    pub dead_letters: u64,
    /// Receipts and keys that are remembered.
    pub receipts_and_keys: u64,
    /// How long it took to read.
    pub took: Duration,
}

impl Recovery {
    const fn new(log: Recovered, counts: Counts, took: Duration) -> Self {
        let Counts {
            entries,
            oldest,
            messages,
            dead_letters,
            receipts_and_keys,
        } = counts;
        Self {
            log,
            entries,
            oldest,
            messages,
            dead_letters,
            receipts_and_keys,
            took,
        }
    }
}

/// Ends an engine in order, and says if it has failed. Dropped, it closes the engine.
pub struct Keeper {
    log: Arc<Log>,
    _cleaner: Cleaner,
}

impl Keeper {
    /// Waits until the engine has failed: a flush did, so nothing more is taken, and the process is to end with an error.
    pub async fn failed(&self) {
        let mut failed: watch::Receiver<bool> = self.log.failed();
        if failed.wait_for(|has_failed| *has_failed).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether the engine has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        *self.log.failed().borrow()
    }

    /// Bytes that the log has on the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Writes what was left to the log and takes nothing more. Blocks until that is done.
    pub fn close(&self) {
        self.log.close();
    }
}

/// Opens an engine. Blocks: it reads the whole log.
///
/// # Errors
///
/// The folder cannot be used, or something in it is damaged.
pub fn open(memory: memory::Config, config: &Config) -> Result<Opened, OpenError> {
    let files = Arc::new(folder(&config.folder)?);
    let mut memory = memory;
    let tokens = || config.folder.join(TOKENS);
    memory.registry_file.get_or_insert_with(tokens);
    open_with(memory, config, files, Arc::new(SystemClock))
}

/// Opens an engine for an operator's tool: without the bounds of a configuration, and without tokens. Blocks.
///
/// # Errors
///
/// Those of [`open`].
pub fn open_unbounded(folder_path: &Path) -> Result<Opened, OpenError> {
    let config = Config {
        bytes: u64::MAX,
        ..Config::new(folder_path.to_owned())
    };
    let files = Arc::new(folder(folder_path)?);
    open_with(unbounded(), &config, files, Arc::new(SystemClock))
}

/// Bounds that leave out nothing that was kept under others; what is held in memory keeps its own.
fn unbounded() -> memory::Config {
    memory::Config {
        outbox_entries: usize::MAX,
        outbox_bytes: usize::MAX,
        inbox_messages: usize::MAX,
        inbox_bytes_in_all: usize::MAX,
        dead_letters: usize::MAX,
        keys: usize::MAX,
        keys_in_all: usize::MAX,
        ..memory::Config::default()
    }
}

/// Opens an engine with these files in place of the configured folder, and this clock.
///
/// # Errors
///
/// Those of [`open`].
pub fn open_with(
    memory: memory::Config,
    config: &Config,
    files: Arc<dyn Files>,
    clock: Arc<dyn Clock>,
) -> Result<Opened, OpenError> {
    let start = clock.instant();
    let engine = Arc::new(Engine::open(memory, Arc::clone(&clock))?);
    let now = engine.now();
    let resume = apply_all(&engine, now, |each| log::recover(files.as_ref(), each))?;
    let recovered = resume.recovered.clone();
    let limits = Limits {
        segment: config.segment_bytes.min(1 << 30),
        in_all: config.bytes,
    };
    let log = Arc::new(resume.start(files, limits)?);
    engine.begin_to_keep(Arc::clone(&log));
    let counts = engine.recovered(now);
    let living: Arc<dyn log::Owner> = Arc::new(Living(Arc::clone(&engine)));
    let cleaner = Cleaner::start(Arc::clone(&log), living).map_err(|source| OpenError::Io {
        file: ".".to_owned(),
        source,
    })?;
    let took = clock.instant().saturating_duration_since(start);
    Ok(Opened {
        store: memory::store(engine),
        recovery: Recovery::new(recovered, counts, took),
        keeper: Keeper {
            log,
            _cleaner: cleaner,
        },
    })
}

/// Does again what the records of a log say.
fn apply_all<T>(
    engine: &Engine,
    now: Moment,
    read: impl FnOnce(&mut dyn FnMut(Location, &[u8])) -> Result<T, OpenLogError>,
) -> Result<T, OpenError> {
    let mut unreadable = Vec::new();
    let read = read(&mut |location, record| {
        if let Err(Unreadable(location)) = engine.apply(location, record, now) {
            unreadable.push(Damage {
                file: format!("{:010}.log", location.segment),
                offset: location.offset.into(),
                bytes: location.length.into(),
                what: "a record that this program does not know",
            });
        }
    })?;
    if unreadable.is_empty() {
        Ok(read)
    } else {
        Err(OpenError::Damaged(unreadable))
    }
}

/// Reads a log and says what is in it. Changes nothing.
///
/// # Errors
///
/// The folder cannot be used, or something in it is damaged.
pub fn verify(folder_path: &Path) -> Result<Recovered, OpenError> {
    verify_files(&folder(folder_path)?)
}

/// Like [`verify`], with these files.
///
/// # Errors
///
/// Those of [`verify`].
pub fn verify_files(files: &dyn Files) -> Result<Recovered, OpenError> {
    Ok(log::look_through(files, |_, _| {})?)
}

/// What was saved of a damaged log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Salvaged {
    /// Records that were copied.
    pub records: u64,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// Copies every record that can be read into a log in an empty folder, and lists the rest. Changes nothing in the first.
/// The file of tokens that a gateway keeps there by default is copied as it is.
///
/// What became of an entry may be among the rest: then it is sent once more, under the same id.
///
/// # Errors
///
/// A folder cannot be used, or the second is not empty.
pub fn salvage(from: &Path, to: &Path) -> Result<Salvaged, OpenError> {
    let (from_files, target) = (folder(from)?, folder(to)?);
    let names = target.names().map_err(|source| OpenError::Io {
        file: ".".to_owned(),
        source,
    })?;
    if !names.is_empty() {
        return Err(OpenError::NotEmpty(to.to_owned()));
    }
    let salvaged = salvage_files(&from_files, Arc::new(target))?;
    match fs::copy(from.join(TOKENS), to.join(TOKENS)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(OpenError::Io {
            file: TOKENS.to_owned(),
            source,
        }),
        Ok(_) | Err(_) => Ok(salvaged),
    }
}

/// Like [`salvage`], with these files; the second ones are to be empty.
///
/// # Errors
///
/// Those of [`salvage`].
pub fn salvage_files(from: &dyn Files, to: Arc<dyn Files>) -> Result<Salvaged, OpenError> {
    let resume = log::recover(to.as_ref(), |_, _| {})?;
    let limits = Limits {
        segment: default_segment_bytes(),
        in_all: u64::MAX,
    };
    let log = resume.start(to, limits)?;
    let failed = log.failed();
    let mut waiting = 0;
    let (records, damage) = log::salvage(from, |record| {
        // A failure shows below.
        let _ = log.append(Kind::Note, record.to_vec(), |_| {});
        waiting += record.len();
        if waiting > COPIED_AT_ONCE {
            wait(&log);
            waiting = 0;
        }
    })?;
    log.close();
    if *failed.borrow() {
        return Err(OpenError::Io {
            file: ".".to_owned(),
            source: io::Error::other("the copy could not be flushed"),
        });
    }
    Ok(Salvaged { records, damage })
}

impl Drop for Keeper {
    /// The cleaner ends with the log.
    fn drop(&mut self) {
        self.close();
    }
}

/// Waits until what was appended is flushed, or never will be.
fn wait(log: &Log) {
    let (tell, told) = mpsc::channel();
    let barrier = log.barrier(move |_| {
        let _ = tell.send(());
    });
    if barrier.is_ok() {
        let _ = told.recv();
    }
}

fn folder(path: &Path) -> Result<Folder, OpenError> {
    Folder::open(path.to_owned()).map_err(|source| {
        if source.kind() == io::ErrorKind::WouldBlock {
            OpenError::InUse(path.to_owned())
        } else {
            OpenError::Io {
                file: ".".to_owned(),
                source,
            }
        }
    })
}

/// Where tokens are kept, unless the configuration names another file.
const TOKENS: &str = "tokens.jsonl";
/// Bytes that are copied before the copy waits for the disk.
const COPIED_AT_ONCE: usize = 8 << 20;
