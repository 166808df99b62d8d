//! The outbox of one device, as a state machine. States of an entry: see `outbox.rs` of the contract.
//!
//! A durable entry's work may be on the disk alone; then what is taken is where it is. An entry that is being stored for
//! the first time is given to nobody, so that nothing leaves for the hub that a crash could forget, and nothing behind it
//! is given either, so that the order is kept.

mod disk;
mod ending;
mod entries;
mod entry;
mod index;
mod known;

use std::{collections::VecDeque, time::Instant};

pub(super) use self::{
    disk::Persist,
    ending::{Bounds, Settled},
    entry::{Entry, Fresh, Keeping, Slip, Taken},
};
use self::{entries::Entries, index::Index};
use super::{
    MEMORY_OF_OUTCOMES, Moment,
    book::{Book, Name, Progress, Reused},
    counted::Counts,
    ring::Ring,
    waiters::{Waiters, resolved},
};
use crate::{EntryId, Fingerprint, Lane, Outcome, SubmissionId, Ticket, Work};

/// The three lanes of a device, and what is remembered of what was in them.
pub(super) struct Lanes {
    lanes: [Entries; Lane::ALL.len()],
    index: Index,
    outcomes: Ring<(SubmissionId, Outcome), OUTCOMES>,
    book: Book,
    last_entry: u64,
    /// Bytes of the entries that the device's bounds count.
    bounded_bytes: usize,
    /// No waiting entry's deadline is earlier.
    earliest_deadline: Option<Instant>,
    reader: Option<ReaderId>,
    last_reader: u64,
    /// The end of a stored patch was noted, and nobody has waited until that was flushed.
    has_noted_patch: bool,
}

