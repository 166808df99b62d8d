//! One MQTT connection: packets in, their order and their deadlines, the end.
//!
//! ```text
//! accept ─▶ AwaitingConnect ──CONNECT accepted──▶ Open ──▶ gone
//!                 └──refused, silent, anything else──────▶ gone
//! ```

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use iothub::{Identity, Telemetry, Timestamp, limits, topic::ToHub};
use mqtt_protocol_core::mqtt::{common::Cursor, packet::Qos, result_code::ConnectReturnCode};

use super::{
    ConnectionId, Hub, Now, Output,
    faults::{Faults, PubackFault},
    methods::OpenCalls,
    packet::{self, Decoder, Publish, Received},
    telemetry::Stamps,
    timers::Timer,
};
use crate::x509::Peer;

pub use super::packet::Malformed;

/// Why the hub ended a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The device said DISCONNECT.
    #[error("the device disconnected")]
    Disconnected,
    /// The device or the network closed it.
    #[error("the connection was closed from outside")]
    Peer,
    /// CONNECT was answered with this code and the text is why.
    #[error("CONNECT refused with code {code}: {why}")]
    Refused {
        /// The code in CONNACK.
        code: u8,
        /// For the hub's log.
        why: String,
    },
    /// A connection of the same identity came later.
    #[error("a newer connection of the same identity took over")]
    TakenOver,
    /// Bytes that are no packet.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Another packet came before CONNECT.
    #[error("a packet came before CONNECT")]
    NoConnect,
    /// A second CONNECT.
    #[error("a second CONNECT")]
    SecondConnect,
    /// No CONNECT in time.
    #[error("no CONNECT in time")]
    ConnectTimeout,
    /// No packet within one and a half times the keep-alive.
    #[error("no packet within the keep-alive time")]
    KeepAliveTimeout,
    /// The token that opened it has expired.
    #[error("the token has expired")]
    TokenExpired,
    /// The device was disabled, or the device that the module belongs to.
    #[error("the device was disabled")]
    DeviceDisabled,
    /// The device or module was deleted.
    #[error("the identity was deleted")]
    IdentityDeleted,
    /// A PUBLISH with QoS 2.
    #[error("a PUBLISH with QoS 2")]
    Qos2,
    /// A PUBLISH to a topic that the hub does not know.
    #[error("topic: {0}")]
    UnknownTopic(#[from] iothub::topic::ParseTopicError),
    /// A PUBLISH to another identity's topic.
    #[error("a PUBLISH to the telemetry topic of another identity")]
    ForeignTopic,
    /// A will for another topic than the device's own telemetry.
    #[error("the will is no telemetry of this identity")]
    BadWill,
    /// A message over its limit.
    #[error("a message is larger than it may be")]
    MessageTooLarge,
    /// A SUBSCRIBE or UNSUBSCRIBE of a filter that is not for this identity.
    #[error("the topic filter is not allowed")]
    FilterNotAllowed,
    /// One subscription too many.
    #[error("more than five subscriptions")]
    TooManySubscriptions,
    /// Cloud-to-device messages were acknowledged in another order than they were sent.
    #[error("PUBACKs out of order")]
    PubackOutOfOrder,
    /// A fault that somebody asked for.
    #[error("dropped on request")]
    Dropped,
    /// A fault that somebody asked for: the hub is not there.
    #[error("the hub cannot be reached, on request")]
    Unreachable,
    /// A fault that somebody asked for: the hub is at another address now.
    #[error("the hub has moved to its other address, on request")]
    Moved,
    /// 429002: telemetry waited too long for its turn.
    #[error("throttled: the backlog is full")]
    Throttled,
    /// 403002: the messages of the day are spent.
    #[error("the messages of the day are spent")]
    QuotaExceeded,
}

pub(super) struct Connection {
    decoder: Decoder,
    last_packet_at: Instant,
    /// The earliest entry for this connection in the heap of timers.
    wake_at: Option<Instant>,
    /// Neither read nor written for a time (a fault).
    frozen: Option<Box<Frozen>>,
    phase: Phase,
}

enum Phase {
    AwaitingConnect { peer: Peer, deadline: Instant },
    Open(Box<Open>),
}

/// A connection that nobody looks at.
struct Frozen {
    until: Instant,
    /// What came in all the same.
    input: Vec<u8>,
}

/// Packets that are held back, each until its time and in order.
#[derive(Default)]
pub(super) struct Held(VecDeque<(Instant, Vec<u8>)>);

