//! The inbox of one device, as a state machine. States of an entry: see `inbox.rs` of the contract.

mod arriving;
mod dead;
mod leaving;
mod offered;
mod past;
mod stored;

use std::{collections::VecDeque, time::Duration};

use iothub::Identity;

pub(crate) use self::dead::DeadReason;
pub(super) use self::{
    arriving::Fresh,
    dead::Dead,
    offered::{Keeping, Message},
    stored::{Change, Noted},
};
use self::{
    offered::{Method, Offered},
    past::Past,
};
use super::{Config, Moment, counted::Counts, token::Token, waiters::Waiters};
use crate::{
    ArrivalId, Conclusion, ConnectionEpoch, DeliveryLease, Desired, InboxEntry, InboxView,
    Settlement, Stock,
};

/// What one device has from the hub.
pub(super) struct Mailbox {
    /// Offered entries, in the order of arrival.
    offered: Vec<Offered>,
    /// Tied messages that the device has settled and of which `upstream` has not said what became.
    settled: Vec<Settled>,
    desired: Option<Desired>,
    dead: VecDeque<Dead>,
    past: Past,
    /// The newest connection that has been withdrawn.
    withdrawn: Option<ConnectionEpoch>,
    next_sequence: u64,
}

struct Settled {
    arrival: ArrivalId,
    /// The token that settled it.
    token: Token,
    settlement: Settlement,
    tickets: Waiters<Conclusion>,
}

/// Whose mailbox it is and how it is bounded, for what becomes a dead letter.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) identity: &'a Identity,
    pub(super) config: &'a Config,
}

impl Mailbox {
    pub(super) const fn new(first_sequence: u64) -> Self {
        Self {
            offered: Vec::new(),
            settled: Vec::new(),
            desired: None,
            dead: VecDeque::new(),
            past: Past::new(),
            withdrawn: None,
            next_sequence: first_sequence,
        }
    }

    pub(super) fn set_desired(&mut self, desired: Option<Desired>) {
        self.desired = desired;
    }

    pub(super) fn read(&mut self, owner: Owner<'_>, now: Moment) -> InboxView {
        self.give_up_overdue(owner, now);
        let entries = self.offered.iter().filter_map(|offered| match offered {
            Offered::Message(message) => {
                (message.is_shown(now)).then(|| InboxEntry::Message(message.to_entry()))
            }
            Offered::Method(method) => Some(InboxEntry::Method(method.entry.clone())),
        });
        InboxView {
            entries: entries.collect(),
            desired: self.desired.clone(),
        }
    }

    /// The next message that nobody leases, leased under this token.
    pub(super) fn receive(
        &mut self,
        owner: Owner<'_>,
        token: Token,
        lock: Duration,
        now: Moment,
    ) -> Option<DeliveryLease> {
        self.give_up_overdue(owner, now);
        let message = self.offered.iter_mut().find_map(|offered| match offered {
            Offered::Message(message) => {
                (message.is_shown(now) && !message.is_leased(now)).then_some(message)
            }
            Offered::Method(_) => None,
        })?;
        if let Some((ended, _)) = message.lease.replace((token, now.instant + lock)) {
            self.past.lose_token(ended, now.instant);
        }
        Some(DeliveryLease {
            token: token.to_lock_token(),
            entry: message.to_entry(),
        })
    }

    /// Gives up what is overdue, forgets what is old, and returns spare memory.
    pub(super) fn tidy(&mut self, owner: Owner<'_>, now: Moment) {
        self.give_up_overdue(owner, now);
        self.forget_dead_letters(now);
        self.past.forget(now.instant);
        if self.offered.is_empty() {
            self.offered = Vec::new();
        }
        if self.settled.is_empty() {
            self.settled = Vec::new();
        }
        if self.dead.is_empty() {
            self.dead = VecDeque::new();
        }
    }

    pub(super) const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// A message that is offered, or on its way to the disk.
    pub(super) fn message(&self, sequence: u64) -> Option<&Message> {
        self.messages().find(|message| message.sequence == sequence)
    }

    /// What there is, for the operator.
    pub(super) fn stock(&mut self, now: Moment) -> Stock {
        let dead_letters = self.dead(now).len() as u64;
        Stock {
            waiting: self.offered() as u64,
            bytes: self.count() as u64,
            oldest: self.messages().map(|message| message.arrived_at).min(),
            dead_letters,
        }
    }

    /// How many messages are offered.
    pub(super) fn offered(&self) -> usize {
        self.messages().count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.offered.is_empty()
            && self.settled.is_empty()
            && self.desired.is_none()
            && self.dead.is_empty()
            && self.past.is_empty()
    }

    fn message_mut(&mut self, sequence: u64) -> Option<&mut Message> {
        self.offered.iter_mut().find_map(|offered| match offered {
            Offered::Message(message) => (message.sequence == sequence).then_some(message.as_mut()),
            Offered::Method(_) => None,
        })
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.offered.iter().filter_map(|offered| match offered {
            Offered::Message(message) => Some(message.as_ref()),
            Offered::Method(_) => None,
        })
    }

    fn methods(&self) -> impl Iterator<Item = &Method> {
        self.offered.iter().filter_map(|offered| match offered {
            Offered::Method(method) => Some(method.as_ref()),
            Offered::Message(_) => None,
        })
    }
}

impl Counts for Mailbox {
    /// Bytes of the messages that are offered.
    fn count(&self) -> usize {
        self.messages().map(|message| message.message.size()).sum()
    }
}
