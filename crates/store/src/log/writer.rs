//! Appending: one thread, one group at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::{
    Location, OpenLogError,
    files::{Appender, Files},
    frame::{Builder, HEADER, Hash, Header, RECORD_HEAD},
    mark::Mark,
    recover::{Resume, at, read_record, segment_name},
};
use crate::metrics;

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

/// What a full disk does to a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// It is refused: somebody waits to hear that it is safe.
    Promise,
    /// It is kept until there is room: it says what has happened.
    Note,
}

/// Why a record is not in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotWritten {
    /// There is no room for it.
    NoRoom,
    /// More is waiting to be written than may.
    Busy,
    /// The flush failed: it may be there or not.
    Unknown,
    /// The log takes nothing any more.
    Closed,
}

/// Called back by the writer's thread when a record is flushed, or will not be.
type Done = Box<dyn FnOnce(Result<Location, NotWritten>) + Send>;

struct Pending {
    kind: Kind,
    record: Vec<u8>,
    done: Done,
}

struct Shared {
    files: Arc<dyn Files>,
    limits: Limits,
    queue: Mutex<Queue>,
    /// The queue has got something, or is closed.
    filled: Condvar,
    mark: Mutex<Mark>,
    segments: Mutex<Segments>,
    /// A segment was begun, or the log takes nothing more.
    rolled: Condvar,
    /// Bytes of all segments.
    total: AtomicU64,
    /// Whether the log has failed.
    failed: watch::Sender<bool>,
}

/// Bytes by segment, and how often one was begun.
struct Segments {
    sizes: BTreeMap<u32, u64>,
    rolls: u64,
}

#[derive(Default)]
struct Queue {
    pending: VecDeque<Pending>,
    bytes: usize,
    is_closed: bool,
    is_failed: bool,
}

struct Writer {
    shared: Arc<Shared>,
    file: Box<dyn Appender>,
    segment: u32,
    length: u64,
    /// The length of the file, with what is reserved in it.
    reserved: u64,
    next_group: u64,
    chain: Hash,
}

impl Log {
    pub(super) fn start(
        files: Arc<dyn Files>,
        resume: Resume,
        limits: Limits,
    ) -> Result<Self, OpenLogError> {
        let mark = Mark::begin(Arc::clone(&files), resume.reach).map_err(at(super::mark::NAME))?;
        let segment = resume.next_segment;
        let header = Header {
            segment,
            first_group: resume.reach.last_group + 1,
            chain: resume.chain,
        };
        let file = begin_segment(files.as_ref(), &header).map_err(at(&segment_name(segment)))?;
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
        let writer = Writer {
            shared: Arc::clone(&shared),
            file,
            segment,
            length: HEADER as u64,
            reserved: HEADER as u64,
            next_group: resume.reach.last_group + 1,
            chain: resume.chain,
        };
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
        let mut queue = self.shared.queue.lock();
        if queue.is_closed || queue.is_failed {
            return Err(NotWritten::Closed);
        }
        let bytes = record.len() + RECORD_HEAD;
        if kind == Kind::Promise {
            if queue.bytes + bytes > QUEUE_BYTES {
                return Err(NotWritten::Busy);
            }
            let total = self.shared.total.load(Ordering::Relaxed);
            if total + (queue.bytes + bytes) as u64 > self.shared.limits.in_all {
                return Err(NotWritten::NoRoom);
            }
        }
        queue.bytes += bytes;
        queue.pending.push_back(Pending {
            kind,
            record,
            done: Box::new(done),
        });
        drop(queue);
        self.shared.filled.notify_one();
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
        let queue = self.shared.queue.lock();
        queue.is_closed || queue.is_failed
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
    fn wake_cleaner(&self) {
        // Taken so that the cleaner is not between its look and its wait.
        drop(self.segments.lock());
        self.rolled.notify_all();
    }
}

impl Writer {
    fn run(mut self) {
        while let Some(group) = self.next() {
            if let Err(error) = self.write(group) {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the store's log has failed: what was being written is uncertain, and nothing more is taken"
                );
                self.fail();
                return;
            }
        }
        if let Err(error) = self.give_back() {
            tracing::error!(%error, "what is reserved in the store's log cannot be given back");
        }
        if let Err(error) = self.shared.mark.lock().flush() {
            tracing::error!(%error, "the mark of the store's log cannot be flushed");
        }
    }

