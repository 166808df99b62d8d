//! An entry of the outbox, and how it is kept.

use std::{sync::Arc, time::Instant};

use iothub::Timestamp;

use super::super::{location::Location, waiters::Waiters};
use crate::{EntryId, Fingerprint, Lane, OutboxEntry, Outcome, SubmissionId, Survival, Work};

/// An entry that is not settled. Boxed where it is kept, so that empty lanes stay small.
pub(in crate::memory) struct Entry {
    pub(super) id: EntryId,
    pub(super) submission: SubmissionId,
    pub(super) lane: Lane,
    /// What to do, unless that is on the disk alone.
    pub(super) work: Option<Arc<Work>>,
    pub(super) keeping: Keeping,
    pub(super) accepted_at: Timestamp,
    pub(super) size: usize,
    pub(super) attempts: u32,
    /// It was taken and has been put back alone, so it stands among what is taken.
    pub(super) is_put_back: bool,
    pub(super) tickets: Waiters<Outcome>,
}

/// What a restart does to an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::memory) enum Keeping {
    /// It is forgotten, and given up at this moment.
    Ephemeral { deadline: Instant },
    /// It is on its way to the disk; nobody is given it before it is there.
    Storing,
    /// It was ephemeral, and is on its way to the disk; it may be taken.
    Persisting { deadline: Instant },
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
    /// Bytes that it takes of what all entries together may hold.
    pub(in crate::memory) const fn held_bytes(&self) -> usize {
        if self.work.is_some() { self.size } else { 0 }
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
        self.size
    }

    pub(in crate::memory) const fn accepted_at(&self) -> Timestamp {
        self.accepted_at
    }

    pub(in crate::memory) fn work(&self) -> Option<&Work> {
        self.work.as_deref()
    }

    pub(in crate::memory) fn resolve(self, outcome: Outcome) {
        self.tickets.resolve(outcome);
    }

    pub(super) fn take(&mut self) -> Taken {
        self.is_put_back = false;
        let attempts = self.attempts;
        self.attempts = attempts.saturating_add(1);
        let (survival, location) = match self.keeping {
            Keeping::Ephemeral { deadline } | Keeping::Persisting { deadline } => {
                (Survival::Ephemeral { deadline }, None)
            }
            Keeping::Storing => (Survival::Durable, None),
            Keeping::Durable(location) => (Survival::Durable, Some(location)),
        };
        let slip = Slip {
            id: self.id,
            survival,
            accepted_at: self.accepted_at,
            attempts,
        };
        match (&self.work, location) {
            (Some(work), _) => Taken::Held(slip.with(Arc::clone(work))),
            (None, Some(location)) => Taken::Stored(location, slip),
            (None, None) => unreachable!("what is not on the disk is held"),
        }
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
            Self::Ephemeral { .. } => false,
            Self::Storing | Self::Persisting { .. } | Self::Durable(_) => true,
        }
    }

    /// Whether it is not known yet that it is on the disk.
    pub(in crate::memory) const fn is_on_its_way(self) -> bool {
        match self {
            Self::Storing | Self::Persisting { .. } => true,
            Self::Ephemeral { .. } | Self::Durable(_) => false,
        }
    }

    pub(in crate::memory) const fn location(self) -> Option<Location> {
        match self {
            Self::Durable(location) => Some(location),
            Self::Ephemeral { .. } | Self::Storing | Self::Persisting { .. } => None,
        }
    }

    pub(super) const fn deadline(self) -> Option<Instant> {
        match self {
            Self::Ephemeral { deadline } | Self::Persisting { deadline } => Some(deadline),
            Self::Storing | Self::Durable(_) => None,
        }
    }
}
