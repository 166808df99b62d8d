//! The outbox of one device, as a state machine. States of an entry: see `outbox.rs` of the contract.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use iothub::Timestamp;

use super::{
    MEMORY_OF_OUTCOMES,
    ring::Ring,
    waiters::{Waiters, resolved},
};
use crate::{
    Done, EntryId, Failure, Lane, OutboxEntry, Outcome, SubmissionId, Survival, Ticket, Work,
};

/// The three lanes of a device.
pub(super) struct Lanes {
    lanes: [Entries; Lane::ALL.len()],
    /// Every entry that is not settled.
    entry_by_submission: HashMap<SubmissionId, (Lane, EntryId)>,
    outcomes: Ring<(SubmissionId, Outcome), OUTCOMES>,
    last_entry: u64,
    /// Bytes of the entries that the device's bounds count.
    bounded_bytes: usize,
    /// No waiting entry's deadline is earlier.
    earliest_deadline: Option<Instant>,
    reader: Option<ReaderId>,
    last_reader: u64,
}

/// One opening of the lanes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ReaderId(u64);

/// An entry that is not settled. Boxed where it is kept, so that empty lanes stay small.
pub(super) struct Entry {
    id: EntryId,
    submission: SubmissionId,
    work: Work,
    deadline: Instant,
    accepted_at: Timestamp,
    size: usize,
    tickets: Waiters<Outcome>,
}

/// One lane, in the order of ids. What is taken stands before what waits, so putting back moves nothing.
#[derive(Default)]
struct Entries {
    entries: VecDeque<Box<Entry>>,
    /// How many are taken.
    taken: usize,
    /// The reader was given as many as it had room for, and has settled none since.
    is_reader_full: bool,
}

