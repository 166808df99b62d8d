//! The inbox of one device, as a state machine. States of an entry: see `inbox.rs` of the contract.

mod dead;
mod offered;
mod past;
mod stored;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use iothub::{CloudMessage, Identity, Timestamp};

pub(crate) use self::dead::DeadReason;
pub(super) use self::{
    dead::Dead,
    offered::{Keeping, Message},
    stored::{Change, Noted},
};
use self::{
    offered::{Method, Offered},
    past::Past,
};
use super::{
    Config, Moment,
    counted::Counts,
    token::Token,
    waiters::{Waiters, lost, resolved},
};
use crate::{
    AppendError, Arrival, ArrivalId, Conclusion, ConnectionEpoch, DeadLetter, DeliveryLease,
    Desired, InboxEntry, InboxView, MethodEntry, MethodRequestId, SettleError, Settlement, Stock,
    Ticket,
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

/// A message as it comes, or comes back.
pub(super) struct Fresh {
    pub(super) arrival: ArrivalId,
    pub(super) token: Token,
    pub(super) message: Arc<CloudMessage>,
    pub(super) delivery_count: u32,
    pub(super) arrived_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) is_tied: bool,
    pub(super) keeping: Keeping,
}

/// An arrival is in: its ticket, and its sequence if it is a message that was not there before.
pub(super) struct Appended {
    pub(super) ticket: Ticket<Settlement>,
    pub(super) fresh: Option<u64>,
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

    /// Puts an arrival in. `token` is for a message, `is_kept` says whether one that is not tied goes to the disk.
    pub(super) fn append(
        &mut self,
        owner: Owner<'_>,
        id: ArrivalId,
        arrival: Arrival,
        token: Token,
        is_kept: bool,
        now: Moment,
    ) -> Result<Appended, AppendError> {
        self.give_up_overdue(owner, now);
        if let Some(ticket) = self.rejoin(id, &arrival, now) {
            return Ok(Appended {
                ticket,
                fresh: None,
            });
        }
        match arrival {
            Arrival::Message {
                message,
                expires_at,
                is_tied,
            } => {
                let keeping = if is_kept && !is_tied {
                    Keeping::Storing
                } else {
                    Keeping::Ephemeral
                };
                let fresh = Fresh {
                    arrival: id,
                    token,
                    message,
                    delivery_count: 0,
                    arrived_at: now.timestamp,
                    expires_at,
                    is_tied,
                    keeping,
                };
                self.offer(owner, fresh, now)
            }
            Arrival::Method {
                id: method,
                request,
                deadline,
                deadline_at,
            } => {
                if self.methods().count() >= owner.config.inbox_methods {
                    return Err(AppendError::Full);
                }
                let entry = MethodEntry {
                    id: method,
                    request,
                    arrived_at: now.timestamp,
                    deadline,
                    deadline_at,
                };
                let (tickets, ticket) = Waiters::new();
                self.offered.push(Offered::Method(Box::new(Method {
                    arrival: id,
                    entry,
                    tickets,
                })));
                Ok(Appended {
                    ticket,
                    fresh: None,
                })
            }
        }
    }

    /// Offers a message that is new here, if there is room for it.
    pub(super) fn offer(
        &mut self,
        owner: Owner<'_>,
        fresh: Fresh,
        now: Moment,
    ) -> Result<Appended, AppendError> {
        if self.messages().count() + self.settled.len() >= owner.config.inbox_messages {
            return Err(AppendError::Full);
        }
        let (tickets, ticket) = Waiters::new();
        let sequence = self.next_sequence;
        self.insert(sequence, fresh, tickets, now);
        Ok(Appended {
            ticket,
            fresh: Some(sequence),
        })
    }