/// One opening of the lanes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ReaderId(u64);

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            lanes: Default::default(),
            index: Index::default(),
            outcomes: Ring::new(),
            book: Book::new(),
            last_entry: 0,
            bounded_bytes: 0,
            earliest_deadline: None,
            reader: None,
            last_reader: 0,
            has_noted_patch: false,
        }
    }

    /// Another ticket of a submission that is here, or whose outcome is remembered.
    pub(super) fn rejoin(
        &mut self,
        id: SubmissionId,
        fingerprint: Option<Fingerprint>,
        lane: Lane,
    ) -> Result<Option<Ticket<Outcome>>, Reused> {
        let record = self.book.check(Name::submission(id), fingerprint)?;
        if let Some(Progress::Settled(outcome, _)) = record.map(|record| &record.progress) {
            return Ok(Some(resolved(outcome.as_ref().clone())));
        }
        if let Some(entry) = self.entry_mut(id) {
            return Ok(Some(entry.join()));
        }
        let outcome = self.outcomes.find(|(other, _)| *other == id);
        // What has failed may be tried again, but for an answer: it may have been sent, and is never sent twice.
        let stands = |outcome: &&Outcome| match outcome {
            Ok(_) => true,
            Err(failure) => failure.is_final() || lane == Lane::Answers,
        };
        let outcome = outcome.map(|(_, outcome)| outcome).filter(stands);
        Ok(outcome.map(|outcome| resolved(outcome.clone())))
    }

    /// Puts an entry in; whoever calls has checked the bounds, and that [`Lanes::rejoin`] does not know it. True if
    /// its lane had nothing to take.
    pub(super) fn push(&mut self, fresh: Fresh, now: Moment) -> (EntryId, Ticket<Outcome>, bool) {
        let (tickets, ticket) = Waiters::new();
        let id = EntryId(self.last_entry + 1);
        let was_empty = self.insert(id, fresh, tickets, now);
        (id, ticket, was_empty)
    }

    fn insert(
        &mut self,
        id: EntryId,
        fresh: Fresh,
        tickets: Waiters<Outcome>,
        now: Moment,
    ) -> bool {
        self.last_entry = self.last_entry.max(id.0);
        let submission = fresh.id;
        if let Some(fingerprint) = fresh.fingerprint {
            self.book
                .open_submission(submission, fingerprint, fresh.accepted_at, now);
        }
        let entry = Box::new(Entry::new(id, fresh, tickets));
        if is_bounded(entry.lane) {
            self.bounded_bytes += entry.size();
        }
        self.note_deadline(entry.deadline());
        let lane = self.lane(entry.lane);
        let was_empty = !lane.has_waiting();
        lane.insert(entry);
        let lanes = &self.lanes;
        self.index
            .insert(submission, id, |id| submission_of(lanes, id));
        was_empty
    }

    /// Lets a reader in; the one before, if it is still there, is out, and what it took is put back.
    pub(super) fn open(&mut self) -> ReaderId {
        self.put_back();
        self.last_reader += 1;
        let reader = ReaderId(self.last_reader);
        self.reader = Some(reader);
        reader
    }

    /// The reader is gone. True if it was the one.
    pub(super) fn close(&mut self, reader: ReaderId) -> bool {
        let is_current = self.is_open_for(reader);
        if is_current {
            self.reader = None;
            self.put_back();
        }
        is_current
    }

    /// Takes up to `max` entries, and gives up those that are overdue: the bytes that they held are the second answer.
    pub(super) fn take(&mut self, lane: Lane, max: usize, now: Moment) -> (Vec<Taken>, usize) {
        let freed = self.give_up_overdue(now);
        let lane = self.lane(lane);
        let mut given = Vec::new();
        if lane.put_back > 0 {
            let put_back = lane.entries.range_mut(..lane.taken);
            for entry in put_back.filter(|entry| entry.is_put_back).take(max) {
                given.push(entry.take());
                lane.put_back -= 1;
            }
        }
        let waiting = lane.entries.range_mut(lane.taken..);
        let takeable = waiting.take_while(|entry| entry.keeping != Keeping::Storing);
        for entry in takeable.take(max - given.len()) {
            given.push(entry.take());
            lane.taken += 1;
        }
        lane.is_reader_full = given.len() == max;
        (given, freed)
    }

    /// Whether an entry is a patch that no disk has, after a stored one whose end may not be flushed: a restart would send
    /// the older one over it.
    pub(super) fn is_after_a_noted_patch(&self, id: EntryId) -> bool {
        let entries = &self.lanes[lane_index(Lane::Twin)];
        let entry = entries.find(id).map(|at| &entries.entries[at]);
        let is_patch = |entry: &Entry| matches!(entry.work(), Some(Work::ReportedPatch(_)));
        self.has_noted_patch
            && entry.is_some_and(|entry| is_patch(entry) && !entry.keeping.is_stored())
    }

    /// What was noted is flushed.
    pub(super) const fn patches_are_flushed(&mut self) {
        self.has_noted_patch = false;
    }

    /// Gives up what waits and is overdue, forgets old outcomes, and returns spare memory. Answers the bytes freed.
    pub(super) fn tidy(&mut self, now: Moment) -> usize {
        let freed = self.give_up_overdue(now);
        self.outcomes.forget_after(MEMORY_OF_OUTCOMES, now.instant);
        self.book.forget(now.instant);
        if self.unsettled() == 0 {
            self.index = Index::default();
            for lane in &mut self.lanes {
                lane.entries = VecDeque::new();
            }
        }
        freed
    }

    pub(super) const fn book(&self) -> &Book {
        &self.book
    }

    pub(super) const fn book_mut(&mut self) -> &mut Book {
        &mut self.book
    }

    pub(super) fn is_open_for(&self, reader: ReaderId) -> bool {
        self.reader == Some(reader)
    }

    /// The entry of a submission that is not settled.
    pub(super) fn entry(&self, id: SubmissionId) -> Option<&Entry> {
        let (lane, at) = self.place(id)?;
        Some(&self.lanes[lane].entries[at])
    }

    /// Where the entry of a submission stands: in which lane, and where there.
    fn place(&self, id: SubmissionId) -> Option<(usize, usize)> {
        let entry = self.index.find(id, |id| submission_of(&self.lanes, id))?;
        place_of(&self.lanes, entry)
    }

    fn entry_mut(&mut self, id: SubmissionId) -> Option<&mut Box<Entry>> {
        let (lane, at) = self.place(id)?;
        self.lanes[lane].entries.get_mut(at)
    }

    fn is_taken(&self, id: SubmissionId) -> bool {
        self.place(id).is_some_and(|(lane, at)| {
            let lane = &self.lanes[lane];
            at < lane.taken && !lane.entries[at].is_put_back
        })
    }

    fn put_back(&mut self) {
        for lane in &mut self.lanes {
            lane.is_reader_full = false;
            lane.put_back = 0;
            for entry in lane.entries.range_mut(..std::mem::take(&mut lane.taken)) {
                entry.is_put_back = false;
                if let Some(deadline) = entry.deadline() {
                    note_earlier(&mut self.earliest_deadline, deadline);
                }
            }
        }
    }

    fn note_deadline(&mut self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            note_earlier(&mut self.earliest_deadline, deadline);
        }
    }

    const fn lane(&mut self, lane: Lane) -> &mut Entries {
        &mut self.lanes[lane_index(lane)]
    }
}

impl Counts for Lanes {
    /// Receipts and keys.
    fn count(&self) -> usize {
        self.book.len()
    }
}

/// Whether a lane counts in the bounds of its device. A direct method is claimed before its answer is submitted, and
/// nobody else can answer it then: the methods are what is bounded.
pub(super) const fn is_bounded(lane: Lane) -> bool {
    match lane {
        Lane::Answers => false,
        Lane::Twin | Lane::Telemetry => true,
    }
}

const fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Answers => 0,
        Lane::Twin => 1,
        Lane::Telemetry => 2,
    }
}

/// Where an entry stands: in which lane, and where there. Nearly every entry is telemetry.
fn place_of(lanes: &[Entries], entry: EntryId) -> Option<(usize, usize)> {
    let mut lanes = lanes.iter().enumerate().rev();
    lanes.find_map(|(lane, entries)| Some((lane, entries.find(entry)?)))
}

/// What an entry that is in one of the lanes was submitted as.
fn submission_of(lanes: &[Entries], entry: EntryId) -> SubmissionId {
    let (lane, at) =
        place_of(lanes, entry).expect("an entry is listed as long as it is in its lane");
    lanes[lane].entries[at].submission
}

fn note_earlier(earliest: &mut Option<Instant>, deadline: Instant) {
    *earliest = Some(earliest.map_or(deadline, |at| at.min(deadline)));
}

/// Outcomes that a device's lanes remember: as many as a session has in flight, so a whole window of lost replies can
/// be asked for again.
const OUTCOMES: usize = 16;
