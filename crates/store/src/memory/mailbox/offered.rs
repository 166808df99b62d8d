//! What a mailbox shows.

use std::{sync::Arc, time::Instant};

use iothub::{CloudMessage, Timestamp};

use super::super::{Moment, location::Location, token::Token, waiters::Waiters};
use crate::{ArrivalId, MessageEntry, MethodEntry, Settlement};

/// Boxed, so that an empty mailbox stays small.
pub(super) enum Offered {
    Message(Box<Message>),
    Method(Box<Method>),
}

pub(super) struct Message {
    pub(super) arrival: ArrivalId,
    pub(super) token: Token,
    pub(super) sequence: u64,
    pub(super) message: Arc<CloudMessage>,
    pub(super) delivery_count: u32,
    pub(super) arrived_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) is_tied: bool,
    pub(super) keeping: Keeping,
    /// The delivery lease, and until when it stands.
    pub(super) lease: Option<(Token, Instant)>,
    pub(super) tickets: Waiters<Settlement>,
}

/// What a restart does to a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// It is forgotten.
    Ephemeral,
    /// It is on its way to the disk; nobody is shown it before it is there, and it is not settled.
    Storing,
    /// It is on the disk.
    Durable(Location),
}

pub(super) struct Method {
    pub(super) arrival: ArrivalId,
    pub(super) entry: MethodEntry,
    pub(super) tickets: Waiters<Settlement>,
}

impl Offered {
    pub(super) const fn is_tied(&self) -> bool {
        match self {
            Self::Message(message) => message.is_tied,
            Self::Method(_) => true,
        }
    }

    pub(super) const fn arrival(&self) -> ArrivalId {
        match self {
            Self::Message(message) => message.arrival,
            Self::Method(method) => method.arrival,
        }
    }

    pub(super) fn has(&self, token: Token) -> bool {
        match self {
            Self::Message(message) => message.tokens().any(|other| other == token),
            Self::Method(_) => false,
        }
    }
}

impl Keeping {
    pub(crate) const fn location(self) -> Option<Location> {
        match self {
            Self::Durable(location) => Some(location),
            Self::Ephemeral | Self::Storing => None,
        }
    }
}

impl Message {
    /// The token of the entry, then that of its delivery lease.
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> {
        let lease = self.lease.map(|(token, _)| token);
        std::iter::once(self.token).chain(lease)
    }

    pub(super) fn is_settled_by(&self, token: Token, now: Moment) -> bool {
        token == self.token || self.is_leased(now)
    }

    pub(super) fn is_leased(&self, now: Moment) -> bool {
        self.lease.is_some_and(|(_, until)| now.instant < until)
    }

    /// Whether a device may see it.
    pub(super) fn is_shown(&self, now: Moment) -> bool {
        self.keeping != Keeping::Storing && !self.is_expired(now)
    }

    pub(super) fn is_expired(&self, now: Moment) -> bool {
        self.expires_at.is_some_and(|at| at <= now.timestamp)
    }

    pub(super) fn to_entry(&self) -> MessageEntry {
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
