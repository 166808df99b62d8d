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

use iothub::{Identity, Telemetry, Timestamp, topic::ToHub};
use mqtt_protocol_core::mqtt::{common::Cursor, packet::Qos, result_code::ConnectReturnCode};

use super::{
    ConnectionId, Hub, Now, Output,
    faults::PubackFault,
    methods::OpenCalls,
    packet::{self, Decoder, Publish, Received},
    telemetry::Stamps,
    timers::Timer,
};

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
}

pub(super) struct Connection {
    decoder: Decoder,
    last_packet_at: Instant,
    /// The earliest entry for this connection in the heap of timers.
    wake_at: Option<Instant>,
    phase: Phase,
}

enum Phase {
    AwaitingConnect { deadline: Instant },
    Open(Box<Open>),
}

/// A connection whose CONNECT was accepted.
pub(super) struct Open {
    pub(super) identity: Identity,
    pub(super) stamps: Stamps,
    /// Without an api-version the hub refuses reported properties (andriyadi PR 5).
    pub(super) has_api_version: bool,
    /// Silence that ends the connection.
    pub(super) silence: Duration,
    pub(super) token_expires_at: Timestamp,
    pub(super) will: Option<Telemetry>,
    pub(super) calls: OpenCalls,
    pub(super) last_activity_at: Timestamp,
    /// Cloud-to-device messages are held back until then (a fault).
    pub(super) messages_held_until: Option<Instant>,
    /// Acknowledgements that are held back (a fault), each until its time and in order.
    pub(super) held_pubacks: VecDeque<(Instant, u16)>,
}

impl Connection {
    pub(super) fn new(deadline: Instant, now: Now) -> Self {
        Self {
            decoder: Decoder::new(),
            last_packet_at: now.at,
            wake_at: None,
            phase: Phase::AwaitingConnect { deadline },
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

    pub(super) fn held_pubacks(&self) -> usize {
        match &self.phase {
            Phase::AwaitingConnect { .. } => 0,
            Phase::Open(open) => open.held_pubacks.len(),
        }
    }

    pub(super) fn as_open_mut(&mut self) -> Option<&mut Open> {
        match &mut self.phase {
            Phase::AwaitingConnect { .. } => None,
            Phase::Open(open) => Some(open),
        }
    }

    fn deadline(&self, grace: Duration, now: Now) -> Instant {
        match &self.phase {
            Phase::AwaitingConnect { deadline } => *deadline,
            Phase::Open(open) => {
                let silent = self.last_packet_at + open.silence;
                let expired = now.instant_of(open.token_expires_at.saturating_add(grace));
                let puback = open.held_pubacks.front().map(|(due, _)| *due);
                [puback, open.messages_held_until]
                    .into_iter()
                    .flatten()
                    .fold(silent.min(expired), Instant::min)
            }
        }
    }
}

impl Hub {
    pub(super) fn receive(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
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
                self.on_unsubscribe(id, packet_id, &filters)
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
        let open = self.open_mut(id).ok_or(CloseReason::NoConnect)?;
        // The MQTT page: a message with QoS 2 closes the connection.
        if publish.qos == Qos::ExactlyOnce {
            return Err(CloseReason::Qos2);
        }
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
                self.on_telemetry(id, message, now)?;
                self.acknowledge(id, publish.packet_id, now);
            }
            ToHub::TwinGet { rid } => {
                self.acknowledge(id, publish.packet_id, now);
                self.on_twin_get(id, rid, now);
            }
            ToHub::TwinPatchReported { rid } => {
                self.acknowledge(id, publish.packet_id, now);
                self.on_patch_reported(id, rid, &publish.payload, now);
            }
            ToHub::MethodResponse { status, rid } => {
                self.acknowledge(id, publish.packet_id, now);
                self.on_method_response(id, status, &rid, publish.payload);
            }
        }
        Ok(())
    }

    /// Acknowledges a PUBLISH that was taken. Acknowledgements keep the order of the PUBLISHes (the protocol gateway
    /// does so), also when some are held back.
    fn acknowledge(&mut self, id: ConnectionId, packet_id: Option<u16>, now: Now) {
        let (Some(packet_id), Ok(identity)) = (packet_id, self.speaker(id)) else {
            return;
        };
        let delay = match self.faults.on_puback(&identity) {
            Some(PubackFault::Swallow) => return,
            Some(PubackFault::Delay(delay)) => delay,
            None => Duration::ZERO,
        };
        let Some(open) = self.open_mut(id) else {
            return;
        };
        if delay.is_zero() && open.held_pubacks.is_empty() {
            self.outputs.transmit(id, packet::puback(packet_id));
        } else {
            open.held_pubacks.push_back((now.at + delay, packet_id));
        }
    }

    /// Looks at all deadlines of a connection; a timer that fired for nothing changes nothing.
    pub(super) fn on_connection_timer(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.wake_at = None;
        let last_packet_at = connection.last_packet_at;
        let reason = match &mut connection.phase {
            Phase::AwaitingConnect { deadline } => {
                (*deadline <= now.at).then_some(CloseReason::ConnectTimeout)
            }
            Phase::Open(open) => {
                while let Some((_, packet_id)) =
                    open.held_pubacks.pop_front_if(|(due, _)| *due <= now.at)
                {
                    self.outputs.transmit(id, packet::puback(packet_id));
                }
                let (silence, expires_at) = (open.silence, open.token_expires_at);
                let held = open.messages_held_until.take_if(|until| *until <= now.at);
                let device = open.identity.device_id().clone();
                if held.is_some() {
                    self.deliver_messages(&device, now);
                }
                if last_packet_at + silence <= now.at {
                    Some(CloseReason::KeepAliveTimeout)
                } else if self.has_expired(expires_at, now) {
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
