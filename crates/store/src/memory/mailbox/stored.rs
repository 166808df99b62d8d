//! What a disk does to a mailbox: it takes messages, gives them back after a restart, and says where each is.

use iothub::Timestamp;

use super::{
    super::{Moment, location::Location, token::Token, waiters::Waiters},
    Dead, DeadReason, Fresh, Keeping, Mailbox, Message, Owner,
    offered::Offered,
};
use crate::{ArrivalId, Conclusion, Settlement};

/// What the disk is to know of a settlement.
pub(in crate::memory) enum Noted {
    /// This.
    Change(Change),
    /// It is one that was settled before; what was noted then may be on its way still, or lost.
    Before,
    /// Nothing: a restart forgets the message.
    Nothing,
}

impl Noted {
    pub(super) fn if_kept(is_kept: bool, change: Change) -> Self {
        if is_kept {
            Self::Change(change)
        } else {
            Self::Nothing
        }
    }
}

/// What a settlement did to a message that is on the disk.
#[derive(Clone, Copy)]
pub(in crate::memory) struct Change {
    pub(in crate::memory) arrival: ArrivalId,
    pub(in crate::memory) sequence: u64,
    pub(in crate::memory) token: Token,
    pub(in crate::memory) settlement: Settlement,
    /// How often it has been abandoned.
    pub(in crate::memory) delivery_count: u32,
    pub(in crate::memory) is_gone: bool,
    /// It is a dead letter, for this reason.
    pub(in crate::memory) died: Option<DeadReason>,
}

impl Mailbox {
    /// Puts a message in that was there before a restart, in its place.
    pub(in crate::memory) fn restore(&mut self, sequence: u64, fresh: Fresh, now: Moment) {
        self.unstore(sequence);
        self.insert(sequence, fresh, Waiters::none(), now);
    }

    /// A message that was on its way to the disk is there, or was written again elsewhere.
    pub(in crate::memory) fn stored(&mut self, sequence: u64, location: Location) {
        if let Some(message) = self.message_mut(sequence) {
            message.keeping = Keeping::Durable(location);
        } else if let Some(dead) = self.dead_mut(sequence) {
            dead.stored = Some(location);
        }
    }

    /// A message that was on its way to the disk will not get there: it never came.
    pub(in crate::memory) fn not_stored(&mut self, sequence: u64) {
        let is_it = |offered: &mut Offered| match offered {
            Offered::Message(message) => {
                message.sequence == sequence && message.keeping == Keeping::Storing
            }
            Offered::Method(_) => false,
        };
        self.offered.extract_if(.., is_it).for_each(drop);
    }

    /// Removes what was there before a restart and is gone by a later record.
    pub(in crate::memory) fn unstore(&mut self, sequence: u64) -> Option<Box<Message>> {
        self.dead.retain(|dead| dead.letter.sequence != sequence);
        let at = self.offered.iter().position(|offered| match offered {
            Offered::Message(message) => message.sequence == sequence,
            Offered::Method(_) => false,
        })?;
        Some(self.take_message(at))
    }

    /// Does again what a settlement did before a restart.
    pub(in crate::memory) fn change_again(
        &mut self,
        owner: Owner<'_>,
        change: Change,
        at: Timestamp,
        now: Moment,
    ) {
        self.next_sequence = self.next_sequence.max(change.sequence + 1);
        if !change.is_gone {
            if let Some(message) = self.message_mut(change.sequence) {
                message.delivery_count = change.delivery_count;
            }
            return;
        }
        let message = self.unstore(change.sequence);
        if let (Some(message), Some(reason)) = (&message, change.died) {
            let dead = Dead::of(owner, message, change.delivery_count, reason, at);
            self.bury(owner.config.dead_letters, dead);
        }
        self.past.settled(
            change.token,
            change.settlement,
            Conclusion::Gateway,
            now.instant,
        );
        let settlement = match change.settlement {
            Settlement::Complete => Settlement::Complete,
            Settlement::Abandon | Settlement::Reject => Settlement::Reject,
        };
        match message {
            Some(message) => self.past.left(&message, settlement, now.instant),
            None => self.past.arrived(change.arrival, settlement, now.instant),
        }
    }

    /// The dead letter of this sequence, if its record is there.
    pub(in crate::memory) fn dead_at(&self, sequence: u64, location: Location) -> Option<&Dead> {
        let dead = self.find_dead(sequence);
        dead.filter(|dead| dead.stored == Some(location))
    }

    /// A record was written again elsewhere.
    pub(in crate::memory) fn moved(&mut self, sequence: u64, from: Location, to: Location) {
        if let Some(message) = self.message_mut(sequence)
            && message.keeping == Keeping::Durable(from)
        {
            message.keeping = Keeping::Durable(to);
        } else if let Some(dead) = self.dead_mut(sequence)
            && dead.stored == Some(from)
        {
            dead.stored = Some(to);
        }
    }

    /// Whether an arrival is on its way to the disk.
    pub(in crate::memory) fn is_on_its_way(&self, arrival: ArrivalId) -> bool {
        self.messages()
            .any(|message| message.arrival == arrival && message.keeping == Keeping::Storing)
    }

    /// Where the records are that live on the disk.
    pub(in crate::memory) fn stored_at(&self) -> impl Iterator<Item = Location> {
        let messages = self
            .messages()
            .filter_map(|message| message.keeping.location());
        messages.chain(self.dead.iter().filter_map(|dead| dead.stored))
    }

    /// The message whose record is there.
    pub(in crate::memory) fn message_at(&self, location: Location) -> Option<&Message> {
        self.messages()
            .find(|message| message.keeping == Keeping::Durable(location))
    }

    /// What a dead letter said cannot be read any more.
    pub(in crate::memory) fn lose_content(&mut self, location: Location) {
        for dead in &mut self.dead {
            dead.stored.take_if(|stored| *stored == location);
        }
    }
}
