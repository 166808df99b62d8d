//! Which records live, and what is to be in their place when their segment goes.

use std::sync::Arc;

use super::{
    super::{
        Engine, Location,
        book::{Name, Progress},
        cell::Cell,
        lanes::Keeping,
        mailbox,
    },
    record::{Arrived, Key, Record, Settled, Stored, encode_work},
};
use crate::{
    KeyId, Partition, SubmissionId,
    log::{Kind, Log, Owner, Rewritten},
};

/// The engine as the cleaner sees it.
pub(crate) struct Living(pub(crate) Arc<Engine>);

impl Owner for Living {
    fn log(&self) -> &Arc<Log> {
        self.0
            .log
            .get()
            .expect("the cleaner is started after the log")
    }

    fn live_bytes(&self) -> u64 {
        let partitions = (0..Partition::COUNT).filter_map(Partition::from_number);
        let cells = partitions.flat_map(|partition| self.0.cells.in_partition(partition));
        let credentials = self.0.records.credentials.stored_at(self.0.now().timestamp);
        cells
            .flat_map(|cell| stored_at(&cell))
            .chain(credentials.into_iter().map(|(_, location)| location))
            .map(Location::bytes)
            .sum()
    }

    fn rescue(&self, segment: u32, done: &dyn Fn() -> Rewritten) -> usize {
        let partitions = (0..Partition::COUNT).filter_map(Partition::from_number);
        let cells = partitions.flat_map(|partition| self.0.cells.in_partition(partition));
        let credentials = self.0.records.credentials.stored_at(self.0.now().timestamp);
        let credentials = credentials
            .into_iter()
            .filter(|(_, location)| location.segment == segment)
            .filter(|(identity, location)| self.0.rewrite_credential(identity, *location, done()))
            .count();
        let of_cells: usize = cells
            .map(|cell| {
                let mut lives = stored_at(&cell);
                lives.retain(|location| location.segment == segment);
                let rescued =
                    lives
                        .into_iter()
                        .filter(|location| match self.log().read(*location) {
                            Ok(Some(record)) => self.rewrite(*location, &record, done()),
                            Ok(None) | Err(_) => self.0.rewrite_unread(&cell, *location, done()),
                        });
                rescued.count()
            })
            .sum();
        credentials + of_cells
    }

    fn rewrite(&self, location: Location, bytes: &[u8], done: Rewritten) -> bool {
        let engine = &self.0;
        // What cannot be read has refused the start; what was written since then can.
        let Some(record) = Record::decode(bytes) else {
            return false;
        };
        match record {
            Record::Stored(stored) | Record::Dead(stored, ..) => {
                engine.rewrite_entry(&stored, location, done)
            }
            Record::Settled(settled) => engine.rewrite_receipt(&settled, location, bytes, done),
            Record::Key(key) => engine.rewrite_key(&key, location, done),
            Record::Arrived(arrived) | Record::DeadMessage(arrived, ..) => {
                engine.rewrite_message(&arrived, location, done)
            }
            Record::Credential(identity, ..) => {
                engine.rewrite_credential(&identity, location, done)
            }
            // They end what is older than they are, and that has gone before them.
            Record::KeyForgotten(..)
            | Record::Changed(_)
            | Record::Discarded(..)
            | Record::CredentialForgotten(..)
            | Record::Barrier => false,
        }
    }
}

/// Where the records of a device are that live.
fn stored_at(cell: &Cell) -> Vec<Location> {
    let mut stored: Vec<_> = cell.lanes.lock().stored_at().collect();
    stored.extend(cell.mailbox.lock().stored_at());
    stored
}

impl Engine {
    fn rewrite_entry(
        self: &Arc<Self>,
        stored: &Stored<'_>,
        from: Location,
        done: Rewritten,
    ) -> bool {
        let Some(cell) = self.cell(&stored.identity) else {
            return false;
        };
        let id = stored.submission;
        let lanes = self.lanes(&cell);
        let is_waiting = lanes
            .entry(id)
            .is_some_and(|entry| entry.keeping() == Keeping::Durable(from));
        let stored = Stored {
            identity: stored.identity.clone(),
            ..*stored
        };
        let record = if is_waiting {
            Record::Stored(stored)
        } else if let Some(dead) = lanes.book().dead().find(|dead| dead.stored == from) {
            Record::Dead(stored, Err(dead.failure.clone()), dead.at)
        } else {
            return false;
        };
        self.append_again(&cell, record.encode(), done, move |engine, cell, to| {
            engine.lanes(cell).moved(id, from, to);
        })
    }

    fn rewrite_receipt(
        self: &Arc<Self>,
        settled: &Settled,
        from: Location,
        bytes: &[u8],
        done: Rewritten,
    ) -> bool {
        let Some(cell) = self.cell(&settled.identity) else {
            return false;
        };
        let name = Name::submission(settled.submission);
        let lanes = self.lanes(&cell);
        let record = lanes.book().get(name);
        if record.is_none_or(|record| record.stored != Some(from)) {
            return false;
        }
        self.append_again(&cell, bytes.to_vec(), done, move |engine, cell, to| {
            engine.record_moved(cell, name, from, to);
        })
    }