    fn insert(&mut self, sequence: u64, fresh: Fresh, tickets: Waiters<Settlement>, now: Moment) {
        let lives = fresh
            .expires_at
            .map(|at| at.saturating_since(now.timestamp));
        self.next_sequence = self.next_sequence.max(sequence + 1);
        let message = Message {
            arrival: fresh.arrival,
            token: fresh.token,
            sequence,
            message: fresh.message,
            delivery_count: fresh.delivery_count,
            arrived_at: fresh.arrived_at,
            expires_at: fresh.expires_at,
            // What ends beyond all time does not end.
            lives_until: lives.and_then(|lives| now.instant.checked_add(lives)),
            is_tied: fresh.is_tied,
            is_acknowledged: false,
            keeping: fresh.keeping,
            lease: None,
            tickets,
        };
        let later = |offered: &Offered| match offered {
            Offered::Message(other) => other.sequence > sequence,
            Offered::Method(_) => false,
        };
        let at = self.offered.iter().position(later);
        let at = at.unwrap_or(self.offered.len());
        self.offered.insert(at, Offered::Message(Box::new(message)));
    }

    pub(super) fn set_desired(&mut self, desired: Option<Desired>) {
        self.desired = desired;
    }

    /// Withdraws what is tied to this connection or an earlier one.
    pub(super) fn withdraw(&mut self, connection: ConnectionEpoch, now: Moment) {
        self.withdrawn = self.withdrawn.max(Some(connection));
        for offered in std::mem::take(&mut self.offered) {
            let is_withdrawn = offered.is_tied() && offered.arrival().connection <= connection;
            match offered {
                kept if !is_withdrawn => self.offered.push(kept),
                // Its ticket is lost with it; a method's id is lost by its connection.
                Offered::Message(message) => self.past.lose_tokens(&message, now.instant),
                Offered::Method(_) => {}
            }
        }
        for settled in std::mem::take(&mut self.settled) {
            if settled.arrival.connection <= connection {
                self.past.lose_token(settled.token, now.instant);
                settled.tickets.resolve(Conclusion::Lost);
            } else {
                self.settled.push(settled);
            }
        }
        self.desired
            .take_if(|desired| desired.connection <= connection);
    }

    /// Resolves who settled an arrival.
    pub(super) fn conclude(&mut self, id: ArrivalId, conclusion: Conclusion, now: Moment) {
        if conclusion == Conclusion::Hub {
            self.acknowledged(id);
        }
        let Some(at) = self
            .settled
            .iter()
            .position(|settled| settled.arrival == id)
        else {
            return;
        };
        let settled = self.settled.remove(at);
        self.past.arrived(id, settled.settlement, now.instant);
        match conclusion {
            Conclusion::Hub | Conclusion::Gateway => {
                self.past
                    .settled(settled.token, settled.settlement, conclusion, now.instant);
            }
            Conclusion::Lost => self.past.lose_token(settled.token, now.instant),
        }
        settled.tickets.resolve(conclusion);
    }