/// An ephemeral submission, measured.
pub(super) struct Ephemeral {
    pub(super) id: SubmissionId,
    pub(super) work: Work,
    pub(super) deadline: Instant,
    pub(super) size: usize,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            lanes: Default::default(),
            entry_by_submission: HashMap::new(),
            outcomes: Ring::new(),
            last_entry: 0,
            bounded_bytes: 0,
            earliest_deadline: None,
            reader: None,
            last_reader: 0,
        }
    }

    /// Another ticket of a submission that is here, or was a short while ago.
    pub(super) fn rejoin(&mut self, id: SubmissionId) -> Option<Ticket<Outcome>> {
        if let Some(&(lane, entry)) = self.entry_by_submission.get(&id) {
            let lane = self.lane(lane);
            let at = lane.find(entry)?;
            return Some(lane.entries[at].tickets.join());
        }
        let (_, outcome) = self.outcomes.find(|(other, _)| *other == id)?;
        Some(resolved(outcome.clone()))
    }

    /// Puts an entry in; whoever calls has checked the bounds, and that [`Lanes::rejoin`] does not know it. True if
    /// its lane was empty.
    pub(super) fn push(
        &mut self,
        submission: Ephemeral,
        accepted_at: Timestamp,
    ) -> (Ticket<Outcome>, bool) {
        let (tickets, ticket) = Waiters::new();
        self.last_entry += 1;
        let id = EntryId(self.last_entry);
        let entry = Box::new(Entry {
            id,
            submission: submission.id,
            work: submission.work,
            deadline: submission.deadline,
            accepted_at,
            size: submission.size,
            tickets,
        });
        let lane = entry.work.lane();
        self.entry_by_submission
            .insert(entry.submission, (lane, id));
        if is_bounded(lane) {
            self.bounded_bytes += entry.size;
        }
        note_earlier(&mut self.earliest_deadline, entry.deadline);
        let lane = self.lane(lane);
        let was_empty = !lane.has_waiting();
        lane.entries.push_back(entry);
        (ticket, was_empty)
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

    /// Takes up to `max` entries, and gives up those that are overdue: their bytes are the second answer.
    pub(super) fn take(
        &mut self,
        lane: Lane,
        max: usize,
        now: Instant,
    ) -> (Vec<OutboxEntry>, usize) {
        let freed = self.give_up_overdue(now);
        let lane = self.lane(lane);
        let end = lane.entries.len().min(lane.taken.saturating_add(max));
        let given = lane.entries.range(lane.taken..end);
        let given: Vec<_> = given.map(|entry| entry.to_outbox_entry()).collect();
        lane.is_reader_full = given.len() == max;
        lane.taken = end;
        (given, freed)
    }

    /// Removes an entry that was taken; resolve it with the same outcome, without the lock.
    pub(super) fn settle(
        &mut self,
        id: EntryId,
        outcome: &Outcome,
        now: Instant,
    ) -> Option<Box<Entry>> {
        let entry = self.lanes.iter_mut().find_map(|lane| {
            let at = lane.find(id).filter(|at| *at < lane.taken)?;
            lane.is_reader_full = false;
            lane.taken -= 1;
            lane.entries.remove(at)
        })?;
        self.forget(&entry, outcome, now);
        Some(entry)
    }

    /// Gives up what waits and is overdue, forgets old outcomes, and returns spare memory. Answers the bytes freed.
    pub(super) fn tidy(&mut self, now: Instant) -> usize {
        let freed = self.give_up_overdue(now);
        self.outcomes.forget_after(MEMORY_OF_OUTCOMES, now);
        if self.count() == 0 {
            self.entry_by_submission = HashMap::new();
            for lane in &mut self.lanes {
                lane.entries = VecDeque::new();
            }
        }
        freed
    }

    /// Settles waiting entries whose deadline is over with [`Failure::HubTimeout`]. Answers their bytes.
    pub(super) fn give_up_overdue(&mut self, now: Instant) -> usize {
        if self.earliest_deadline.is_none_or(|at| now < at) {
            return 0;
        }
        self.earliest_deadline = None;
        let mut freed = 0;
        for lane in Lane::ALL {
            let taken = self.lane(lane).taken;
            for entry in self.lane(lane).entries.split_off(taken) {
                if now < entry.deadline {
                    note_earlier(&mut self.earliest_deadline, entry.deadline);
                    self.lane(lane).entries.push_back(entry);
                    continue;
                }
                let outcome = Err(Failure::HubTimeout);
                self.forget(&entry, &outcome, now);
                freed += entry.size;
                entry.resolve(outcome);
            }
        }
        freed
    }

    pub(super) fn is_open_for(&self, reader: ReaderId) -> bool {
        self.reader == Some(reader)
    }

    /// Whether there is something to take for a reader that has room.
    pub(super) fn is_ready(&self) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| !lane.is_reader_full && lane.has_waiting())
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.lanes.iter().any(Entries::has_waiting)
    }

    /// Entries that are not settled.
    pub(super) fn count(&self) -> usize {
        self.entry_by_submission.len()
    }

    /// How many of them the device's bounds count, and their bytes.
    pub(super) fn bounded(&self) -> (usize, usize) {
        let lanes = self.lanes.iter().zip(Lane::ALL);
        let bounded = lanes.filter(|(_, lane)| is_bounded(*lane));
        let entries = bounded.map(|(lane, _)| lane.entries.len()).sum();
        (entries, self.bounded_bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count() == 0 && self.outcomes.is_empty()
    }

    fn put_back(&mut self) {
        for lane in &mut self.lanes {
            lane.is_reader_full = false;
            let taken = lane.entries.range(..std::mem::take(&mut lane.taken));
            if let Some(deadline) = taken.map(|entry| entry.deadline).min() {
                note_earlier(&mut self.earliest_deadline, deadline);
            }
        }
    }

    fn forget(&mut self, entry: &Entry, outcome: &Outcome, now: Instant) {
        self.entry_by_submission.remove(&entry.submission);
        if is_bounded(entry.work.lane()) {
            self.bounded_bytes -= entry.size;
        }
        // A twin is large, and reading it again changes nothing.
        if !matches!(outcome, Ok(Done::TwinRead(_))) {
            self.outcomes.push((entry.submission, outcome.clone()), now);
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut Entries {
        match lane {
            Lane::Answers => &mut self.lanes[0],
            Lane::Twin => &mut self.lanes[1],
            Lane::Telemetry => &mut self.lanes[2],
        }
    }
}

impl Entries {
    fn has_waiting(&self) -> bool {
        self.taken < self.entries.len()
    }

    fn find(&self, id: EntryId) -> Option<usize> {
        self.entries
            .binary_search_by_key(&id, |entry| entry.id)
            .ok()
    }
}

impl Entry {
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    pub(super) fn resolve(self: Box<Self>, outcome: Outcome) {
        self.tickets.resolve(outcome);
    }

    fn to_outbox_entry(&self) -> OutboxEntry {
        OutboxEntry {
            id: self.id,
            work: self.work.clone(),
            survival: Survival::Ephemeral {
                deadline: self.deadline,
            },
            accepted_at: self.accepted_at,
        }
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

fn note_earlier(earliest: &mut Option<Instant>, deadline: Instant) {
    *earliest = Some(earliest.map_or(deadline, |at| at.min(deadline)));
}

/// Outcomes that a device's lanes remember: as many as a session has in flight, so a whole window of lost replies can
/// be asked for again.
const OUTCOMES: usize = 16;
