//! What the log's records do after a restart.

use std::sync::Arc;

use iothub::Timestamp;

use super::{
    super::{
        Engine, Location, Moment,
        book::{Dead, Name, Progress, Record as BookRecord},
        cell::Cell,
        lanes::{Fresh, Keeping},
        mailbox::{self, Change},
        registry::Numbered,
    },
    record::{Arrived, Changed, Key, Record, Settled, Stored},
};
use crate::{DeadLetter, KeyState, Outcome, Partition};

/// What is there after a start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) entries: u64,
    /// When the oldest of them was submitted.
    pub(crate) oldest: Option<Timestamp>,
    pub(crate) messages: u64,
    pub(crate) dead_letters: u64,
    pub(crate) receipts_and_keys: u64,
}

/// A record that this program does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unreadable(pub(crate) Location);

impl Engine {
    /// Does again what a record says. Records come in the order in which they were written.
    pub(crate) fn apply(
        &self,
        location: Location,
        bytes: &[u8],
        now: Moment,
    ) -> Result<(), Unreadable> {
        match Record::decode(bytes).ok_or(Unreadable(location))? {
            Record::Stored(stored) => self.apply_stored(&stored, location, now),
            Record::Settled(settled) => self.apply_settled(settled, location, now),
            Record::Dead(stored, outcome, at) => self.apply_dead(&stored, outcome, at, location),
            Record::Key(key) => self.apply_key(key, location, now),
            Record::KeyForgotten(identity, id) => {
                let cell = self.cell_or_new(&identity);
                self.lanes(&cell).book_mut().remove(Name::key(id));
            }
            Record::Arrived(arrived) => self.apply_arrived(arrived, location, now),
            Record::Changed(changed) => self.apply_changed(changed, now),
            Record::DeadMessage(arrived, reason, at) => {
                let cell = self.cell_or_new(&arrived.identity);
                let mut mailbox = self.mailbox(&cell);
                mailbox.unstore(arrived.sequence);
                let letter = DeadLetter {
                    identity: arrived.identity,
                    sequence: arrived.sequence,
                    message_id: arrived.message.system.message_id.clone(),
                    bytes: arrived.message.payload.len(),
                    delivery_count: arrived.delivery_count,
                    arrived_at: arrived.arrived_at,
                    reason: reason.as_str(),
                    at,
                };
                let dead = mailbox::Dead {
                    letter,
                    arrival: arrived.arrival,
                    reason,
                    stored: Some(location),
                };
                mailbox.bury(self.config.dead_letters, dead);
            }
            Record::Discarded(identity, entry) => {
                let cell = self.cell_or_new(&identity);
                self.lanes(&cell).book_mut().exhume(entry);
            }
            Record::Credential(identity, number, credential) => {
                let stored = Some(location);
                let numbered = Numbered {
                    number,
                    credential,
                    stored,
                };
                self.records.credentials.stands(identity, numbered);
            }
            Record::CredentialForgotten(identity, number) => {
                self.records.credentials.forgotten(&identity, number);
            }
            Record::Barrier => {}
        }
        Ok(())
    }

    fn apply_stored(&self, stored: &Stored<'_>, location: Location, now: Moment) {
        let cell = self.cell_or_new(&stored.identity);
        let mut lanes = self.lanes(&cell);
        // Replayed, or written again.
        lanes.book_mut().exhume_submission(stored.submission);
        lanes.unstore(stored.submission);
        let fresh = Fresh {
            id: stored.submission,
            fingerprint: stored.fingerprint,
            lane: stored.lane,
            work: None,
            keeping: Keeping::Durable(location),
            deadline: None,
            accepted_at: stored.accepted_at,
            size: stored.size as usize,
        };
        lanes.restore(stored.entry, fresh, now);
    }

