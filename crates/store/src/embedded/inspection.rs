//! A store's folder as an operator reads it while no gateway has it.

use std::{fs, io, path::Path, sync::Arc};

use iothub::Identity;

use super::{Files, Held, OpenError, Recovery, Said, apply_all, folder, unbounded};
use crate::{
    Clock, Stock, SystemClock, log,
    memory::{Engine, Moment},
};

/// What a folder has, read once. It has the folder for itself as long as it is there, and changes nothing in it.
pub struct Inspection {
    engine: Engine,
    files: Arc<dyn Files>,
    recovery: Recovery,
    now: Moment,
}

/// Whether there is a store in a folder. Changes nothing, and needs nobody's leave.
///
/// # Errors
///
/// The folder cannot be read.
pub fn is_store(folder_path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder_path)? {
        if entry?.file_name().to_str().is_some_and(log::is_file_of_log) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads a folder. Blocks.
///
/// # Errors
///
/// The folder cannot be used, or something in it is damaged.
pub fn inspect(folder_path: &Path) -> Result<Inspection, OpenError> {
    inspect_files(Arc::new(folder(folder_path)?), Arc::new(SystemClock))
}

/// Like [`inspect`], with these files and this clock.
///
/// # Errors
///
/// Those of [`inspect`].
pub fn inspect_files(
    files: Arc<dyn Files>,
    clock: Arc<dyn Clock>,
) -> Result<Inspection, OpenError> {
    let start = clock.instant();
    let engine = Engine::open(unbounded(), Arc::clone(&clock))?;
    let now = engine.now();
    let recovered = apply_all(&engine, now, |each| log::look_through(files.as_ref(), each))?;
    let counts = engine.recovered(now);
    let took = clock.instant().saturating_duration_since(start);
    Ok(Inspection {
        engine,
        files,
        recovery: Recovery::new(recovered, counts, took),
        now,
    })
}

impl Inspection {
    /// What a start would find, but for the bounds of its configuration.
    #[must_use]
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The devices that have something, in the order of their names: what they have in the outbox, and in the inbox.
    #[must_use]
    pub fn stocked(&self) -> Vec<(Identity, Stock, Stock)> {
        self.engine.stocked(self.now)
    }

    /// What a device has: of the outbox and then of the inbox, first what waits and then the dead letters.
    #[must_use]
    pub fn held(&self, identity: &Identity) -> Vec<Held> {
        self.engine.held(identity, self.now)
    }

    /// Reads what one of them says; `None` if it is damaged, or was never kept.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read(&self, held: &Held) -> io::Result<Option<Said>> {
        held.read(self.files.as_ref())
    }
}
