//! The inbox of one device, as a state machine. States of an entry: see `inbox.rs` of the contract.

mod offered;
mod past;

use std::{collections::VecDeque, time::Duration};

use iothub::Identity;

use self::{
    offered::{Message, Method, Offered},
    past::Past,
};
use super::{
    Config, Moment,
    token::Token,
    waiters::{Waiters, lost, resolved},
};
use crate::{
    AppendError, Arrival, ArrivalId, Conclusion, ConnectionEpoch, DeadLetter, DeliveryLease,
    Desired, InboxEntry, InboxView, MethodEntry, MethodRequestId, SettleError, Settlement, Ticket,
};

/// What one device has from the hub.
pub(super) struct Mailbox {
    /// Offered entries, in the order of arrival.
    offered: Vec<Offered>,
    /// Tied messages that the device has settled and of which `upstream` has not said what became.
    settled: Vec<Settled>,
    desired: Option<Desired>,
    dead_letters: VecDeque<DeadLetter>,
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
            dead_letters: VecDeque::new(),
            past: Past::new(),
            withdrawn: None,
            next_sequence: first_sequence,
        }
    }

    /// Puts an arrival in. `token` is for a message.
    pub(super) fn append(
        &mut self,
        owner: Owner<'_>,
        id: ArrivalId,
        arrival: Arrival,
        token: Token,
        now: Moment,
    ) -> Result<Ticket<Settlement>, AppendError> {
        self.give_up_overdue(owner, now);
        if let Some(ticket) = self.rejoin(id, &arrival) {
            return Ok(ticket);
        }
        let (tickets, ticket) = Waiters::new();
        match arrival {
            Arrival::Message {
                message,
                expires_at,
                is_tied,
            } => {
                if self.messages().count() + self.settled.len() >= owner.config.inbox_messages {
                    return Err(AppendError::Full);
                }
                let sequence = self.next_sequence;
                self.next_sequence += 1;
                self.offered.push(Offered::Message(Box::new(Message {
                    arrival: id,
                    token,
                    sequence,
                    message,
                    delivery_count: 0,
                    arrived_at: now.timestamp,
                    expires_at,
                    is_tied,
                    lease: None,
                    tickets,
                })));
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
                self.offered.push(Offered::Method(Box::new(Method {
                    arrival: id,
                    entry,
                    tickets,
                })));
            }
        }
        Ok(ticket)
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

    pub(super) fn read(&mut self, owner: Owner<'_>, now: Moment) -> InboxView {
        self.give_up_overdue(owner, now);
        let entries = self.offered.iter().filter_map(|offered| match offered {
            Offered::Message(message) => {
                (!message.is_expired(now)).then(|| InboxEntry::Message(message.to_entry()))
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
                (!message.is_expired(now) && !message.is_leased(now)).then_some(message)
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
    ) -> Result<Ticket<Conclusion>, SettleError> {
        self.give_up_overdue(owner, now);
        let Some(at) = self.offered.iter().position(|offered| offered.has(token)) else {
            return self.settle_again(token, settlement);
        };
        let Offered::Message(message) = &mut self.offered[at] else {
            return Err(SettleError::Unknown);
        };
        if message.is_expired(now) || !message.is_settled_by(token, now) {
            return Err(SettleError::Lost);
        }
        if settlement != Settlement::Abandon {
            let message = self.take_message(at);
            return Ok(self.leave(owner, message, token, settlement, now));
        }
        message.delivery_count += 1;
        if message.delivery_count >= owner.config.max_delivery_count.get() {
            let message = self.take_message(at);
            self.past.lose_tokens_but(&message, token, now.instant);
            self.past
                .settled(token, settlement, Conclusion::Gateway, now.instant);
            self.die(owner, *message, DELIVERY_COUNT_EXCEEDED, now);
        } else if let Some((lease, _)) = message.lease.take() {
            if lease == token {
                self.past
                    .settled(token, settlement, Conclusion::Gateway, now.instant);
            } else {
                self.past.lose_token(lease, now.instant);
            }
        }
        Ok(resolved(Conclusion::Gateway))
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
        if self.dead_letters.is_empty() {
            self.dead_letters = VecDeque::new();
        }
    }

    pub(super) const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub(super) fn dead_letters(&mut self, now: Moment) -> &VecDeque<DeadLetter> {
        self.forget_dead_letters(now);
        &self.dead_letters
    }

    pub(super) fn is_empty(&self) -> bool {
        self.offered.is_empty()
            && self.settled.is_empty()
            && self.desired.is_none()
            && self.dead_letters.is_empty()
            && self.past.is_empty()
    }

    /// Another ticket of an arrival that is here, was a short while ago, or came on a connection that has ended.
    fn rejoin(&mut self, id: ArrivalId, arrival: &Arrival) -> Option<Ticket<Settlement>> {
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
        let is_gone = arrival.is_tied() && self.withdrawn >= Some(id.connection)
            || method_id.is_some_and(|method| self.past.is_method_over(method));
        is_gone.then(lost)
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
            self.past.arrived(message.arrival, settlement, now.instant);
            resolved(Conclusion::Gateway)
        };
        if settlement == Settlement::Reject {
            self.bury(owner, &message, REJECTED, now);
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
                    self.die(owner, *message, EXPIRED, now);
                }
                Offered::Method(method) => self.past.method_over(method.entry.id, now.instant),
            }
        }
    }

    /// A message becomes a dead letter, without a word of its device.
    fn die(&mut self, owner: Owner<'_>, message: Message, reason: &'static str, now: Moment) {
        self.bury(owner, &message, reason, now);
        self.past
            .arrived(message.arrival, Settlement::Reject, now.instant);
        message.tickets.resolve(Settlement::Reject);
    }

    fn bury(&mut self, owner: Owner<'_>, message: &Message, reason: &'static str, now: Moment) {
        self.dead_letters.push_back(DeadLetter {
            identity: owner.identity.clone(),
            sequence: message.sequence,
            message_id: message.message.system.message_id.clone(),
            bytes: message.message.payload.len(),
            delivery_count: message.delivery_count,
            arrived_at: message.arrived_at,
            reason,
            at: now.timestamp,
        });
        if self.dead_letters.len() > owner.config.dead_letters {
            self.dead_letters.pop_front();
        }
    }

    fn forget_dead_letters(&mut self, now: Moment) {
        let is_old =
            |letter: &mut DeadLetter| letter.at.saturating_add(DeadLetter::KEPT) <= now.timestamp;
        while self.dead_letters.pop_front_if(is_old).is_some() {}
    }

    fn take_message(&mut self, at: usize) -> Box<Message> {
        match self.offered.remove(at) {
            Offered::Message(message) => message,
            Offered::Method(_) => unreachable!("whoever calls has seen a message there"),
        }
    }

    fn messages(&self) -> impl Iterator<Item = &Message> {
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

/// IoT Hub's words in the feedback of a cloud-to-device message ("Message feedback" in "Send cloud-to-device messages").
const REJECTED: &str = "Rejected";
const EXPIRED: &str = "Expired";
const DELIVERY_COUNT_EXCEEDED: &str = "DeliveryCountExceeded";