    /// The hub has been told of a message.
    fn acknowledged(&mut self, id: ArrivalId) {
        self.past.acknowledged(id);
        for offered in &mut self.offered {
            if let Offered::Message(message) = offered
                && message.arrival == id
            {
                message.is_acknowledged = true;
            }
        }
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

    pub(super) fn settle(
        &mut self,
        owner: Owner<'_>,
        token: Token,
        settlement: Settlement,
        now: Moment,
    ) -> Result<(Ticket<Conclusion>, Noted), SettleError> {
        self.give_up_overdue(owner, now);
        let Some(at) = self.offered.iter().position(|offered| offered.has(token)) else {
            let ticket = self.settle_again(token, settlement)?;
            return Ok((ticket, Noted::Before));
        };
        let Offered::Message(message) = &mut self.offered[at] else {
            return Err(SettleError::Unknown);
        };
        if !message.is_shown(now) || !message.is_settled_by(token, now) {
            return Err(SettleError::Lost);
        }
        let is_kept = message.keeping.location().is_some();
        let mut change = Change {
            arrival: message.arrival,
            sequence: message.sequence,
            token,
            settlement,
            delivery_count: message.delivery_count,
            is_gone: true,
            died: None,
        };
        if settlement != Settlement::Abandon {
            change.died = (settlement == Settlement::Reject).then_some(DeadReason::Rejected);
            let message = self.take_message(at);
            let ticket = self.leave(owner, message, token, settlement, now);
            return Ok((ticket, Noted::if_kept(is_kept, change)));
        }
        message.delivery_count += 1;
        change.delivery_count = message.delivery_count;
        change.is_gone = message.delivery_count >= owner.config.max_delivery_count.get();
        change.died = change.is_gone.then_some(DeadReason::DeliveryCountExceeded);
        if message.delivery_count >= owner.config.max_delivery_count.get() {
            let message = self.take_message(at);
            self.past.lose_tokens_but(&message, token, now.instant);
            self.past
                .settled(token, settlement, Conclusion::Gateway, now.instant);
            self.die(owner, *message, DeadReason::DeliveryCountExceeded, now);
        } else if let Some((lease, _)) = message.lease.take() {
            if lease == token {
                self.past
                    .settled(token, settlement, Conclusion::Gateway, now.instant);
            } else {
                self.past.lose_token(lease, now.instant);
            }
        }
        let noted = Noted::if_kept(is_kept, change);
        Ok((resolved(Conclusion::Gateway), noted))
    }

    /// Takes a method out for its answer.
    pub(super) fn claim_method(
        &mut self,
        owner: Owner<'_>,
        request: &MethodRequestId,
        now: Moment,
    ) -> Result<(), SettleError> {
        self.give_up_overdue(owner, now);
        let is_claimed = |offered: &mut Offered| match offered {
            Offered::Method(method) => method.entry.id == *request,
            Offered::Message(_) => false,
        };
        let Some(Offered::Method(method)) = self.offered.extract_if(.., is_claimed).next() else {
            return Err(SettleError::Lost);
        };
        self.past
            .arrived(method.arrival, Settlement::Complete, now.instant);
        self.past.method_over(method.entry.id, now.instant);
        method.tickets.resolve(Settlement::Complete);
        Ok(())
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

    pub(super) fn dead(&mut self, now: Moment) -> &VecDeque<Dead> {
        self.forget_dead_letters(now);
        &self.dead
    }

    /// Takes a dead letter out, to be replayed.
    pub(super) fn exhume(&mut self, sequence: u64) -> Option<Dead> {
        let at = self.dead.iter();
        let at = at
            .map(|dead| dead.letter.sequence)
            .position(|other| other == sequence)?;
        self.dead.remove(at)
    }

    /// Puts a dead letter in; beyond the bound the oldest is forgotten.
    pub(super) fn bury(&mut self, bound: usize, dead: Dead) {
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
    pub(super) fn find_dead(&self, sequence: u64) -> Option<&Dead> {
        let mut dead = self.dead.iter();
        dead.find(|dead| dead.letter.sequence == sequence)
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

    /// Another ticket of an arrival that is here, was a short while ago, or came on a connection that has ended.
    fn rejoin(
        &mut self,
        id: ArrivalId,
        arrival: &Arrival,
        now: Moment,
    ) -> Option<Ticket<Settlement>> {
        let method_id = match arrival {
            Arrival::Message { .. } => None,
            Arrival::Method { id, .. } => Some(id),
        };
        for offered in &mut self.offered {
            match offered {
                Offered::Message(message) if message.arrival == id => {
                    return Some(message.tickets.join());
                }
                // The hub's QoS 1 may bring a request twice: one request id is one entry.
                Offered::Method(method)
                    if method.arrival == id || Some(&method.entry.id) == method_id =>
                {
                    return Some(method.tickets.join());
                }
                Offered::Message(_) | Offered::Method(_) => {}
            }
        }
        if let Some(settled) = self.settled.iter().find(|settled| settled.arrival == id) {
            return Some(resolved(settled.settlement));
        }
        if let Some(settlement) = self.past.settlement_of(id) {
            return Some(resolved(settlement));
        }
        if let Some(ticket) = self.rejoin_delivered_again(id, arrival, now) {
            return Some(ticket);
        }
        let is_gone = arrival.is_tied() && self.withdrawn >= Some(id.connection)
            || method_id.is_some_and(|method| self.past.is_method_over(method));
        is_gone.then(lost)
    }

    /// Another ticket of a message that the hub delivers again, because it has not heard that it is here.
    fn rejoin_delivered_again(
        &mut self,
        id: ArrivalId,
        arrival: &Arrival,
        now: Moment,
    ) -> Option<Ticket<Settlement>> {
        let Arrival::Message {
            message,
            is_tied: false,
            ..
        } = arrival
        else {
            return None;
        };
        for offered in &mut self.offered {
            if let Offered::Message(known) = offered
                && known.is_delivered_again_as(id, message)
            {
                known.arrival = id;
                return Some(known.tickets.join());
            }
        }
        let settlement = self.past.delivered_again(id, message, now.instant)?;
        Some(resolved(settlement))
    }

    /// What settling says of a token that no offered entry has.
    fn settle_again(
        &mut self,
        token: Token,
        settlement: Settlement,
    ) -> Result<Ticket<Conclusion>, SettleError> {
        if let Some(settled) = self
            .settled
            .iter_mut()
            .find(|settled| settled.token == token)
        {
            return if settled.settlement == settlement {
                Ok(settled.tickets.join())
            } else {
                Err(SettleError::Lost)
            };
        }
        self.past.settle_again(token, settlement).map(resolved)
    }

    /// A message leaves, settled by its device.
    fn leave(
        &mut self,
        owner: Owner<'_>,
        message: Box<Message>,
        token: Token,
        settlement: Settlement,
        now: Moment,
    ) -> Ticket<Conclusion> {
        self.past.lose_tokens_but(&message, token, now.instant);
        let ticket = if message.is_tied {
            let (tickets, ticket) = Waiters::new();
            self.settled.push(Settled {
                arrival: message.arrival,
                token,
                settlement,
                tickets,
            });
            ticket
        } else {
            // The hub has been told when it came.
            self.past
                .settled(token, settlement, Conclusion::Gateway, now.instant);
            self.past.left(&message, settlement, now.instant);
            resolved(Conclusion::Gateway)
        };
        if settlement == Settlement::Reject {
            self.bury(
                owner.config.dead_letters,
                Dead::of(
                    owner,
                    &message,
                    message.delivery_count,
                    DeadReason::Rejected,
                    now.timestamp,
                ),
            );
        }
        message.tickets.resolve(settlement);
        ticket
    }

    /// Gives up untied messages that are expired, and methods past their deadline. A tied message that is expired stays
    /// where it is, though nobody is shown it: the hub has it too, until its connection is withdrawn.
    fn give_up_overdue(&mut self, owner: Owner<'_>, now: Moment) {
        let is_overdue = |offered: &mut Offered| match offered {
            Offered::Message(message) => !message.is_tied && message.is_expired(now),
            Offered::Method(method) => method.entry.deadline <= now.instant,
        };
        let overdue: Vec<_> = self.offered.extract_if(.., is_overdue).collect();
        for offered in overdue {
            match offered {
                Offered::Message(message) => {
                    self.past.lose_tokens(&message, now.instant);
                    self.die(owner, *message, DeadReason::Expired, now);
                }
                Offered::Method(method) => self.past.method_over(method.entry.id, now.instant),
            }
        }
    }

    /// A message becomes a dead letter, without a word of its device.
    fn die(&mut self, owner: Owner<'_>, message: Message, reason: DeadReason, now: Moment) {
        let dead = Dead::of(
            owner,
            &message,
            message.delivery_count,
            reason,
            now.timestamp,
        );
        self.bury(owner.config.dead_letters, dead);
        self.past.left(&message, Settlement::Reject, now.instant);
        message.tickets.resolve(Settlement::Reject);
    }

    fn forget_dead_letters(&mut self, now: Moment) {
        let is_old =
            |dead: &mut Dead| dead.letter.at.saturating_add(DeadLetter::KEPT) <= now.timestamp;
        while self.dead.pop_front_if(is_old).is_some() {}
    }

    fn take_message(&mut self, at: usize) -> Box<Message> {
        match self.offered.remove(at) {
            Offered::Message(message) => message,
            Offered::Method(_) => unreachable!("whoever calls has seen a message there"),
        }
    }

    fn message_mut(&mut self, sequence: u64) -> Option<&mut Message> {
        self.offered.iter_mut().find_map(|offered| match offered {
            Offered::Message(message) => (message.sequence == sequence).then_some(message.as_mut()),
            Offered::Method(_) => None,
        })
    }

    fn dead_mut(&mut self, sequence: u64) -> Option<&mut Dead> {
        let mut dead = self.dead.iter_mut();
        dead.find(|dead| dead.letter.sequence == sequence)
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