/// A connection whose CONNECT was accepted.
pub(super) struct Open {
    pub(super) identity: Identity,
    pub(super) stamps: Stamps,
    /// Without an api-version the hub refuses reported properties (andriyadi PR 5).
    pub(super) has_api_version: bool,
    /// Silence that ends the connection.
    pub(super) silence: Duration,
    /// None if it was a certificate that opened it: whether the hub ends such a connection is not documented.
    pub(super) token_expires_at: Option<Timestamp>,
    pub(super) will: Option<Telemetry>,
    pub(super) calls: OpenCalls,
    pub(super) last_activity_at: Timestamp,
    /// Cloud-to-device messages are held back until then (a fault).
    pub(super) messages_held_until: Option<Instant>,
    /// Acknowledgements that are held back.
    pub(super) held_pubacks: Held,
    /// Answers to twin requests that are held back.
    pub(super) held_answers: Held,
    /// Telemetry is not taken, and the connection closed then.
    pub(super) throttled_until: Option<Instant>,
}

impl Connection {
    pub(super) fn new(peer: Peer, deadline: Instant, now: Now) -> Self {
        Self {
            decoder: Decoder::new(),
            last_packet_at: now.at,
            wake_at: None,
            frozen: None,
            phase: Phase::AwaitingConnect { peer, deadline },
        }
    }

    pub(super) fn open(&mut self, open: Open) {
        self.phase = Phase::Open(Box::new(open));
    }

    pub(super) fn last_activity_at(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::AwaitingConnect { .. } => None,
            Phase::Open(open) => Some(open.last_activity_at),
        }
    }

    pub(super) fn wants_input(&self) -> bool {
        let held = match &self.phase {
            Phase::AwaitingConnect { .. } => 0,
            Phase::Open(open) => open.held_pubacks.len() + open.held_answers.len(),
        };
        self.frozen.is_none() && held < limits::TELEMETRY_WINDOW
    }

    /// Who opened it, before CONNECT says whom it speaks for.
    pub(super) fn peer(&self) -> Peer {
        match &self.phase {
            Phase::AwaitingConnect { peer, .. } => peer.clone(),
            Phase::Open(_) => Peer::ANONYMOUS,
        }
    }

    /// Whose it is, once CONNECT was accepted.
    fn identity(&self) -> Option<&Identity> {
        match &self.phase {
            Phase::AwaitingConnect { .. } => None,
            Phase::Open(open) => Some(&open.identity),
        }
    }

    pub(super) fn as_open_mut(&mut self) -> Option<&mut Open> {
        match &mut self.phase {
            Phase::AwaitingConnect { .. } => None,
            Phase::Open(open) => Some(open),
        }
    }

    fn deadline(&self, grace: Duration, now: Now) -> Instant {
        if let Some(frozen) = &self.frozen {
            return frozen.until;
        }
        match &self.phase {
            Phase::AwaitingConnect { deadline, .. } => *deadline,
            Phase::Open(open) => {
                let silent = self.last_packet_at + open.silence;
                let expires_at = open.token_expires_at;
                let expired = expires_at.map(|at| now.instant_of(at.saturating_add(grace)));
                let held = [&open.held_pubacks, &open.held_answers].map(Held::next_due);
                held.into_iter()
                    .chain([expired, open.messages_held_until, open.throttled_until])
                    .flatten()
                    .fold(silent, Instant::min)
            }
        }
    }
}

impl Held {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn next_due(&self) -> Option<Instant> {
        self.0.front().map(|(due, _)| *due)
    }

    fn pop_due(&mut self, now: Now) -> Option<Vec<u8>> {
        let (_, packet) = self.0.pop_front_if(|(due, _)| *due <= now.at)?;
        Some(packet)
    }

    /// Keeps a packet for its time, and for its turn; gives it back if that is now.
    pub(super) fn hold(&mut self, packet: Vec<u8>, delay: Duration, now: Now) -> Option<Vec<u8>> {
        if delay.is_zero() && self.0.is_empty() {
            return Some(packet);
        }
        self.0.push_back((now.at + delay, packet));
        None
    }
}

impl Hub {
    pub(super) fn receive(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
        if let Some(connection) = self.connections.get_mut(&id)
            && let Some(frozen) = &mut connection.frozen
        {
            return frozen.input.extend_from_slice(bytes);
        }
        let mut input = Cursor::new(bytes);
        while let Some(connection) = self.connections.get_mut(&id) {
            let step = match connection.decoder.next(&mut input) {
                Ok(None) => return,
                Ok(Some(packet)) => {
                    // The MQTT page: any packet proves that the client is alive.
                    connection.last_packet_at = now.at;
                    self.on_packet(id, packet, now)
                }
                Err(malformed) => Err(malformed.into()),
            };
            if let Err(reason) = step {
                return self.close(id, reason, now);
            }
        }
    }

