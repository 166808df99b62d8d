//! What a device has on the disk, thing by thing, for an operator who reads a folder.

use std::io;

use iothub::{Identity, Timestamp};

use super::{
    super::{Engine, Location, Moment},
    Said, said,
};
use crate::{
    DeadLetter, EntryId, Lane, OutboxDeadLetter, Partition, Stock, SubmissionId,
    log::{self, files::Files},
};

/// One thing that a device has on the disk.
#[derive(Clone, Debug)]
pub struct Held {
    /// What it is.
    pub kept: Kept,
    stored: Option<Location>,
}

/// What is kept of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kept {
    /// An entry of the outbox that waits.
    Entry {
        /// The engine's name for it.
        id: EntryId,
        /// The submitter's name for it.
        submission: SubmissionId,
        /// The lane that carries it.
        lane: Lane,
        /// Bytes that it counts in the bounds of an outbox.
        bytes: usize,
        /// When it was submitted.
        accepted_at: Timestamp,
    },
    /// A dead letter of the outbox.
    Unsent(OutboxDeadLetter),
    /// A message of the inbox that waits.
    Message {
        /// Counted per device, in the order of arrival.
        sequence: u64,
        /// The sender's name for it.
        message_id: Option<String>,
        /// Bytes of its payload.
        bytes: usize,
        /// How often it has been abandoned.
        delivery_count: u32,
        /// When it came.
        arrived_at: Timestamp,
        /// From when on it is shown to nobody.
        expires_at: Option<Timestamp>,
    },
    /// A dead letter of the inbox.
    Unread(DeadLetter),
}

impl Held {
    /// Reads what it says. `None` if its record is damaged, or was never kept.
    pub(crate) fn read(&self, files: &dyn Files) -> io::Result<Option<Said>> {
        let Some(stored) = self.stored else {
            return Ok(None);
        };
        let record = log::read_record(files, stored)?;
        Ok(record.as_deref().and_then(said))
    }
}

impl Engine {
    /// The devices that have something, in the order of their names.
    pub(crate) fn stocked(&self, now: Moment) -> Vec<(Identity, Stock, Stock)> {
        let partitions = (0..Partition::COUNT).filter_map(Partition::from_number);
        let cells = partitions.flat_map(|partition| self.cells.in_partition(partition));
        let mut stocked: Vec<_> = cells
            .map(|cell| {
                let outbox = cell.lanes.lock().stock();
                let inbox = self.mailbox(&cell).stock(now);
                (cell.identity.clone(), outbox, inbox)
            })
            .filter(|(_, outbox, inbox)| {
                [outbox, inbox].map(|stock| stock.waiting + stock.dead_letters) != [0, 0]
            })
            .collect();
        stocked.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        stocked
    }

    /// What a device has: first what waits, then the dead letters, of the outbox and then of the inbox.
    pub(crate) fn held(&self, identity: &Identity, now: Moment) -> Vec<Held> {
        let Some(cell) = self.cell(identity) else {
            return Vec::new();
        };
        let lanes = self.lanes(&cell);
        let entries = lanes.entries().map(|entry| Held {
            kept: Kept::Entry {
                id: entry.id(),
                submission: entry.submission(),
                lane: entry.lane(),
                bytes: entry.size(),
                accepted_at: entry.accepted_at(),
            },
            stored: entry.keeping().location(),
        });
        let unsent = lanes.book().dead().map(|dead| Held {
            kept: Kept::Unsent(dead.to_letter(identity)),
            stored: Some(dead.stored),
        });
        let mut held: Vec<_> = entries.chain(unsent).collect();
        drop(lanes);
        let mut mailbox = self.mailbox(&cell);
        let unread: Vec<_> = mailbox.dead(now).iter().cloned().collect();
        held.extend(mailbox.messages().map(|message| Held {
            kept: Kept::Message {
                sequence: message.sequence,
                message_id: message.message.system.message_id.clone(),
                bytes: message.message.payload.len(),
                delivery_count: message.delivery_count,
                arrived_at: message.arrived_at,
                expires_at: message.expires_at,
            },
            stored: message.keeping.location(),
        }));
        held.extend(unread.into_iter().map(|dead| Held {
            kept: Kept::Unread(dead.letter),
            stored: dead.stored,
        }));
        held
    }
}
