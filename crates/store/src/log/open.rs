//! A log that is open, for those who append to it and read it.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::{
    Location, OpenLogError,
    files::Files,
    frame::{HEADER, RECORD_HEAD},
    mark::Mark,
    queue::{Kind, NotWritten, Pending, Queue},
    recover::{Resume, at, read_record, segment_name},
    writer::Writer,
};

/// A log that is open. Closed when dropped, after what was appended is flushed.
pub(crate) struct Log {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// How large a log may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of a segment after which another one begins.
    pub(crate) segment: u64,
    /// Bytes of all segments; promises beyond are refused.
    pub(crate) in_all: u64,
}

/// What the log and its writer share.
pub(super) struct Shared {
    pub(super) files: Arc<dyn Files>,
    pub(super) limits: Limits,
    pub(super) queue: Mutex<Queue>,
    /// The queue has got something, or is closed.
    pub(super) filled: Condvar,
    pub(super) mark: Mutex<Mark>,
    pub(super) segments: Mutex<Segments>,
    /// A segment was begun, or the log takes nothing more.
    pub(super) rolled: Condvar,
    /// Bytes of all segments.
    pub(super) total: AtomicU64,
    /// Whether the log has failed.
    pub(super) failed: watch::Sender<bool>,
}

/// Bytes by segment, and how often one was begun.
pub(super) struct Segments {
    pub(super) sizes: BTreeMap<u32, u64>,
    pub(super) rolls: u64,
}

