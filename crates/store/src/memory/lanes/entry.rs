//! An entry of the outbox, and how it is kept.

use std::{sync::Arc, time::Instant};

use iothub::Timestamp;

use super::super::{location::Location, waiters::Waiters};
use crate::{
    EntryId, Fingerprint, Lane, OutboxEntry, Outcome, SubmissionId, Survival, Ticket, Work,
};

/// An entry that is not settled. A million of them may wait after a restart: what only one needs that was submitted to this
/// process is apart. Boxed where it is kept, so that empty lanes stay small.
pub(in crate::memory) struct Entry {
    pub(super) submission: SubmissionId,
    pub(super) id: EntryId,
    pub(super) accepted_at: Timestamp,
    /// None: nobody waits for it, and it is on the disk alone.
    held: Option<Box<Held>>,
    pub(super) keeping: Keeping,
    size: u32,
    /// How often it was taken, as far as this counts.
    attempts: u16,
    pub(super) lane: Lane,
    /// It was taken and has been put back alone, so it stands among what is taken.
    pub(super) is_put_back: bool,
}

/// What an entry has in memory that was submitted to this process.
struct Held {
    /// What to do, unless that is on the disk alone.
    work: Option<Arc<Work>>,
    /// When it is given up, unless it is on the disk by then.
    deadline: Option<Instant>,
    tickets: Waiters<Outcome>,
}

/// What a restart does to an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::memory) enum Keeping {
    /// It is forgotten, and given up at its deadline.
    Ephemeral,
    /// It is on its way to the disk; nobody is given it before it is there.
    Storing,
    /// It was ephemeral, and is on its way to the disk; it may be taken.
    Persisting,
    /// It is on the disk.
    Durable(Location),
}

/// A submission, measured.
pub(in crate::memory) struct Fresh {
    pub(in crate::memory) id: SubmissionId,
    pub(in crate::memory) fingerprint: Option<Fingerprint>,
    pub(in crate::memory) lane: Lane,
    /// None: it is on the disk alone.
    pub(in crate::memory) work: Option<Arc<Work>>,
    pub(in crate::memory) keeping: Keeping,
    /// When it is given up, if it is ephemeral.
    pub(in crate::memory) deadline: Option<Instant>,
    pub(in crate::memory) accepted_at: Timestamp,
    pub(in crate::memory) size: usize,
}

/// What a reader takes.
pub(in crate::memory) enum Taken {
    /// It is in memory.
    Held(OutboxEntry),
    /// What it is to do is on the disk alone.
    Stored(Location, Slip),
}

/// An entry without what it is to do.
#[derive(Clone, Copy)]
pub(in crate::memory) struct Slip {
    pub(in crate::memory) id: EntryId,
    survival: Survival,
    accepted_at: Timestamp,
    attempts: u32,
}

impl Entry {
    pub(super) fn new(id: EntryId, fresh: Fresh, tickets: Waiters<Outcome>) -> Self {
        let is_held = fresh.work.is_some() || fresh.deadline.is_some() || tickets.is_any();
        let held = Held {
            work: fresh.work,
            deadline: fresh.deadline,
            tickets,
        };
        Self {
            submission: fresh.id,
            id,
            accepted_at: fresh.accepted_at,
            held: is_held.then(|| Box::new(held)),
            keeping: fresh.keeping,
            size: u32::try_from(fresh.size).unwrap_or(u32::MAX),
            attempts: 0,
            lane: fresh.lane,
            is_put_back: false,
        }
    }

    /// Another ticket.
    pub(super) fn join(&mut self) -> Ticket<Outcome> {
        let none = || Held {
            work: None,
            deadline: None,
            tickets: Waiters::none(),
        };
        let held = self.held.get_or_insert_with(|| Box::new(none()));
        held.tickets.join()
    }

    pub(super) fn take(&mut self) -> Taken {
        self.is_put_back = false;
        let attempts = self.attempts();
        self.attempts = self.attempts.saturating_add(1);
        let deadline = self.deadline();
        let slip = Slip {
            id: self.id,
            survival: deadline.map_or(Survival::Durable, |deadline| Survival::Ephemeral {
                deadline,
            }),
            accepted_at: self.accepted_at,
            attempts,
        };
        let work = self.held.as_ref().and_then(|held| held.work.as_ref());
        match (work, self.keeping.location()) {
            (Some(work), _) => Taken::Held(slip.with(Arc::clone(work))),
            (None, Some(location)) => Taken::Stored(location, slip),
            (None, None) => unreachable!("what is not on the disk is held"),
        }
    }

