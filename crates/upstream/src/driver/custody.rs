//! Cloud-to-device messages that the hub has delivered and has not been told the end of.
//!
//! The hub keeps a message until its PUBACK, and takes PUBACKs in the order of arrival only. So a message goes through
//!
//! ```text
//!            room in the inbox         the device settles          the session sends its PUBACK
//!  Waiting --------------------> Offered --------------> Settled ------------------------------> gone
//!                                                           | an earlier message is not settled:
//!                                                           +-- concluded as the gateway's
//! ```
//!
//! Nothing here survives the connection: the hub offers again whatever it got no PUBACK for.
//!
//! That is custody `hub`. In custody `gateway` a message is not tied to its connection, and settled towards the hub as soon as
//! the inbox has it, which is to say on its disk. What has arrived together is flushed together. When its PUBACK is written
//! the inbox hears of that: until then the hub may deliver the message again, and the inbox knows it again.
//!
//! ```text
//!            room in the inbox, flushed          the session sends its PUBACK
//!  Waiting --------------------------> Settled ------------------------------> gone
//! ```

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use iothub::{CloudMessage, Timestamp};
use store::{Arrival, ArrivalId, ConnectionEpoch, Custody, Settlement, Ticket, TicketLost};

/// The messages of one connection in the order of arrival. `R` is the session's receipt.
pub(super) struct Held<R> {
    connection: ConnectionEpoch,
    custody: Custody,
    next_number: u64,
    messages: VecDeque<Message<R>>,
}

struct Message<R> {
    id: ArrivalId,
    receipt: R,
    /// When it is not held any longer, unless it is settled.
    until: Instant,
    state: State,
}

enum State {
    Waiting {
        content: Arc<CloudMessage>,
        expires_at: Option<Timestamp>,
    },
    Offered(Ticket<Settlement>),
    Settled {
        is_concluded: bool,
    },
    Lost,
    /// It came too late to be shown.
    Expired,
}

impl<R: Copy + PartialEq> Held<R> {
    /// Nothing, on this connection.
    pub(super) const fn on(connection: ConnectionEpoch, custody: Custody) -> Self {
        Self {
            connection,
            custody,
            next_number: 0,
            messages: VecDeque::new(),
        }
    }

    /// Names the next arrival of this connection, of whatever kind.
    pub(super) const fn next_id(&mut self) -> ArrivalId {
        let number = self.next_number;
        self.next_number += 1;
        ArrivalId {
            connection: self.connection,
            number,
        }
    }