    /// Waits for the next group; `None` when the log is closed and all is written.
    fn next(&self) -> Option<Vec<Pending>> {
        let mut queue = self.shared.queue.lock();
        while queue.pending.is_empty() {
            if queue.is_closed {
                return None;
            }
            let idle = self.shared.filled.wait_for(&mut queue, IDLE);
            if idle.timed_out() && queue.pending.is_empty() {
                drop(queue);
                if let Err(error) = self.shared.mark.lock().flush() {
                    tracing::warn!(%error, "the mark of the store's log cannot be flushed");
                }
                queue = self.shared.queue.lock();
                while queue.pending.is_empty() && !queue.is_closed {
                    self.shared.filled.wait(&mut queue);
                }
            }
        }
        let mut bytes = 0;
        let mut is_in = |pending: &&Pending| {
            let is_in = bytes == 0 || bytes + pending.record.len() <= GROUP_BYTES;
            bytes += pending.record.len() + RECORD_HEAD;
            is_in
        };
        let count = queue.pending.iter().take_while(&mut is_in).count();
        let group: Vec<_> = queue.pending.drain(..count).collect();
        let taken: usize = group
            .iter()
            .map(|pending| pending.record.len() + RECORD_HEAD)
            .sum();
        queue.bytes -= taken;
        Some(group)
    }

    /// Writes a group. An error says that the log has failed.
    fn write(&mut self, group: Vec<Pending>) -> io::Result<()> {
        let mut builder = Builder::new();
        let offsets: Vec<_> = group
            .iter()
            .map(|pending| builder.push(&pending.record))
            .collect();
        let length = builder.len() as u64;
        if self.length > HEADER as u64 && self.length + length > self.shared.limits.segment {
            match self.roll() {
                Ok(()) => {}
                Err(error) if is_full(&error) => {
                    self.refuse(group, &error);
                    return Ok(());
                }
                Err(error) => return Err(self.lose(group, error)),
            }
        }
        let (bytes, hash) = builder.finish(self.next_group, &self.chain);
        self.reserve(bytes.len() as u64);
        if let Err(error) = self.file.append(&bytes) {
            let cut = if is_full(&error) {
                self.cut()
            } else {
                Err(error)
            };
            return match cut {
                Ok(error) => {
                    self.refuse(group, &error);
                    Ok(())
                }
                Err(error) => Err(self.lose(group, error)),
            };
        }
        let begun = Instant::now();
        if let Err(error) = self.file.flush() {
            return Err(self.lose(group, error));
        }
        metrics::flushed(group.len(), begun.elapsed());
        let start = self.length;
        self.length += bytes.len() as u64;
        self.grow(bytes.len() as u64);
        let marked = self.shared.mark.lock().group_flushed(self.next_group);
        if let Err(error) = marked {
            // The log itself is whole; only a later loss of its end would go unnoticed.
            tracing::warn!(%error, "the mark of the store's log cannot be written");
        }
        self.next_group += 1;
        self.chain = hash;
        for (pending, offset) in group.into_iter().zip(offsets) {
            let location = self.location(start + offset as u64, pending.record.len());
            (pending.done)(Ok(location));
        }
        Ok(())
    }

    fn location(&self, offset: u64, length: usize) -> Location {
        Location {
            segment: self.segment,
            offset: u32::try_from(offset).expect("a segment is shorter than 4 GiB"),
            length: u32::try_from(length).expect("a record is shorter than its group"),
        }
    }

    /// Begins another segment.
    fn roll(&mut self) -> io::Result<()> {
        let header = Header {
            segment: self.segment + 1,
            first_group: self.next_group,
            chain: self.chain,
        };
        self.file = begin_segment(self.shared.files.as_ref(), &header)?;
        self.give_back()?;
        self.segment += 1;
        self.length = HEADER as u64;
        self.reserved = self.length;
        self.grow(HEADER as u64);
        self.shared.segments.lock().rolls += 1;
        self.shared.rolled.notify_all();
        Ok(())
    }