    fn on_packet(
        &mut self,
        id: ConnectionId,
        packet: Received,
        now: Now,
    ) -> Result<(), CloseReason> {
        let is_open = self.open_mut(id).is_some();
        match packet {
            Received::Connect(_) | Received::ConnectOfOtherLevel if is_open => {
                Err(CloseReason::SecondConnect)
            }
            Received::Connect(connect) => self.on_connect(id, connect, now),
            Received::ConnectOfOtherLevel => Err(self.refuse(
                id,
                ConnectReturnCode::UnacceptableProtocolVersion,
                "the protocol level is not that of MQTT 3.1.1",
            )),
            Received::Publish(publish) => self.on_publish(id, publish, now),
            Received::Puback(packet_id) => self.on_puback(id, packet_id, now),
            Received::Subscribe { packet_id, filters } => {
                self.on_subscribe(id, packet_id, filters, now)
            }
            Received::Unsubscribe { packet_id, filters } => {
                self.on_unsubscribe(id, packet_id, &filters, now)
            }
            Received::Pingreq if is_open => {
                self.outputs.transmit(id, packet::pingresp());
                Ok(())
            }
            Received::Pingreq => Err(CloseReason::NoConnect),
            Received::Disconnect => Err(CloseReason::Disconnected),
        }
    }

    fn on_publish(
        &mut self,
        id: ConnectionId,
        publish: Publish,
        now: Now,
    ) -> Result<(), CloseReason> {
        self.speaker(id)?;
        // The MQTT page: a message with QoS 2 closes the connection.
        if publish.qos == Qos::ExactlyOnce {
            return Err(CloseReason::Qos2);
        }
        let is_poison = self.fault(id, |faults, identity| {
            faults.on_payload(identity, &publish.payload, now)
        });
        if is_poison.is_some() {
            return Err(CloseReason::Dropped);
        }
        let open = self.open_mut(id).ok_or(CloseReason::NoConnect)?;
        // A topic that the hub does not know: what happens is not documented, to close is the safe model.
        match ToHub::parse(&publish.topic)? {
            ToHub::Telemetry {
                device,
                module,
                bag,
            } => {
                let identity = &open.identity;
                if *identity.device_id() != device || identity.module_id() != module.as_ref() {
                    return Err(CloseReason::ForeignTopic);
                }
                let mut message = Telemetry::from_bag(&bag, publish.payload);
                if publish.is_retained {
                    message.properties.push(super::telemetry::retained());
                }
                if let Some(delay) = self.on_telemetry(id, message, now)? {
                    self.acknowledge(id, publish.packet_id, delay, now);
                }
            }
            ToHub::TwinGet { rid } => {
                self.acknowledge(id, publish.packet_id, Duration::ZERO, now);
                self.on_twin_get(id, rid, now);
            }
            ToHub::TwinPatchReported { rid } => {
                self.acknowledge(id, publish.packet_id, Duration::ZERO, now);
                self.on_patch_reported(id, rid, &publish.payload, now);
            }
            ToHub::MethodResponse { status, rid } => {
                self.acknowledge(id, publish.packet_id, Duration::ZERO, now);
                self.on_method_response(id, status, &rid, publish.payload, now);
            }
        }
        Ok(())
    }

    /// Acknowledges a PUBLISH that was taken. Acknowledgements keep the order of the PUBLISHes (the protocol gateway
    /// does so), also when some are held back.
    fn acknowledge(
        &mut self,
        id: ConnectionId,
        packet_id: Option<u16>,
        mut delay: Duration,
        now: Now,
    ) {
        let Some(packet_id) = packet_id else {
            return;
        };
        let mut packet = packet::puback(packet_id);
        match self.fault(id, |faults, identity| faults.on_puback(identity, now)) {
            Some(PubackFault::Swallow) => return,
            Some(PubackFault::Delay(asked)) => delay += asked,
            Some(PubackFault::Duplicate) => packet.extend_from_within(..),
            None => {}
        }
        let Some(open) = self.open_mut(id) else {
            return;
        };
        if let Some(packet) = open.held_pubacks.hold(packet, delay, now) {
            self.outputs.transmit(id, packet);
        }
    }

    /// What of the faults is for the identity of a connection; costs nothing while there are none.
    pub(super) fn fault<T>(
        &mut self,
        id: ConnectionId,
        pick: impl FnOnce(&mut Faults, &Identity) -> Option<T>,
    ) -> Option<T> {
        if self.faults.is_empty() {
            return None;
        }
        let identity = self.speaker(id).ok()?;
        pick(&mut self.faults, &identity)
    }

    /// Neither reads from a connection nor writes to it for a time.
    pub(super) fn freeze(&mut self, id: ConnectionId, until: Instant, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let input = connection.frozen.take().map(|frozen| frozen.input);
        connection.frozen = Some(Box::new(Frozen {
            until,
            input: input.unwrap_or_default(),
        }));
        connection.wake_at = None;
        self.outputs.freeze(id);
        self.schedule_connection(id, now);
    }