    /// The hub has delivered a message.
    pub(super) fn arrived(
        &mut self,
        receipt: R,
        message: CloudMessage,
        now: Instant,
        wall: Timestamp,
    ) {
        let until_expiry = message.expires_at().map(|at| at.saturating_since(wall));
        let (expires_at, is_expired) = match self.custody {
            Custody::Hub => (
                message.expires_at(),
                until_expiry.is_some_and(|left| left.is_zero()),
            ),
            // What has expired is for the inbox to say, which keeps it as a dead letter.
            Custody::Gateway => {
                let otherwise = || wall.saturating_add(LIFE_WITHOUT_EXPIRY);
                (Some(message.expires_at().unwrap_or_else(otherwise)), false)
            }
        };
        let id = self.next_id();
        self.messages.push_back(Message {
            id,
            receipt,
            until: now + until_expiry.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST),
            state: if is_expired {
                State::Expired
            } else {
                State::Waiting {
                    content: Arc::new(message),
                    expires_at,
                }
            },
        });
    }

    /// The next messages for the inbox, if some wait and there is room. They stay the next until [`Held::offered`].
    pub(super) fn to_offer(&self) -> Vec<(ArrivalId, Arrival)> {
        let is_offered = |message: &&Message<R>| matches!(message.state, State::Offered(_));
        let offered = self.messages.iter().filter(is_offered).count();
        let waiting = self
            .messages
            .iter()
            .filter_map(|message| match &message.state {
                State::Waiting {
                    content,
                    expires_at,
                } => Some((
                    message.id,
                    Arrival::Message {
                        message: Arc::clone(content),
                        expires_at: *expires_at,
                        is_tied: self.custody == Custody::Hub,
                    },
                )),
                State::Offered(_) | State::Settled { .. } | State::Lost | State::Expired => None,
            });
        waiting.take(MOST_OFFERED.saturating_sub(offered)).collect()
    }

    /// The message is in the inbox. Gives the receipt if the session is to acknowledge it.
    pub(super) fn offered(&mut self, id: ArrivalId, ticket: Ticket<Settlement>) -> Option<R> {
        let message = self.messages.iter_mut().find(|message| message.id == id)?;
        match self.custody {
            Custody::Hub => {
                message.state = State::Offered(ticket);
                None
            }
            Custody::Gateway => {
                message.state = State::Settled { is_concluded: true };
                Some(message.receipt)
            }
        }
    }

    /// Waits for the next settlement of a device; gives the receipt that the session is to acknowledge. None: the
    /// store let go of the message, so that it is not held any longer.
    pub(super) fn poll_settlement(&mut self, cx: &mut Context<'_>) -> Poll<Option<R>> {
        for message in &mut self.messages {
            let State::Offered(ticket) = &mut message.state else {
                continue;
            };
            let Poll::Ready(settlement) = Pin::new(ticket).poll(cx) else {
                continue;
            };
            return Poll::Ready(match settlement {
                Ok(Settlement::Complete | Settlement::Reject) => {
                    let is_concluded = false;
                    message.state = State::Settled { is_concluded };
                    Some(message.receipt)
                }
                // An abandoned message stays in the inbox, says the contract.
                Ok(Settlement::Abandon) | Err(TicketLost) => {
                    message.state = State::Lost;
                    None
                }
            });
        }
        Poll::Pending
    }

    /// The session has sent the PUBACK; gives the message's name if the inbox is to hear of it.
    pub(super) fn acknowledged(&mut self, receipt: R) -> Option<ArrivalId> {
        let place = self
            .messages
            .iter()
            .position(|message| message.receipt == receipt)?;
        let message = self.messages.remove(place)?;
        match message.state {
            State::Settled {
                is_concluded: false,
            } => Some(message.id),
            // Told before that the hub hears of it later; or, in the gateway's custody, nothing yet.
            State::Settled { is_concluded: true } => {
                (self.custody == Custody::Gateway).then_some(message.id)
            }
            State::Waiting { .. } | State::Offered(_) | State::Lost | State::Expired => None,
        }
    }

    /// Settled messages whose PUBACK waits for earlier ones, each once.
    pub(super) fn next_to_conclude(&mut self) -> Option<ArrivalId> {
        self.messages
            .iter_mut()
            .find_map(|message| match &mut message.state {
                State::Settled { is_concluded } if !*is_concluded => {
                    *is_concluded = true;
                    Some(message.id)
                }
                State::Settled { .. }
                | State::Waiting { .. }
                | State::Offered(_)
                | State::Lost
                | State::Expired => None,
            })
    }

    /// Whether the inbox shows every message that is to be shown.
    pub(super) fn is_all_offered(&self) -> bool {
        !self
            .messages
            .iter()
            .any(|message| matches!(message.state, State::Waiting { .. }))
    }

    /// When the first message has been held for as long as it may be.
    pub(super) fn until(&self) -> Option<Instant> {
        let is_unsettled = |message: &&Message<R>| match message.state {
            State::Waiting { .. } | State::Offered(_) | State::Expired => true,
            State::Settled { .. } | State::Lost => false,
        };
        let unsettled = self.messages.iter().filter(is_unsettled);
        unsettled.map(|message| message.until).min()
    }
}

/// Messages of one device in the inbox at a time, or on the way there. As many as the hub would redeliver at once if the connection ended,
/// and few enough that their order at the hub is not far from what the device sees.
const MOST_OFFERED: usize = 10;

/// How long a message is held without being settled, so that a device that has gone for good does not keep the hub
/// from counting deliveries and dead-lettering.
const LONGEST: Duration = Duration::from_secs(600);

/// How long a message in the gateway's custody lives that names no expiry. IoT Hub's own default
/// (`defaultTtlAsIso8601`, "Understand cloud-to-device messaging").
const LIFE_WITHOUT_EXPIRY: Duration = Duration::from_secs(3600);

