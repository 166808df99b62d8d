//! What a mailbox shows.

use std::{sync::Arc, time::Instant};

use iothub::{CloudMessage, Timestamp};

use super::super::{Moment, location::Location, token::Token, waiters::Waiters};
use crate::{ArrivalId, MessageEntry, MethodEntry, Settlement};

/// Boxed, so that an empty mailbox stays small.
pub(in crate::memory) enum Offered {
    Message(Box<Message>),
    Method(Box<Method>),
}

pub(in crate::memory) struct Message {
    pub(in crate::memory) arrival: ArrivalId,
    pub(in crate::memory) token: Token,
    pub(in crate::memory) sequence: u64,
    pub(in crate::memory) message: Arc<CloudMessage>,
    pub(in crate::memory) delivery_count: u32,
    pub(in crate::memory) arrived_at: Timestamp,
    pub(in crate::memory) expires_at: Option<Timestamp>,
    /// Until when it lives, as far as this process is concerned: a wall clock that is set meanwhile ends nothing.
    pub(in crate::memory) lives_until: Option<Instant>,
    pub(in crate::memory) is_tied: bool,
    /// Whether it is known that the hub was told of it, if it is not tied.
    pub(in crate::memory) is_acknowledged: bool,
    pub(in crate::memory) keeping: Keeping,
    /// The delivery lease, and until when it stands.
    pub(in crate::memory) lease: Option<(Token, Instant)>,
    pub(in crate::memory) tickets: Waiters<Settlement>,
}

/// What a restart does to a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::memory) enum Keeping {
    /// It is forgotten.
    Ephemeral,
    /// It is on its way to the disk; nobody is shown it before it is there, and it is not settled.
    Storing,
    /// It is on the disk.
    Durable(Location),
}

pub(in crate::memory) struct Method {
    pub(in crate::memory) arrival: ArrivalId,
    pub(in crate::memory) entry: MethodEntry,
    pub(in crate::memory) tickets: Waiters<Settlement>,
}

impl Offered {
    pub(in crate::memory) const fn is_tied(&self) -> bool {
        match self {
            Self::Message(message) => message.is_tied,
            Self::Method(_) => true,
        }
    }

    pub(in crate::memory) const fn arrival(&self) -> ArrivalId {
        match self {
            Self::Message(message) => message.arrival,
            Self::Method(method) => method.arrival,
        }
    }

    pub(in crate::memory) fn has(&self, token: Token) -> bool {
        match self {
            Self::Message(message) => message.tokens().any(|other| other == token),
            Self::Method(_) => false,
        }
    }
}

impl Keeping {
    pub(in crate::memory) const fn location(self) -> Option<Location> {
        match self {
            Self::Durable(location) => Some(location),
            Self::Ephemeral | Self::Storing => None,
        }
    }
}

impl Message {
    /// The token of the entry, then that of its delivery lease.
    pub(in crate::memory) fn tokens(&self) -> impl Iterator<Item = Token> {
        let lease = self.lease.map(|(token, _)| token);
        std::iter::once(self.token).chain(lease)
    }

    pub(in crate::memory) fn is_settled_by(&self, token: Token, now: Moment) -> bool {
        token == self.token || self.is_leased(now)
    }

    pub(in crate::memory) fn is_leased(&self, now: Moment) -> bool {
        self.lease.is_some_and(|(_, until)| now.instant < until)
    }

    /// Whether an arrival may be this message once more: the hub had not heard that it is here.
    pub(in crate::memory) fn is_delivered_again_as(
        &self,
        id: ArrivalId,
        other: &CloudMessage,
    ) -> bool {
        !self.is_tied
            && !self.is_acknowledged
            && self.arrival.connection != id.connection
            && self.message.system.message_id.is_some()
            && *self.message == *other
    }

    /// Whether a device may see it.
    pub(in crate::memory) fn is_shown(&self, now: Moment) -> bool {
        self.keeping != Keeping::Storing && !self.is_expired(now)
    }

    pub(in crate::memory) fn is_expired(&self, now: Moment) -> bool {
        self.lives_until.is_some_and(|until| until <= now.instant)
    }

    pub(in crate::memory) fn to_entry(&self) -> MessageEntry {
        MessageEntry {
            token: self.token.to_lock_token(),
            sequence: self.sequence,
            message: Arc::clone(&self.message),
            delivery_count: self.delivery_count,
            arrived_at: self.arrived_at,
            expires_at: self.expires_at,
        }
    }
}