    /// Sees to it that a group finds its place reserved, and many after it: then flushing one has nothing to do but its
    /// bytes, and does not have to note a new length of the file besides.
    fn reserve(&mut self, bytes: u64) {
        let end = self.length + bytes;
        if end > self.reserved {
            let longest = self.shared.limits.segment.max(end);
            let reserved = longest.min(end + RESERVED);
            match self.file.reserve(reserved - self.length) {
                Ok(()) => self.reserved = reserved,
                // If there is no room for the group either, that shows right away.
                Err(error) => tracing::debug!(%error, "no room is reserved in the store's log"),
            }
        }
    }

    /// Gives back what is reserved in the segment and not used.
    fn give_back(&self) -> io::Result<()> {
        let name = segment_name(self.segment);
        self.shared.files.truncate(&name, self.length)
    }

    fn grow(&self, bytes: u64) {
        let mut segments = self.shared.segments.lock();
        *segments.sizes.entry(self.segment).or_default() += bytes;
        drop(segments);
        let before = self.shared.total.fetch_add(bytes, Ordering::Relaxed);
        metrics::has_bytes(before + bytes);
    }

    /// Cuts off what a full disk has taken of a group.
    fn cut(&mut self) -> io::Result<io::Error> {
        let name = segment_name(self.segment);
        self.shared.files.truncate(&name, self.length)?;
        self.file = self.shared.files.appender(&name)?;
        self.reserved = self.length;
        Ok(io::ErrorKind::StorageFull.into())
    }

    /// The disk is full: promises are refused, notes wait.
    fn refuse(&self, group: Vec<Pending>, error: &io::Error) {
        tracing::warn!(%error, "the disk of the store is full");
        let (promises, notes): (Vec<_>, Vec<_>) = group
            .into_iter()
            .partition(|pending| pending.kind == Kind::Promise);
        let is_waiting = !notes.is_empty();
        {
            let mut queue = self.shared.queue.lock();
            for note in notes.into_iter().rev() {
                queue.bytes += note.record.len() + RECORD_HEAD;
                queue.pending.push_front(note);
            }
        }
        for promise in promises {
            (promise.done)(Err(NotWritten::NoRoom));
        }
        if is_waiting {
            let mut queue = self.shared.queue.lock();
            if queue.is_closed {
                // Nobody can wait for room any more: after the restart these things are done once more.
                queue.pending.clear();
            } else {
                self.shared.filled.wait_for(&mut queue, PAUSE_WHEN_FULL);
            }
        }
    }

    /// The disk has failed: nobody knows what became of the group.
    #[must_use]
    fn lose(&self, group: Vec<Pending>, error: io::Error) -> io::Error {
        self.fail();
        for pending in group {
            (pending.done)(Err(NotWritten::Unknown));
        }
        error
    }

    fn fail(&self) {
        let mut queue = self.shared.queue.lock();
        queue.is_failed = true;
        let pending = std::mem::take(&mut queue.pending);
        queue.bytes = 0;
        drop(queue);
        self.shared.failed.send_replace(true);
        self.shared.wake_cleaner();
        for pending in pending {
            (pending.done)(Err(NotWritten::Closed));
        }
    }
}

fn begin_segment(files: &dyn Files, header: &Header) -> io::Result<Box<dyn Appender>> {
    let name = segment_name(header.segment);
    // One that a full disk has left half made.
    match files.remove(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = files.appender(&name)?;
    file.append(&header.encode())?;
    file.flush()?;
    files.flush_names()?;
    Ok(file)
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Bytes of records that may wait to be written: a second's worth of a slow disk.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of records in a group, if it has more than one: so many are flushed about as fast as one.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that are reserved at a time: some thousand records, and written as fast as a group of them.
const RESERVED: u64 = 1024 * 1024;
/// Segments that may be dead before any is cleaned.
const SPARE_SEGMENTS: u64 = 2;
/// After how long without a record the mark is flushed.
const IDLE: Duration = Duration::from_millis(100);
/// How long notes wait before they try a full disk again, unless something else comes.
const PAUSE_WHEN_FULL: Duration = Duration::from_millis(500);