    /// A key is written as it is and not as it was: its answer may be on its way.
    fn rewrite_key(self: &Arc<Self>, key: &Key, from: Location, done: Rewritten) -> bool {
        let Some(cell) = self.cell(&key.identity) else {
            return false;
        };
        let name = Name::key(key.id);
        let lanes = self.lanes(&cell);
        let Some(record) = lanes.book().get(name) else {
            return false;
        };
        if record.stored != Some(from) || matches!(record.progress, Progress::Settled(..)) {
            return false;
        }
        let record = Key::of(&cell, key.id, record).encode();
        self.append_again(&cell, record, done, move |engine, cell, to| {
            engine.record_moved(cell, name, from, to);
        })
    }

    fn rewrite_message(
        self: &Arc<Self>,
        arrived: &Arrived,
        from: Location,
        done: Rewritten,
    ) -> bool {
        let Some(cell) = self.cell(&arrived.identity) else {
            return false;
        };
        let sequence = arrived.sequence;
        let mailbox = self.mailbox(&cell);
        let message = mailbox.message(sequence);
        let message = message.filter(|message| message.keeping == mailbox::Keeping::Durable(from));
        let record = if let Some(message) = message {
            Record::Arrived(Arrived::of(&cell, message))
        } else if let Some(dead) = mailbox.dead_at(sequence, from) {
            let arrived = Arrived {
                identity: arrived.identity.clone(),
                message: Arc::clone(&arrived.message),
                delivery_count: dead.letter.delivery_count,
                ..*arrived
            };
            Record::DeadMessage(arrived, dead.reason, dead.letter.at)
        } else {
            return false;
        };
        self.append_again(&cell, record.encode(), done, move |engine, cell, to| {
            engine.mailbox(cell).moved(sequence, from, to);
        })
    }

    /// Writes what is known of a record that cannot be read. What it says of an entry's work may be known from nowhere: then it
    /// is written without, and found to be damaged by whoever takes it.
    fn rewrite_unread(self: &Arc<Self>, cell: &Arc<Cell>, from: Location, done: Rewritten) -> bool {
        let lanes = self.lanes(cell);
        let book = lanes.book();
        if let Some(entry) = lanes.entry_at(from) {
            let work = entry.work().and_then(encode_work).unwrap_or_default();
            let id = entry.submission();
            let record = Record::Stored(Stored::of(cell, &lanes, entry, &work)).encode();
            return self.append_again(cell, record, done, move |engine, cell, to| {
                engine.lanes(cell).moved(id, from, to);
            });
        }
        if let Some(dead) = book.dead().find(|dead| dead.stored == from) {
            let id = dead.submission;
            let stored = Stored::of_dead(cell, dead, &[]);
            let record = Record::Dead(stored, Err(dead.failure.clone()), dead.at).encode();
            return self.append_again(cell, record, done, move |engine, cell, to| {
                engine.lanes(cell).moved(id, from, to);
            });
        }
        if let Some((name, record)) = book.record_at(from) {
            let record = match &record.progress {
                Progress::Settled(outcome, at) => {
                    let id = SubmissionId(name.number());
                    Record::Settled(Settled::of(cell, id, record, outcome, *at))
                }
                Progress::Open | Progress::Noted(_) | Progress::Answered(_) => {
                    Key::of(cell, KeyId(name.number()), record)
                }
            };
            return self.append_again(cell, record.encode(), done, move |engine, cell, to| {
                engine.record_moved(cell, name, from, to);
            });
        }
        drop(lanes);
        let mut mailbox = self.mailbox(cell);
        mailbox.lose_content(from);
        let Some(message) = mailbox.message_at(from) else {
            return false;
        };
        let sequence = message.sequence;
        let record = Record::Arrived(Arrived::of(cell, message)).encode();
        self.append_again(cell, record, done, move |engine, cell, to| {
            engine.mailbox(cell).moved(sequence, from, to);
        })
    }

    fn record_moved(&self, cell: &Cell, name: Name, from: Location, to: Location) {
        if let Some(record) = self.lanes(cell).book_mut().get_mut(name)
            && record.stored == Some(from)
        {
            record.stored = Some(to);
        }
    }

    fn append_again(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        record: Vec<u8>,
        done: Rewritten,
        moved: impl FnOnce(&Arc<Self>, &Arc<Cell>, Location) + Send + 'static,
    ) -> bool {
        let appended = self.append(cell, Kind::Note, record, move |engine, cell, result| {
            if let Ok(to) = result {
                moved(engine, cell, to);
            }
            done.tell(&result);
        });
        if appended.is_err() {
            // The log is closed: the segment stays. `done` has been dropped without a word, which counts as none.
            tracing::debug!("a record is not written again: the log is closed");
        }
        true
    }
}
