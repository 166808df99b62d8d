//! What waits to be written.
//!
//! ```text
//!   push(promise | note)  --> somebody waits: it is written as soon as the disk is free
//!   push(aside)           --> nobody waits: it goes with them, or alone a moment later
//! ```

use std::collections::VecDeque;

use super::{Location, frame::RECORD_HEAD};

/// What a record is to whoever leaves it: what a full disk does to it, and whether somebody waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// It is refused when the disk is full: somebody waits to hear that it is safe.
    Promise,
    /// It is kept until there is room: it says what has happened, and somebody waits to hear that this is kept.
    Note,
    /// It is kept until there is room, and nobody waits: no flush is made for it at once.
    Aside,
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
pub(super) type Done = Box<dyn FnOnce(Result<Location, NotWritten>) + Send>;

/// A record that waits.
pub(super) struct Pending {
    pub(super) kind: Kind,
    pub(super) record: Vec<u8>,
    pub(super) done: Done,
}

/// Records that wait, in the order in which they are written.
#[derive(Default)]
pub(super) struct Queue {
    pending: VecDeque<Pending>,
    /// What they take in a group.
    bytes: usize,
    /// For how many of them somebody waits.
    awaited: usize,
    /// Nothing more is taken; what is here is written.
    pub(super) is_closed: bool,
    /// Nothing more is taken, or written.
    pub(super) is_failed: bool,
    /// The writer has nothing to do, and looks at nothing before it is woken.
    pub(super) is_asleep: bool,
}

impl Queue {
    /// Puts a record in. True if the writer is to be woken.
    pub(super) fn push(&mut self, pending: Pending) -> bool {
        self.count(&pending);
        let is_awaited = pending.kind.is_awaited();
        self.pending.push_back(pending);
        is_awaited || self.is_asleep
    }

    /// Puts records back that a full disk has not taken: they come first again.
    pub(super) fn put_back(&mut self, notes: Vec<Pending>) {
        for note in notes.into_iter().rev() {
            self.count(&note);
            self.pending.push_front(note);
        }
    }

    /// Takes the first of them, as many as go into a group.
    pub(super) fn take_group(&mut self) -> Vec<Pending> {
        let mut bytes = 0;
        let is_in = |pending: &&Pending| {
            let is_in = bytes == 0 || bytes + pending.record.len() <= GROUP_BYTES;
            bytes += pending.bytes();
            is_in
        };
        let count = self.pending.iter().take_while(is_in).count();
        let group: Vec<_> = self.pending.drain(..count).collect();
        for pending in &group {
            self.bytes -= pending.bytes();
            self.awaited -= usize::from(pending.kind.is_awaited());
        }
        group
    }

    /// Takes all of them out.
    pub(super) fn clear(&mut self) -> VecDeque<Pending> {
        self.bytes = 0;
        self.awaited = 0;
        std::mem::take(&mut self.pending)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether somebody waits for one of them.
    pub(super) const fn is_awaited(&self) -> bool {
        self.awaited > 0
    }

    /// Whether the log takes nothing more.
    pub(super) const fn is_over(&self) -> bool {
        self.is_closed || self.is_failed
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&mut self, pending: &Pending) {
        self.bytes += pending.bytes();
        self.awaited += usize::from(pending.kind.is_awaited());
    }
}

impl Pending {
    /// What it takes in a group.
    pub(super) fn bytes(&self) -> usize {
        self.record.len() + RECORD_HEAD
    }
}

impl Kind {
    const fn is_awaited(self) -> bool {
        match self {
            Self::Promise | Self::Note => true,
            Self::Aside => false,
        }
    }
}

/// Bytes of records in a group, if it has more than one: so many are flushed about as fast as one.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asides_wake_nobody_but_a_writer_that_sleeps() {
        let mut queue = Queue::default();
        assert!(!queue.push(pending(Kind::Aside, 1)) && !queue.is_awaited());
        assert!(queue.push(pending(Kind::Note, 1)) && queue.is_awaited());
        assert!(queue.push(pending(Kind::Promise, 1)));
        assert_eq!(queue.bytes(), 3 * (1 + RECORD_HEAD));
        let group = queue.take_group();
        assert_eq!(
            (group.len(), queue.bytes(), queue.is_awaited()),
            (3, 0, false)
        );
        queue.put_back(group);
        assert!(queue.is_awaited());
        assert_eq!(queue.clear().len(), 3);
        assert_eq!((queue.bytes(), queue.is_awaited()), (0, false));
        queue.is_asleep = true;
        assert!(queue.push(pending(Kind::Aside, 1)));
    }

    #[test]
    fn a_group_has_a_bound_and_one_record_at_least() {
        let room = GROUP_BYTES - (1 + RECORD_HEAD);
        for (second, in_group) in [(room - 1, 2), (room, 2), (room + 1, 1)] {
            let mut queue = Queue::default();
            queue.push(pending(Kind::Promise, 1));
            queue.push(pending(Kind::Promise, second));
            assert_eq!(queue.take_group().len(), in_group, "{second}");
        }
        let mut queue = Queue::default();
        queue.push(pending(Kind::Promise, GROUP_BYTES + 1));
        assert_eq!(queue.take_group().len(), 1);
    }

    fn pending(kind: Kind, bytes: usize) -> Pending {
        Pending {
            kind,
            record: vec![0; bytes],
            done: Box::new(|_| {}),
        }
    }
}
