//! How entries end, and what is remembered of them.

use super::{
    super::{
        Moment,
        book::{Dead, Name},
    },
    Entry, Keeping, Lanes, is_bounded,
};
use crate::{Done, EntryId, Failure, Lane, Outcome, SubmissionId};

/// How much is remembered of a device's writes.
#[derive(Clone, Copy)]
pub(in crate::memory) struct Bounds {
    /// Receipts of writes without a key.
    pub(in crate::memory) receipts: usize,
    pub(in crate::memory) dead_letters: usize,
}

/// What settling did.
pub(in crate::memory) enum Settled {
    /// There was no such entry, or it was not taken.
    Nothing,
    /// It waits again.
    PutBack,
    /// It is gone; resolve it with the same outcome.
    Gone(Box<Entry>),
}

impl Lanes {
    /// Settles an entry that was taken.
    pub(in crate::memory) fn settle(
        &mut self,
        id: EntryId,
        outcome: &Outcome,
        bounds: Bounds,
        now: Moment,
    ) -> Settled {
        let taken = self.lanes.iter_mut().find_map(|lane| {
            let at = lane.find(id).filter(|at| *at < lane.taken)?;
            Some((lane, at))
        });
        let Some((lane, at)) = taken.filter(|(lane, at)| !lane.entries[*at].is_put_back) else {
            return Settled::Nothing;
        };
        lane.is_reader_full = false;
        let entry = &mut lane.entries[at];
        if entry.keeping.is_stored()
            && let Err(failure) = outcome
            && !failure.is_final()
        {
            entry.is_put_back = true;
            lane.put_back += 1;
            return Settled::PutBack;
        }
        lane.taken -= 1;
        let Some(entry) = lane.entries.remove(at) else {
            return Settled::Nothing;
        };
        self.has_noted_patch |= entry.lane == Lane::Twin && entry.keeping.is_stored();
        if entry.keeping.is_stored() {
            self.record(&entry, outcome, bounds, now);
        } else {
            self.forget(&entry, outcome, now);
        }
        Settled::Gone(entry)
    }

    /// Takes an ephemeral entry back that no reader has or had; resolve it with [`Failure::NoSession`], without the lock.
    /// The second answer is whether nothing of the submission was or will be sent.
    pub(in crate::memory) fn take_back(
        &mut self,
        id: SubmissionId,
        now: Moment,
    ) -> (Option<Box<Entry>>, bool) {
        let outcome = Err(Failure::NoSession);
        let Some(entry) = self.entry(id) else {
            let known = self.outcomes.find(|(other, _)| *other == id);
            return (None, known.is_some_and(|(_, known)| *known == outcome));
        };
        let is_free = entry.keeping == Keeping::Ephemeral && entry.attempts() == 0;
        if !is_free {
            return (None, false);
        }
        let (lane, id) = (entry.lane, entry.id);
        let entries = self.lane(lane);
        let Some(entry) = entries.find(id).and_then(|at| entries.entries.remove(at)) else {
            return (None, false);
        };
        self.forget(&entry, &outcome, now);
        (Some(entry), true)
    }

    /// Settles waiting entries whose deadline is over. Answers the bytes that they held.
    pub(in crate::memory) fn give_up_overdue(&mut self, now: Moment) -> usize {
        if self.earliest_deadline.is_none_or(|at| now.instant < at) {
            return 0;
        }
        self.earliest_deadline = None;
        let mut freed = 0;
        for lane in Lane::ALL {
            let taken = self.lane(lane).taken;
            for entry in self.lane(lane).entries.split_off(taken) {
                let deadline = match entry.keeping {
                    Keeping::Ephemeral => entry.deadline(),
                    Keeping::Storing | Keeping::Persisting | Keeping::Durable(_) => None,
                };
                if deadline.is_none_or(|deadline| now.instant < deadline) {
                    self.note_deadline(deadline);
                    self.lane(lane).entries.push_back(entry);
                    continue;
                }
                let outcome = Err(if entry.attempts() == 0 {
                    Failure::NoSession
                } else {
                    Failure::HubTimeout
                });
                self.forget(&entry, &outcome, now);
                freed += entry.held_bytes();
                entry.resolve(outcome);
            }
        }
        freed
    }

    /// Puts a dead letter in.
    pub(in crate::memory) fn bury(&mut self, dead: Dead, bound: usize) {
        self.last_entry = self.last_entry.max(dead.id.0);
        self.book.bury(dead, bound);
    }

    /// Remembers what became of an entry that a restart may have found; what has failed so has failed for good.
    fn record(&mut self, entry: &Entry, outcome: &Outcome, bounds: Bounds, now: Moment) {
        self.unlist(entry);
        let (id, accepted_at) = (entry.submission, entry.accepted_at);
        self.book
            .settle_stored(id, accepted_at, outcome, bounds.receipts, now);
        if let (Keeping::Durable(stored), Err(failure)) = (entry.keeping, outcome) {
            let dead = Dead {
                id: entry.id,
                submission: entry.submission,
                lane: entry.lane,
                size: entry.size(),
                accepted_at: entry.accepted_at,
                attempts: Some(entry.attempts()),
                failure: failure.clone(),
                at: now.timestamp,
                stored,
            };
            self.bury(dead, bounds.dead_letters);
        }
    }

    /// Remembers what became of an entry that a restart would not have found: for a while, or as long as its key.
    fn forget(&mut self, entry: &Entry, outcome: &Outcome, now: Moment) {
        self.unlist(entry);
        let name = Name::submission(entry.submission);
        let has_key = self.book.get(name).is_some();
        // A twin is large, and reading it again changes nothing. What has failed, but not for good, is tried again by whoever
        // repeats it, so its key is as good as before.
        let may_come_again = match outcome {
            Ok(Done::TwinRead(_)) => true,
            Err(failure) => has_key && !failure.is_final(),
            Ok(Done::Acknowledged | Done::ReportedPatched { .. }) => false,
        };
        if may_come_again {
            self.book.remove(name);
        } else if has_key {
            self.book.settle(entry.submission, outcome, now.timestamp);
        } else {
            let outcome = (entry.submission, outcome.clone());
            self.outcomes.push(outcome, now.instant);
        }
    }

    pub(super) fn unlist(&mut self, entry: &Entry) {
        self.index.remove(entry.submission, entry.id);
        if is_bounded(entry.lane) {
            self.bounded_bytes -= entry.size();
        }
    }
}
