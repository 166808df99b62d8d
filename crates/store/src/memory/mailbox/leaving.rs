//! How what is offered leaves: settled by its device, withdrawn with its connection, given up.

use super::{
    super::{
        Moment,
        token::Token,
        waiters::{Waiters, resolved},
    },
    Dead, DeadReason, Mailbox, Message, Owner, Settled,
    offered::Offered,
    stored::{Change, Noted},
};
use crate::{
    ArrivalId, Conclusion, ConnectionEpoch, MethodRequestId, SettleError, Settlement, Ticket,
};

impl Mailbox {
    pub(in crate::memory) fn settle(
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
    pub(in crate::memory) fn claim_method(
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

    /// Resolves who settled an arrival.
    pub(in crate::memory) fn conclude(
        &mut self,
        id: ArrivalId,
        conclusion: Conclusion,
        now: Moment,
    ) {
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

    /// Withdraws what is tied to this connection or an earlier one.
    pub(in crate::memory) fn withdraw(&mut self, connection: ConnectionEpoch, now: Moment) {
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

    /// Gives up untied messages that are expired, and methods past their deadline. A tied message that is expired stays
    /// where it is, though nobody is shown it: the hub has it too, until its connection is withdrawn.
    pub(super) fn give_up_overdue(&mut self, owner: Owner<'_>, now: Moment) {
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

    pub(super) fn take_message(&mut self, at: usize) -> Box<Message> {
        match self.offered.remove(at) {
            Offered::Message(message) => message,
            Offered::Method(_) => unreachable!("whoever calls has seen a message there"),
        }
    }
}