    /// Goes on where a freeze began. Silence counts from here: nobody has listened before.
    fn thaw(&mut self, id: ConnectionId, input: &[u8], now: Now) {
        if self.outputs.is_overfull(id) {
            return self.close(id, CloseReason::Dropped, now);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.last_packet_at = now.at;
        }
        self.outputs.thaw(id);
        self.receive(id, input, now);
    }

    /// Looks at all deadlines of a connection; a timer that fired for nothing changes nothing.
    pub(super) fn on_connection_timer(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.wake_at = None;
        if let Some(frozen) = connection.frozen.take_if(|frozen| frozen.until <= now.at) {
            self.thaw(id, &frozen.input, now);
            return self.schedule_connection(id, now);
        }
        if connection.frozen.is_some() {
            return self.schedule_connection(id, now);
        }
        let last_packet_at = connection.last_packet_at;
        let reason = match &mut connection.phase {
            Phase::AwaitingConnect { deadline, .. } => {
                (*deadline <= now.at).then_some(CloseReason::ConnectTimeout)
            }
            Phase::Open(open) => {
                for held in [&mut open.held_pubacks, &mut open.held_answers] {
                    while let Some(packet) = held.pop_due(now) {
                        self.outputs.transmit(id, packet);
                    }
                }
                let is_throttled = open.throttled_until.is_some_and(|until| until <= now.at);
                let (silence, expires_at) = (open.silence, open.token_expires_at);
                let held = open.messages_held_until.take_if(|until| *until <= now.at);
                let device = open.identity.device_id().clone();
                if held.is_some() {
                    self.deliver_messages(&device, now);
                }
                if is_throttled {
                    Some(CloseReason::Throttled)
                } else if last_packet_at + silence <= now.at {
                    Some(CloseReason::KeepAliveTimeout)
                } else if expires_at.is_some_and(|at| self.has_expired(at, now)) {
                    // "Understand and resolve Azure IoT Hub errors", 401003: the hub disconnects when the token expires.
                    Some(CloseReason::TokenExpired)
                } else {
                    None
                }
            }
        };
        match reason {
            Some(reason) => self.close(id, reason, now),
            None => self.schedule_connection(id, now),
        }
    }

    pub(super) fn schedule_connection(&mut self, id: ConnectionId, now: Now) {
        let grace = self.config.token_grace;
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let deadline = connection.deadline(grace, now);
        if connection.wake_at.is_none_or(|wake_at| deadline < wake_at) {
            connection.wake_at = Some(deadline);
            self.timers.set(deadline, Timer::Connection(id));
        }
    }

    /// Ends a connection that is still up.
    pub(super) fn close(&mut self, id: ConnectionId, reason: CloseReason, now: Now) {
        let identity = self.connections.get(&id).and_then(Connection::identity);
        if let Some(identity) = identity
            && !matches!(reason, CloseReason::Disconnected)
        {
            tracing::info!(device = %identity.client_id(), %reason, "closed a device's connection");
        }
        if self.detach(id, &reason, now) {
            self.outputs.push(Output::Close {
                connection: id,
                reason,
            });
        }
    }

    /// Forgets a connection and does what its end means for the device. False if it was forgotten already.
    pub(super) fn detach(&mut self, id: ConnectionId, reason: &CloseReason, now: Now) -> bool {
        let Some(connection) = self.connections.remove(&id) else {
            return false;
        };
        self.outputs.forget(id);
        let Phase::Open(open) = connection.phase else {
            return true;
        };
        if let Ok(record) = self.registry.record_mut(&open.identity) {
            record.connection = None;
            record.connection_updated_at = Some(now.utc);
            record.last_activity_at = Some(now.utc);
            // The MQTT page on clean session 1: subscriptions end with the connection.
            record.session.take_if(|session| session.is_clean);
            self.on_messages_interrupted(&open.identity, now);
        }
        // The MQTT page: the will is sent as telemetry when the connection ends abnormally.
        if let Some(will) = open.will.filter(|_| *reason != CloseReason::Disconnected) {
            self.telemetry.push(&open.stamps, will, now);
        }
        true
    }

    pub(super) fn open_mut(&mut self, id: ConnectionId) -> Option<&mut Open> {
        self.connections.get_mut(&id)?.as_open_mut()
    }

    /// Who a connection speaks for.
    pub(super) fn speaker(&mut self, id: ConnectionId) -> Result<Identity, CloseReason> {
        let open = self.open_mut(id).ok_or(CloseReason::NoConnect)?;
        Ok(open.identity.clone())
    }
}