    /// Lets go of what it is to do, which is on the disk. Answers the bytes that it held.
    pub(super) fn let_go(&mut self) -> usize {
        let held_bytes = self.held_bytes();
        if let Some(held) = &mut self.held {
            held.work = None;
            self.held.take_if(|held| !held.tickets.is_any());
        }
        held_bytes
    }

    pub(in crate::memory) fn resolve(self, outcome: Outcome) {
        if let Some(held) = self.held {
            held.tickets.resolve(outcome);
        }
    }

    /// Bytes that it takes of what all entries together may hold.
    pub(in crate::memory) fn held_bytes(&self) -> usize {
        self.work().map_or(0, |_| self.size())
    }

    pub(in crate::memory) fn work(&self) -> Option<&Work> {
        self.held.as_ref()?.work.as_deref()
    }

    /// When it is given up, unless it is on the disk.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.keeping {
            Keeping::Ephemeral | Keeping::Persisting => self.held.as_ref()?.deadline,
            Keeping::Storing | Keeping::Durable(_) => None,
        }
    }

    pub(in crate::memory) const fn id(&self) -> EntryId {
        self.id
    }

    pub(in crate::memory) const fn submission(&self) -> SubmissionId {
        self.submission
    }

    pub(in crate::memory) const fn lane(&self) -> Lane {
        self.lane
    }

    pub(in crate::memory) const fn keeping(&self) -> Keeping {
        self.keeping
    }

    pub(in crate::memory) const fn size(&self) -> usize {
        self.size as usize
    }

    pub(in crate::memory) const fn accepted_at(&self) -> Timestamp {
        self.accepted_at
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts.into()
    }
}

impl Taken {
    pub(in crate::memory) const fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }

    /// The entry, if what it is to do is in memory.
    pub(in crate::memory) fn into_held(self) -> Option<OutboxEntry> {
        match self {
            Self::Held(entry) => Some(entry),
            Self::Stored(..) => None,
        }
    }
}

impl Slip {
    pub(in crate::memory) const fn with(self, work: Arc<Work>) -> OutboxEntry {
        OutboxEntry {
            id: self.id,
            work,
            survival: self.survival,
            accepted_at: self.accepted_at,
            attempts: self.attempts,
        }
    }
}

impl Keeping {
    /// Whether a restart may find it.
    pub(in crate::memory) const fn is_stored(self) -> bool {
        match self {
            Self::Ephemeral => false,
            Self::Storing | Self::Persisting | Self::Durable(_) => true,
        }
    }

    /// Whether it is not known yet that it is on the disk.
    pub(in crate::memory) const fn is_on_its_way(self) -> bool {
        match self {
            Self::Storing | Self::Persisting => true,
            Self::Ephemeral | Self::Durable(_) => false,
        }
    }

    pub(in crate::memory) const fn location(self) -> Option<Location> {
        match self {
            Self::Durable(location) => Some(location),
            Self::Ephemeral | Self::Storing | Self::Persisting => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_on_the_disk_alone_is_small() {
        // What a restart finds of each stored message, beside a place in its lane and one in the index.
        assert_eq!(size_of::<Entry>(), 64);
    }

    #[test]
    fn what_was_taken_too_often_to_be_counted_is_taken_all_the_same() {
        let location = Location {
            segment: 1,
            offset: 64,
            length: 10,
        };
        let fresh = Fresh {
            id: SubmissionId(1),
            fingerprint: None,
            lane: Lane::Telemetry,
            work: None,
            keeping: Keeping::Durable(location),
            deadline: None,
            accepted_at: Timestamp::from_unix_seconds(0),
            size: 10,
        };
        let mut entry = Entry::new(EntryId(1), fresh, Waiters::none());
        entry.attempts = u16::MAX - 1;
        for attempts in [u16::MAX - 1, u16::MAX, u16::MAX] {
            let Taken::Stored(_, slip) = entry.take() else {
                panic!("it is on the disk alone");
            };
            assert_eq!(slip.attempts, u32::from(attempts));
        }
    }
}
