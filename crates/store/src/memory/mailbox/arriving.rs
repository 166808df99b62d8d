//! How arrivals come in, once each.

use std::sync::Arc;

use iothub::{CloudMessage, Timestamp};

use super::{
    super::{
        Moment,
        token::Token,
        waiters::{Waiters, lost, resolved},
    },
    Keeping, Mailbox, Message, Owner,
    offered::{Method, Offered},
};
use crate::{AppendError, Arrival, ArrivalId, MethodEntry, Settlement, Ticket};

/// A message as it comes, or comes back.
pub(in crate::memory) struct Fresh {
    pub(in crate::memory) arrival: ArrivalId,
    pub(in crate::memory) token: Token,
    pub(in crate::memory) message: Arc<CloudMessage>,
    pub(in crate::memory) delivery_count: u32,
    pub(in crate::memory) arrived_at: Timestamp,
    pub(in crate::memory) expires_at: Option<Timestamp>,
    pub(in crate::memory) is_tied: bool,
    pub(in crate::memory) keeping: Keeping,
}

/// An arrival is in: its ticket, and its sequence if it is a message that was not there before.
pub(in crate::memory) struct Appended {
    pub(in crate::memory) ticket: Ticket<Settlement>,
    pub(in crate::memory) fresh: Option<u64>,
}

impl Mailbox {
    /// Puts an arrival in. `token` is for a message, `is_kept` says whether one that is not tied goes to the disk.
    pub(in crate::memory) fn append(
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
    pub(in crate::memory) fn offer(
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

    pub(super) fn insert(
        &mut self,
        sequence: u64,
        fresh: Fresh,
        tickets: Waiters<Settlement>,
        now: Moment,
    ) {
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
}
