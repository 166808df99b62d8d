//! Work that the session has taken and not finished.

use std::time::Instant;

use session::WorkId;
use store::{EntryId, Failure, Lane};

use super::desired::Generation;

/// A few dozen pieces of work at most: each lane has its window.
#[derive(Default)]
pub(super) struct InFlight {
    next: u64,
    works: Vec<Work>,
}

/// One piece of work.
pub(super) struct Work {
    id: WorkId,
    /// Who asked for it.
    pub(super) origin: Origin,
    /// For a twin read: what its answer says of the desired properties.
    reads: Option<Generation>,
    /// When nobody waits for it any more.
    deadline: Option<Instant>,
    /// Whether the hub may have seen it.
    may_have_arrived: bool,
    /// Since when the session has it.
    pub(super) since: Instant,
}

/// Who asked for a piece of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// A device, through the outbox.
    Entry {
        /// The entry.
        id: EntryId,
        /// Its lane.
        lane: Lane,
    },
    /// The gateway reads the twin for those who follow the desired properties.
    OwnRead,
    /// The gateway answers a direct method itself.
    OwnAnswer,
}

impl InFlight {
    /// Names a piece of work that the session is about to get.
    pub(super) fn begin(
        &mut self,
        origin: Origin,
        reads: Option<Generation>,
        deadline: Option<Instant>,
        is_connected: bool,
        now: Instant,
    ) -> WorkId {
        let id = WorkId(self.next);
        self.next += 1;
        self.works.push(Work {
            id,
            origin,
            reads,
            deadline,
            may_have_arrived: is_connected,
            since: now,
        });
        id
    }

    /// The session has finished it, one way or the other.
    pub(super) fn end(&mut self, id: WorkId) -> Option<Work> {
        let place = self.works.iter().position(|work| work.id == id)?;
        Some(self.works.swap_remove(place))
    }

    /// A connection is there, and everything goes out.
    pub(super) fn on_connected(&mut self) {
        self.works
            .iter_mut()
            .for_each(|work| work.may_have_arrived = true);
    }

    /// Takes out what nobody waits for any more.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<(WorkId, Work)> {
        self.take(|work| work.deadline.is_some_and(|deadline| deadline <= now))
    }

    /// Takes out what is not worth waiting for while there is no hub: it has a deadline, and has not been sent.
    pub(super) fn take_unsent(&mut self) -> Option<(WorkId, Work)> {
        self.take(|work| work.deadline.is_some() && !work.may_have_arrived)
    }

    /// Takes work back that has become durable.
    pub(super) fn keep(&mut self, work: Work) {
        self.works.push(Work {
            deadline: None,
            ..work
        });
    }

    /// Takes out what the twin and the telemetry lane have there.
    pub(super) fn take_sendable(&mut self) -> Option<(WorkId, Work)> {
        self.take(Work::is_sendable)
    }

    /// Stored entries that the hub may have seen.
    pub(super) fn stored_and_seen(&self) -> impl Iterator<Item = EntryId> {
        let seen = self
            .works
            .iter()
            .filter(|work| work.is_durable() && work.may_have_arrived);
        seen.filter_map(|work| match work.origin {
            Origin::Entry {
                id,
                lane: Lane::Twin | Lane::Telemetry,
            } => Some(id),
            Origin::Entry {
                lane: Lane::Answers,
                ..
            }
            | Origin::OwnRead
            | Origin::OwnAnswer => None,
        })
    }

    /// Whether the twin or the telemetry lane has something there.
    pub(super) fn has_sendable(&self) -> bool {
        self.works.iter().any(Work::is_sendable)
    }

    /// The earliest deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.works.iter().filter_map(|work| work.deadline).min()
    }

    /// Whether somebody waits for an outcome.
    pub(super) fn has_waiting_client(&self) -> bool {
        self.works.iter().any(|work| work.deadline.is_some())
    }

    /// For a twin read: what its answer says of the desired properties.
    pub(super) fn reads(&self, id: WorkId) -> Option<Generation> {
        self.works.iter().find(|work| work.id == id)?.reads
    }

    /// Whether an answer is on its way that will tell the desired properties.
    pub(super) fn is_reading(&self, generation: Generation) -> bool {
        self.works.iter().any(|work| work.reads == Some(generation))
    }

    /// Whether a device's entries are among it.
    pub(super) fn has_entries(&self) -> bool {
        self.works.iter().any(|work| match work.origin {
            Origin::Entry { .. } => true,
            Origin::OwnRead | Origin::OwnAnswer => false,
        })
    }

    fn take(&mut self, is_meant: impl Fn(&Work) -> bool) -> Option<(WorkId, Work)> {
        let place = self.works.iter().position(is_meant)?;
        let work = self.works.swap_remove(place);
        Some((work.id, work))
    }
}

impl Work {
    /// Whether it is kept until it is done, however long that takes.
    pub(super) const fn is_durable(&self) -> bool {
        self.deadline.is_none()
    }

    /// Whether it is an entry that can go to the hub on any connection.
    fn is_sendable(&self) -> bool {
        match self.origin {
            Origin::Entry {
                lane: Lane::Twin | Lane::Telemetry,
                ..
            } => true,
            Origin::Entry {
                lane: Lane::Answers,
                ..
            }
            | Origin::OwnRead
            | Origin::OwnAnswer => false,
        }
    }

    /// What to say of it if it ends without the hub's word, because of `cause` if it was never sent.
    pub(super) fn failure(&self, cause: Failure) -> Failure {
        if self.may_have_arrived {
            Failure::HubTimeout
        } else {
            cause
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(id: u64) -> Origin {
        Origin::Entry {
            id: EntryId(id),
            lane: Lane::Telemetry,
        }
    }

    #[test]
    fn only_what_was_not_sent_fails_before_its_deadline() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut in_flight = InFlight::default();
        let sent = in_flight.begin(entry(1), None, Some(later), false, now);
        in_flight.on_connected();
        let unsent = in_flight.begin(entry(2), None, Some(later), false, now);
        let durable = in_flight.begin(entry(3), None, None, false, now);

        let (id, work) = in_flight.take_unsent().expect("one");
        assert_eq!(id, unsent);
        assert_eq!(
            work.failure(Failure::HubUnavailable),
            Failure::HubUnavailable
        );
        assert!(in_flight.take_unsent().is_none());

        assert!(in_flight.take_overdue(now).is_none());
        let (id, work) = in_flight.take_overdue(later).expect("one");
        assert_eq!(id, sent);
        assert_eq!(work.failure(Failure::HubUnavailable), Failure::HubTimeout);

        assert_eq!(in_flight.deadline(), None);
        assert!(in_flight.end(durable).is_some());
        assert!(in_flight.end(durable).is_none());
    }
}
