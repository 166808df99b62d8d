//! Messages that were given up.

use iothub::Timestamp;

use super::{
    super::{location::Location, token::Token},
    Change, Message, Owner,
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
