//! Making room: what lives in the oldest segment is written again, then the segment goes.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use super::{
    Location, Log, NotWritten,
    frame::{self, Piece},
};

/// Whoever knows which records live.
pub(crate) trait Owner: Send + Sync + 'static {
    /// The log.
    fn log(&self) -> &Arc<Log>;

    /// About how many bytes of the log live.
    fn live_bytes(&self) -> u64;

    /// If a record lives, appends to the log, in one step with whatever else changes it, what is to be in its place, and
    /// calls `done` when that is flushed or failed. True if it did.
    fn rewrite(&self, location: Location, record: &[u8], done: Rewritten) -> bool;
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
    let bytes = owner.log().segment(segment)?;
    let (tell, told) = mpsc::channel();
    let mut rewritten = 0;
    let mut is_whole = true;
    for piece in frame::pieces(&bytes) {
        match piece {
            Piece::Group(group) => {
                for (location, record) in frame::records(&bytes, segment, &group) {
                    if owner.rewrite(location, record, Rewritten(tell.clone())) {
                        rewritten += 1;
                    }
                }
            }
            Piece::Unused { .. } => {}
            Piece::Bad { offset, length } => {
                is_whole = false;
                tracing::error!(
                    segment,
                    offset,
                    length,
                    "a segment of the store's log is damaged"
                );
            }
        }
    }
    drop(tell);
    let flushed = told.iter().filter(|is_flushed| *is_flushed).count();
    if flushed < rewritten || !is_whole {
        // What lives there is not safe elsewhere, or cannot be read: the segment stays for whoever salvages it.
        return Ok(false);
    }
    owner.log().remove_oldest(segment)?;
    tracing::debug!(
        segment,
        rewritten,
        "a segment of the store's log is cleaned"
    );
    Ok(true)
}