impl Log {
    pub(super) fn start(
        files: Arc<dyn Files>,
        resume: Resume,
        limits: Limits,
    ) -> Result<Self, OpenLogError> {
        let mark = Mark::begin(Arc::clone(&files), resume.reach).map_err(at(super::mark::NAME))?;
        let segment = resume.next_segment;
        let mut sizes = resume.sizes;
        sizes.insert(segment, HEADER as u64);
        let shared = Arc::new(Shared {
            total: AtomicU64::new(sizes.values().sum()),
            files,
            limits,
            queue: Mutex::default(),
            filled: Condvar::new(),
            mark: Mutex::new(mark),
            segments: Mutex::new(Segments { sizes, rolls: 0 }),
            rolled: Condvar::new(),
            failed: watch::Sender::new(false),
        });
        let writer = Writer::begin(
            Arc::clone(&shared),
            segment,
            resume.reach.last_group + 1,
            resume.chain,
        )
        .map_err(at(&segment_name(segment)))?;
        let thread = thread::Builder::new().name("store-log".to_owned());
        let thread = thread.spawn(move || writer.run()).map_err(at("."))?;
        Ok(Self {
            shared,
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Leaves a record to be written. Records of the queue are written in its order. If this fails, `done` is not called.
    pub(crate) fn append(
        &self,
        kind: Kind,
        record: Vec<u8>,
        done: impl FnOnce(Result<Location, NotWritten>) + Send + 'static,
    ) -> Result<(), NotWritten> {
        let done = Box::new(done);
        let mut queue = self.shared.queue.lock();
        if queue.is_over() {
            return Err(NotWritten::Closed);
        }
        if kind == Kind::Promise {
            let bytes = queue.bytes() + record.len() + RECORD_HEAD;
            if bytes > QUEUE_BYTES {
                return Err(NotWritten::Busy);
            }
            let total = self.shared.total.load(Ordering::Relaxed);
            if total + bytes as u64 > self.shared.limits.in_all {
                return Err(NotWritten::NoRoom);
            }
        }
        let is_to_wake = queue.push(Pending { kind, record, done });
        drop(queue);
        if is_to_wake {
            self.shared.filled.notify_one();
        }
        Ok(())
    }

    /// Reads a record back. `None` if it is not what was written.
    pub(crate) fn read(&self, location: Location) -> io::Result<Option<Vec<u8>>> {
        read_record(self.shared.files.as_ref(), location)
    }

    /// Leaves an empty record to be written: when it is flushed, all that was appended before is settled.
    pub(crate) fn barrier(
        &self,
        done: impl FnOnce(Result<Location, NotWritten>) + Send + 'static,
    ) -> Result<(), NotWritten> {
        self.append(Kind::Promise, Vec::new(), done)
    }

    /// True from the moment on in which the log has failed.
    pub(crate) fn failed(&self) -> watch::Receiver<bool> {
        self.shared.failed.subscribe()
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.total.load(Ordering::Relaxed)
    }

    /// Writes what was appended and takes nothing more. Blocks until that is done.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.filled.notify_one();
        self.shared.wake_cleaner();
        if let Some(writer) = self.writer.lock().take()
            // The writer itself may be the last to hold the engine.
            && writer.thread().id() != thread::current().id()
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes the store's log has panicked");
        }
    }

    /// The oldest segment, if it is worth removing.
    pub(super) fn oldest_to_clean(&self, live_bytes: impl FnOnce() -> u64) -> Option<u32> {
        let oldest = {
            let segments = self.shared.segments.lock();
            let is_alone = segments.sizes.len() <= 2;
            (!is_alone).then(|| segments.sizes.keys().next().copied())?
        };
        let Limits { segment, in_all } = self.shared.limits;
        let (total, spare) = (self.bytes(), SPARE_SEGMENTS * segment);
        if total <= spare || self.is_closed() {
            return None;
        }
        // Twice what lives is the price of writing it again seldom; near the bound room is dearer.
        let live = live_bytes();
        let is_worth_it = total > live.saturating_mul(2) + spare
            || (total > in_all / 4 * 3 && total.saturating_sub(live) > spare);
        oldest.filter(|_| is_worth_it)
    }

    /// Waits until a segment was begun since `seen`, and says how many were; `None` when the log is closed.
    pub(super) fn rolled_after(&self, seen: u64) -> Option<u64> {
        let mut segments = self.shared.segments.lock();
        loop {
            if self.is_closed() {
                return None;
            }
            if segments.rolls != seen {
                return Some(segments.rolls);
            }
            self.shared.rolled.wait(&mut segments);
        }
    }

    fn is_closed(&self) -> bool {
        self.shared.queue.lock().is_over()
    }

    /// A closed segment's bytes.
    pub(super) fn segment(&self, number: u32) -> io::Result<Vec<u8>> {
        self.shared.files.read(&segment_name(number))
    }

    /// Removes the oldest segment. Whatever lived in it is flushed elsewhere.
    pub(super) fn remove_oldest(&self, number: u32) -> io::Result<()> {
        self.forget_oldest(number)?;
        self.shared.files.remove(&segment_name(number))?;
        self.shared.files.flush_names()
    }

    /// Gives the oldest segment, which is damaged, a name that is no segment's. Whatever could be saved of it is flushed
    /// elsewhere.
    pub(super) fn set_oldest_aside(&self, number: u32) -> io::Result<String> {
        self.forget_oldest(number)?;
        let name = segment_name(number);
        let aside = format!("{name}.damaged");
        self.shared.files.rename(&name, &aside)?;
        self.shared.files.flush_names()?;
        Ok(aside)
    }

    fn forget_oldest(&self, number: u32) -> io::Result<()> {
        self.shared.mark.lock().set_oldest(number + 1)?;
        let removed = self.shared.segments.lock().sizes.remove(&number);
        self.shared
            .total
            .fetch_sub(removed.unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Lets the cleaner see that the log is closed.
    pub(super) fn wake_cleaner(&self) {
        // Taken so that the cleaner is not between its look and its wait.
        drop(self.segments.lock());
        self.rolled.notify_all();
    }
}

/// Bytes of records that may wait to be written: a second's worth of a slow disk.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Segments that may be dead before any is cleaned.
const SPARE_SEGMENTS: u64 = 2;
