//! Making room: what lives in the oldest segment is written again, then the segment goes.
//!
//! A segment that has gone bad since it was written does not stop that. What lives in its bad parts is written again as far as a
//! record can still be read alone, or is known without; the rest is named. The file is set aside under another name.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use super::{
    Location, Log, NotWritten,
    frame::{self, Piece},
};
use crate::metrics::DAMAGED_SEGMENTS;

/// Whoever knows which records live.
pub(crate) trait Owner: Send + Sync + 'static {
    /// The log.
    fn log(&self) -> &Arc<Log>;

    /// About how many bytes of the log live.
    fn live_bytes(&self) -> u64;

    /// If a record lives, appends to the log, in one step with whatever else changes it, what is to be in its place, and
    /// calls `done` when that is flushed or failed. True if it did.
    fn rewrite(&self, location: Location, record: &[u8], done: Rewritten) -> bool;

    /// Does the same for all that lives in a segment, some of whose records cannot be read. Answers for how many it did.
    fn rescue(&self, segment: u32, done: &dyn Fn() -> Rewritten) -> usize;
}

/// Tells the cleaner that a record is written again, or is not.
pub(crate) struct Rewritten(mpsc::Sender<bool>);

impl Rewritten {
    /// What became of it.
    pub(crate) fn tell<T>(self, result: &Result<T, NotWritten>) {
        // The cleaner may have given up.
        let _ = self.0.send(result.is_ok());
    }
}

/// The thread that makes room. It ends with the log.
pub(crate) struct Cleaner(Option<JoinHandle<()>>);

impl Cleaner {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub(crate) fn start(log: Arc<Log>, owner: Arc<dyn Owner>) -> io::Result<Self> {
        let thread = thread::Builder::new().name("store-cleaner".to_owned());
        let thread = thread.spawn(move || {
            let mut seen = 0;
            while let Some(rolls) = log.rolled_after(seen) {
                seen = rolls;
                while let Some(segment) = log.oldest_to_clean(|| owner.live_bytes()) {
                    match clean(owner.as_ref(), segment) {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(error) => {
                            tracing::error!(%error, segment, "a segment of the store's log cannot be cleaned");
                            return;
                        }
                    }
                }
            }
        })?;
        Ok(Self(Some(thread)))
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            // The thread itself may be the last to hold the engine.
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread that cleans the store's log has panicked");
        }
    }
}

/// Cleans the oldest segment. False if that cannot be done and must not be tried again.
fn clean(owner: &dyn Owner, segment: u32) -> io::Result<bool> {
    let mut is_whole = true;
    let rewritten = all_flushed(|done| rewrite(owner, segment, &mut is_whole, done));
    let rescued = if is_whole {
        Some(0)
    } else {
        // What was rewritten is flushed, so it lives elsewhere by now.
        all_flushed(|done| owner.rescue(segment, done))
    };
    let (Some(rewritten), Some(rescued)) = (rewritten, rescued) else {
        return Ok(false); // The log has failed, or is closed: what lives in the segment is not safe elsewhere.
    };
    if is_whole {
        owner.log().remove_oldest(segment)?;
        tracing::debug!(
            segment,
            rewritten,
            "a segment of the store's log is cleaned"
        );
    } else {
        let file = owner.log().set_oldest_aside(segment)?;
        metrics::counter!(DAMAGED_SEGMENTS).increment(1);
        tracing::error!(
            segment,
            rewritten,
            rescued,
            file,
            "a segment of the store's log had gone bad: all that could be read of it is written again, what could not is a \
             dead letter, and its file is set aside"
        );
    }
    Ok(true)
}

/// Rewrites the records of a segment's groups. Answers how many live.
fn rewrite(
    owner: &dyn Owner,
    segment: u32,
    is_whole: &mut bool,
    done: &dyn Fn() -> Rewritten,
) -> usize {
    let bytes = match owner.log().segment(segment) {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, segment, "a segment of the store's log cannot be read");
            *is_whole = false;
            return 0;
        }
    };
    let mut rewritten = 0;
    for piece in frame::pieces(&bytes) {
        match piece {
            Piece::Group(group) => {
                let records = frame::records(&bytes, segment, &group);
                rewritten += records
                    .filter(|(location, record)| owner.rewrite(*location, record, done()))
                    .count();
            }
            Piece::Unused { .. } => {}
            Piece::Bad { offset, length } => {
                *is_whole = false;
                tracing::error!(
                    segment,
                    offset,
                    length,
                    "a segment of the store's log is damaged"
                );
            }
        }
    }
    rewritten
}

/// Waits for all records that this appends; how many they are, if all are flushed.
fn all_flushed(append: impl FnOnce(&dyn Fn() -> Rewritten) -> usize) -> Option<usize> {
    let (tell, told) = mpsc::channel();
    let appended = append(&|| Rewritten(tell.clone()));
    drop(tell);
    let flushed = told.iter().filter(|is_flushed| *is_flushed).count();
    (flushed == appended).then_some(appended)
}