    fn apply_settled(&self, settled: Settled, location: Location, now: Moment) {
        let cell = self.cell_or_new(&settled.identity);
        let mut lanes = self.lanes(&cell);
        let entry = lanes.unstore(settled.submission);
        if let (Some(entry), Err(failure)) = (entry, &settled.outcome)
            && let Keeping::Durable(stored) = entry.keeping()
        {
            let dead = Dead {
                id: entry.id(),
                submission: settled.submission,
                lane: entry.lane(),
                size: entry.size(),
                accepted_at: entry.accepted_at(),
                attempts: None,
                failure: failure.clone(),
                at: settled.at,
                stored,
            };
            lanes.bury(dead, self.config.dead_letters);
        }
        let record = BookRecord {
            began_at: settled.accepted_at,
            fingerprint: settled.fingerprint,
            progress: Progress::Settled(Box::new(settled.outcome), settled.at),
            stored: Some(location),
        };
        lanes.book_mut().make_room(self.config.keys);
        lanes
            .book_mut()
            .put(Name::submission(settled.submission), record, now);
    }

    fn apply_dead(&self, stored: &Stored<'_>, outcome: Outcome, at: Timestamp, location: Location) {
        let Err(failure) = outcome else {
            return; // What the hub has done is no dead letter.
        };
        let cell = self.cell_or_new(&stored.identity);
        let mut lanes = self.lanes(&cell);
        lanes.book_mut().exhume_submission(stored.submission);
        let dead = Dead {
            id: stored.entry,
            submission: stored.submission,
            lane: stored.lane,
            size: stored.size as usize,
            accepted_at: stored.accepted_at,
            attempts: None,
            failure,
            at,
            stored: location,
        };
        lanes.bury(dead, self.config.dead_letters);
    }

    fn apply_key(&self, key: Key, location: Location, now: Moment) {
        let cell = self.cell_or_new(&key.identity);
        let record = BookRecord {
            began_at: key.began_at,
            fingerprint: key.fingerprint,
            progress: match key.state {
                KeyState::Begun | KeyState::Open(None) => Progress::Open,
                KeyState::Open(Some(note)) => Progress::Noted(note),
                KeyState::Answered(answer) => Progress::Answered(answer),
            },
            stored: Some(location),
        };
        self.lanes(&cell)
            .book_mut()
            .put(Name::key(key.id), record, now);
    }

    fn apply_arrived(&self, arrived: Arrived, location: Location, now: Moment) {
        let cell = self.cell_or_new(&arrived.identity);
        let fresh = mailbox::Fresh {
            arrival: arrived.arrival,
            token: arrived.token,
            message: arrived.message,
            delivery_count: arrived.delivery_count,
            arrived_at: arrived.arrived_at,
            expires_at: arrived.expires_at,
            is_tied: false,
            keeping: mailbox::Keeping::Durable(location),
        };
        self.mailbox(&cell).restore(arrived.sequence, fresh, now);
    }

    fn apply_changed(&self, changed: Changed, now: Moment) {
        let cell = self.cell_or_new(&changed.identity);
        let change = Change {
            arrival: changed.arrival,
            sequence: changed.sequence,
            token: changed.token,
            settlement: changed.settlement,
            delivery_count: changed.delivery_count,
            is_gone: changed.is_gone,
            died: changed.died,
        };
        let owner = self.owner_of(&cell);
        self.mailbox(&cell)
            .change_again(owner, change, changed.at, now);
    }

    /// Forgets what is over, lets the sessions be opened that are needed, and counts what is there.
    pub(crate) fn recovered(&self, now: Moment) -> Counts {
        let mut counts = Counts::default();
        for number in 0..Partition::COUNT {
            self.tidy(usize::from(number), now);
            let partition = Partition::from_number(number);
            for cell in partition
                .into_iter()
                .flat_map(|partition| self.cells.in_partition(partition))
            {
                self.count(&cell, now, &mut counts);
                self.want(&cell, now.instant);
            }
        }
        counts
    }

    fn count(&self, cell: &Arc<Cell>, now: Moment, counts: &mut Counts) {
        let mut lanes = self.lanes(cell);
        lanes.shrink();
        counts.entries += lanes.unsettled() as u64;
        counts.receipts_and_keys += lanes.receipts_and_keys() as u64;
        counts.dead_letters += lanes.book().dead().count() as u64;
        counts.oldest = [counts.oldest, lanes.oldest()].into_iter().flatten().min();
        drop(lanes);
        let mut mailbox = self.mailbox(cell);
        counts.messages += mailbox.offered() as u64;
        counts.dead_letters += mailbox.dead(now).len() as u64;
    }
}
