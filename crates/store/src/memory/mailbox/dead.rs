//! Messages that were given up.

use std::collections::VecDeque;

use iothub::Timestamp;

use super::{
    super::{Moment, location::Location, token::Token},
    Change, Mailbox, Message, Owner,
};
use crate::{ArrivalId, DeadLetter, Settlement};

/// A dead letter, and where what it said is.
#[derive(Clone)]
pub(in crate::memory) struct Dead {
    pub(in crate::memory) letter: DeadLetter,
    pub(in crate::memory) arrival: ArrivalId,
    pub(in crate::memory) reason: DeadReason,
    pub(in crate::memory) stored: Option<Location>,
}

/// Why a message is a dead letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DeadReason {
    Rejected,
    Expired,
    DeliveryCountExceeded,
}

impl DeadReason {
    /// IoT Hub's word in the feedback of a cloud-to-device message ("Message feedback" in "Send cloud-to-device messages").
    pub(in crate::memory) const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "Rejected",
            Self::Expired => "Expired",
            Self::DeliveryCountExceeded => "DeliveryCountExceeded",
        }
    }
}

impl Dead {
    /// What to note when it is a dead letter no more.
    pub(in crate::memory) const fn settled_for_good(&self) -> Change {
        Change {
            arrival: self.arrival,
            sequence: self.letter.sequence,
            token: Token::from_bits(0),
            settlement: Settlement::Reject,
            delivery_count: self.letter.delivery_count,
            is_gone: true,
            died: None,
        }
    }

    pub(super) fn of(
        owner: Owner<'_>,
        message: &Message,
        delivery_count: u32,
        reason: DeadReason,
        at: Timestamp,
    ) -> Self {
        let letter = DeadLetter {
            identity: owner.identity.clone(),
            sequence: message.sequence,
            message_id: message.message.system.message_id.clone(),
            bytes: message.message.payload.len(),
            delivery_count,
            arrived_at: message.arrived_at,
            reason: reason.as_str(),
            at,
        };
        Self {
            letter,
            arrival: message.arrival,
            reason,
            stored: message.keeping.location(),
        }
    }
}

impl Mailbox {
    pub(in crate::memory) fn dead(&mut self, now: Moment) -> &VecDeque<Dead> {
        self.forget_dead_letters(now);
        &self.dead
    }

    /// Takes a dead letter out, to be replayed.
    pub(in crate::memory) fn exhume(&mut self, sequence: u64) -> Option<Dead> {
        let at = self.dead.iter();
        let at = at
            .map(|dead| dead.letter.sequence)
            .position(|other| other == sequence)?;
        self.dead.remove(at)
    }

    /// Puts a dead letter in; beyond the bound the oldest is forgotten.
    pub(in crate::memory) fn bury(&mut self, bound: usize, dead: Dead) {
        self.next_sequence = self.next_sequence.max(dead.letter.sequence + 1);
        // Nearly always the end: what was written again comes late after a restart.
        let at = self
            .dead
            .partition_point(|other| other.letter.at <= dead.letter.at);
        self.dead.insert(at, dead);
        if self.dead.len() > bound {
            self.dead.pop_front();
        }
    }

    /// The dead letter of this sequence.
    pub(in crate::memory) fn find_dead(&self, sequence: u64) -> Option<&Dead> {
        let mut dead = self.dead.iter();
        dead.find(|dead| dead.letter.sequence == sequence)
    }

    pub(super) fn forget_dead_letters(&mut self, now: Moment) {
        let is_old =
            |dead: &mut Dead| dead.letter.at.saturating_add(DeadLetter::KEPT) <= now.timestamp;
        while self.dead.pop_front_if(is_old).is_some() {}
    }

    pub(super) fn dead_mut(&mut self, sequence: u64) -> Option<&mut Dead> {
        let mut dead = self.dead.iter_mut();
        dead.find(|dead| dead.letter.sequence == sequence)
    }
}