/// How long a message is held at least. One that is expired on arrival, be it by this node's clock alone, comes again with
/// the next connection: without this, connections would follow each other as fast as they can be made, and no device
/// would get anything on them.
const SHORTEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use store::{Resolver, ticket};

    use super::*;

    const CONNECTION: ConnectionEpoch = ConnectionEpoch(7);
    const WALL: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

    fn message(expiry: Option<Timestamp>) -> CloudMessage {
        let mut message = CloudMessage::default();
        message.system.expiry = expiry.map(|at| at.to_string());
        message
    }

    /// Offers all that may be offered.
    fn offer(held: &mut Held<u32>) -> Vec<Resolver<Settlement>> {
        let mut resolvers = Vec::new();
        for (id, _) in held.to_offer() {
            let (resolver, ticket) = ticket();
            assert_eq!(held.offered(id, ticket), None);
            resolvers.push(resolver);
        }
        assert_eq!(held.to_offer().len(), 0);
        resolvers
    }

    fn holding(count: u32, now: Instant) -> Held<u32> {
        let mut held = Held::on(CONNECTION, Custody::Hub);
        (0..count).for_each(|receipt| held.arrived(receipt, message(None), now, WALL));
        held
    }

    fn number(number: u64) -> ArrivalId {
        ArrivalId {
            connection: CONNECTION,
            number,
        }
    }

    #[tokio::test]
    async fn at_most_ten_are_offered_and_the_eleventh_follows_a_settlement() {
        let mut held = holding(12, Instant::now());
        let mut resolvers = offer(&mut held);
        assert_eq!(resolvers.len(), 10);
        assert!(!held.is_all_offered());

        resolvers.remove(0).resolve(Settlement::Complete);
        assert_eq!(poll_fn(|cx| held.poll_settlement(cx)).await, Some(0));
        assert_eq!(offer(&mut held).len(), 1);
    }

    #[tokio::test]
    async fn a_settlement_out_of_turn_is_the_gateways_until_its_puback() {
        let mut held = holding(2, Instant::now());
        let mut resolvers = offer(&mut held);

        resolvers.remove(1).resolve(Settlement::Reject);
        assert_eq!(poll_fn(|cx| held.poll_settlement(cx)).await, Some(1));
        assert_eq!(held.next_to_conclude(), Some(number(1)));
        assert_eq!(held.next_to_conclude(), None, "each once");

        resolvers.remove(0).resolve(Settlement::Complete);
        assert_eq!(poll_fn(|cx| held.poll_settlement(cx)).await, Some(0));
        assert_eq!(held.acknowledged(0), Some(number(0)), "the hub's");
        assert_eq!(held.acknowledged(1), None, "concluded before");
        assert_eq!(held.until(), None);
    }

    #[test]
    fn it_is_held_until_its_expiry_and_ten_minutes_at_most() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        for (expires_in, held_for) in [
            (None, 600),
            (Some(3600), 600),
            (Some(180), 180),
            (Some(1), 5),
        ] {
            let mut held = Held::on(CONNECTION, Custody::Hub);
            let expiry = expires_in.map(|after| WALL.saturating_add(seconds(after)));
            held.arrived(1_u32, message(expiry), now, WALL);
            assert_eq!(held.until(), Some(now + seconds(held_for)));
            assert_eq!(held.to_offer().len(), 1);
        }
    }

    #[test]
    fn what_comes_too_late_is_not_offered_and_holds_nothing_up() {
        let now = Instant::now();
        let mut held = Held::on(CONNECTION, Custody::Hub);
        held.arrived(1_u32, message(Some(WALL)), now, WALL);
        assert_eq!(held.to_offer().len(), 0);
        assert!(held.is_all_offered());
        assert_eq!(held.until(), Some(now + SHORTEST));

        held.arrived(2, message(None), now, WALL);
        assert_eq!(offer(&mut held).len(), 1);
    }

    #[test]
    fn in_the_gateways_custody_the_hub_is_told_when_the_inbox_has_it() {
        let now = Instant::now();
        let seconds = |after| WALL.saturating_add(Duration::from_secs(after));
        let mut held = Held::on(CONNECTION, Custody::Gateway);
        for (receipt, expiry, expected) in [
            (1_u32, None, seconds(3600)),
            (2, Some(seconds(7200)), seconds(7200)),
            (3, Some(WALL), WALL),
        ] {
            held.arrived(receipt, message(expiry), now, WALL);
            let (id, arrival) = held.to_offer().pop().expect("it waits");
            let Arrival::Message {
                expires_at,
                is_tied,
                ..
            } = arrival
            else {
                panic!("{arrival:?}");
            };
            assert_eq!((expires_at, is_tied), (Some(expected), false));
            let (_resolver, ticket) = ticket();
            assert_eq!(held.offered(id, ticket), Some(receipt));
            assert_eq!(held.next_to_conclude(), None);
            assert_eq!(held.until(), None);
            assert_eq!(held.acknowledged(receipt), Some(id), "the hub is told");
        }
    }

    #[test]
    fn what_the_store_lets_go_of_is_reported() {
        let mut held = holding(1, Instant::now());
        drop(offer(&mut held));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(held.poll_settlement(&mut cx), Poll::Ready(None));
    }
}
