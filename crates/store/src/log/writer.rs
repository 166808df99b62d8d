//! Appending: one thread, one group at a time.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    Location,
    files::{Appender, Files},
    frame::{Builder, HEADER, Hash, Header},
    open::Shared,
    queue::{Kind, NotWritten, Pending},
    recover::segment_name,
};
use crate::metrics;

/// The thread that writes.
pub(super) struct Writer {
    shared: Arc<Shared>,
    file: Box<dyn Appender>,
    segment: u32,
    length: u64,
    /// The length of the file, with what is reserved in it.
    reserved: u64,
    next_group: u64,
    chain: Hash,
}

impl Writer {
    /// Begins a segment, with this group.
    pub(super) fn begin(
        shared: Arc<Shared>,
        segment: u32,
        next_group: u64,
        chain: Hash,
    ) -> io::Result<Self> {
        let header = Header {
            segment,
            first_group: next_group,
            chain,
        };
        Ok(Self {
            file: begin_segment(shared.files.as_ref(), &header)?,
            shared,
            segment,
            length: HEADER as u64,
            reserved: HEADER as u64,
            next_group,
            chain,
        })
    }

    /// Writes until the log is closed, or fails.
    pub(super) fn run(mut self) {
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
        let mut idle = Duration::ZERO;
        while !queue.is_awaited() {
            if queue.is_closed && queue.is_empty() {
                return None;
            }
            if queue.is_closed {
                break;
            }
            if idle >= IDLE {
                drop(queue);
                if let Err(error) = self.shared.mark.lock().flush() {
                    tracing::warn!(%error, "the mark of the store's log cannot be flushed");
                }
                queue = self.shared.queue.lock();
                queue.is_asleep = true;
                while queue.is_empty() && !queue.is_closed {
                    self.shared.filled.wait(&mut queue);
                }
                queue.is_asleep = false;
                idle = Duration::ZERO;
                continue;
            }
            let waited = self.shared.filled.wait_for(&mut queue, ASIDES_WAIT);
            if waited.timed_out() && !queue.is_empty() {
                break;
            }
            idle += ASIDES_WAIT;
        }
        Some(queue.take_group())
    }

    /// Writes a group. An error says that the log has failed.
    fn write(&mut self, group: Vec<Pending>) -> io::Result<()> {
        let mut builder = Builder::with_room_for(group.iter().map(Pending::bytes).sum());
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
        self.shared.queue.lock().put_back(notes);
        for promise in promises {
            (promise.done)(Err(NotWritten::NoRoom));
        }
        if is_waiting {
            let mut queue = self.shared.queue.lock();
            if queue.is_closed {
                // Nobody can wait for room any more: after the restart these things are done once more.
                drop(queue.clear());
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
        let pending = queue.clear();
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

/// Bytes that are reserved at a time: some thousand records, and written as fast as a group of them.
const RESERVED: u64 = 1024 * 1024;
/// How long records wait that nobody waits for, if no other comes: one flush then is enough for many of them, and few of what
/// they are about happens once more after a crash.
const ASIDES_WAIT: Duration = Duration::from_millis(10);
/// After how long without a record the mark is flushed.
const IDLE: Duration = Duration::from_millis(100);
/// How long notes wait before they try a full disk again, unless something else comes.
const PAUSE_WHEN_FULL: Duration = Duration::from_millis(500);
