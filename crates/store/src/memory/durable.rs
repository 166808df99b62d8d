//! The engine with a disk under it.
//!
//! What must survive is a record in a [log](crate::log); everything else, and where each record is, is in memory as it is
//! without a disk. A change of one device is made and its record left to the log under the same lock, so the log has a
//! device's changes in the order in which they happened. Whoever was promised something waits until its record is
//! flushed, without the lock.
//!
//! ```text
//!   submit(durable) --> lane: storing ---(flushed)---> lane: durable, taken by a reader
//!                       log: Stored   ---(no room)---> gone, refused
//!   settle          --> log: Settled                   nobody waits: after a crash it is sent again, under its own id
//! ```
//!
//! The work of a durable entry is held in memory too as long as all entries take half of their bound, so a message that goes on
//! at once is not read back, and what is not on the disk finds room however much is. After a restart it is on the disk alone.

mod codec;
mod credentials;
mod dead;
mod held;
mod inbox;
mod keys;
mod outbox;
mod record;
mod recovery;
mod rewrite;

use std::sync::Arc;

use tokio::sync::oneshot::{self, error::RecvError};

pub use self::{
    held::{Held, Kept},
    record::Said,
};
pub(crate) use self::{
    record::said,
    recovery::{Counts, Unreadable},
    rewrite::Living,
};
use super::{Engine, Location, cell::Cell};
use crate::{
    StoreError,
    log::{Kind, Log, NotWritten},
};

/// Tells whoever waits for a record what became of it.
pub(super) type Told = oneshot::Receiver<Result<(), NotWritten>>;

impl Engine {
    /// The log, if there is a disk.
    pub(super) fn log(&self) -> Result<&Arc<Log>, StoreError> {
        self.log.get().ok_or(StoreError::Volatile)
    }

    /// Leaves a record of a device to the log; `done` hears of it.
    fn leave(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        kind: Kind,
        record: Vec<u8>,
        done: impl FnOnce(&Arc<Self>, &Arc<Cell>, Result<Location, NotWritten>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let (engine, cell) = (Arc::clone(self), Arc::clone(cell));
        let done = move |result| done(&engine, &cell, result);
        Ok(self.log()?.append(kind, record, done)?)
    }

    /// The same; after `done` whoever is told hears of it.
    fn append(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        kind: Kind,
        record: Vec<u8>,
        done: impl FnOnce(&Arc<Self>, &Arc<Cell>, Result<Location, NotWritten>) + Send + 'static,
    ) -> Result<Told, StoreError> {
        let (tell, told) = oneshot::channel();
        self.leave(cell, kind, record, move |engine, cell, result| {
            done(engine, cell, result);
            // Nobody may wait: the record stands all the same.
            let _ = tell.send(result.map(drop));
        })?;
        Ok(told)
    }

    /// Waits until everything that was left to the log before is there, or is not going to be.
    pub(super) async fn barrier(&self) -> Result<(), StoreError> {
        match self.leave_barrier()? {
            Some(told) => written(told).await,
            None => Err(StoreError::Volatile),
        }
    }

    /// Says when all that was left to the log before is flushed; `None` if the engine keeps nothing.
    pub(super) fn leave_barrier(&self) -> Result<Option<Told>, StoreError> {
        let Ok(log) = self.log() else {
            return Ok(None);
        };
        let (tell, told) = oneshot::channel();
        log.barrier(move |result| {
            let _ = tell.send(result.map(drop));
        })?;
        Ok(Some(told))
    }
}

/// Waits until a record is flushed.
pub(super) async fn written(
    told: impl Future<Output = Result<Result<(), NotWritten>, RecvError>>,
) -> Result<(), StoreError> {
    match told.await {
        Ok(result) => Ok(result?),
        // The log was closed, and the record was a note that a full disk had kept waiting.
        Err(_) => Err(StoreError::Unavailable),
    }
}

impl From<NotWritten> for StoreError {
    fn from(not_written: NotWritten) -> Self {
        match not_written {
            NotWritten::NoRoom => Self::StorageFull,
            NotWritten::Busy | NotWritten::Closed => Self::Unavailable,
            NotWritten::Unknown => Self::UnknownOutcome,
        }
    }
}
