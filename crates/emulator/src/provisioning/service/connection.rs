//! One MQTT connection: CONNECT, the answers' subscription, requests, the end.
//!
//! Nothing outlives a connection: there is no session at this service, and CONNACK always says so (.NET's SDK gives up
//! otherwise).

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use mqtt_protocol_core::mqtt::{common::Cursor, packet::Qos, result_code::ConnectReturnCode};

use super::{
    Error, Now, Output, Presented, RegistrationId, Reply, Service, UnknownTopic, error_body,
    topic::{self, Kind, Request},
};
use crate::{
    hub::silence,
    packet::{self, Connect, Decoder, Malformed, Publish, Received},
    x509::Peer,
};

/// Names one connection for as long as the service lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(u64);

/// Why the service ended a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The device said DISCONNECT.
    #[error("the device disconnected")]
    Disconnected,
    /// CONNECT was answered with this code and the text is why.
    #[error("CONNECT refused with code {code}: {why}")]
    Refused {
        /// The code in CONNACK.
        code: u8,
        /// For the log.
        why: &'static str,
    },
    /// A connection with the same client id came later (MQTT 3.1.1, section 3.1.4).
    #[error("a newer connection of the same registration took over")]
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
    /// A PUBLISH with QoS 2.
    #[error("a PUBLISH with QoS 2")]
    Qos2,
    /// A PUBLISH to a topic that the service does not know.
    #[error(transparent)]
    UnknownTopic(#[from] UnknownTopic),
    /// A SUBSCRIBE or UNSUBSCRIBE of another filter than that of the answers.
    #[error("the topic filter is not allowed")]
    FilterNotAllowed,
}

pub(super) struct Connection {
    peer: Peer,
    decoder: Decoder,
    last_packet_at: Instant,
    /// The earliest entry for this connection in the heap of timers.
    wake_at: Option<Instant>,
    phase: Phase,
}

enum Phase {
    AwaitingConnect { deadline: Instant },
    Open(Open),
}

struct Open {
    registration: RegistrationId,
    token: Option<String>,
    /// Silence that ends the connection.
    silence: Duration,
    is_subscribed: bool,
}

impl ConnectionId {
    pub(super) const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl Connection {
    pub(super) fn new(peer: Peer, deadline: Instant, now: Now) -> Self {
        Self {
            peer,
            decoder: Decoder::new(),
            last_packet_at: now.at,
            wake_at: None,
            phase: Phase::AwaitingConnect { deadline },
        }
    }

    fn deadline(&self) -> Instant {
        match &self.phase {
            Phase::AwaitingConnect { deadline } => *deadline,
            Phase::Open(open) => self.last_packet_at + open.silence,
        }
    }

    fn as_open_mut(&mut self) -> Result<&mut Open, CloseReason> {
        match &mut self.phase {
            Phase::AwaitingConnect { .. } => Err(CloseReason::NoConnect),
            Phase::Open(open) => Ok(open),
        }
    }
}

impl Service {
    pub(super) fn receive(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
        let mut input = Cursor::new(bytes);
        while let Some(connection) = self.connections.get_mut(&id) {
            let step = match connection.decoder.next(&mut input) {
                Ok(None) => return,
                Ok(Some(packet)) => {
                    connection.last_packet_at = now.at;
                    self.on_packet(id, packet, now)
                }
                Err(malformed) => Err(malformed.into()),
            };
            if let Err(reason) = step {
                return self.close(id, reason);
            }
        }
    }

    fn on_packet(
        &mut self,
        id: ConnectionId,
        packet: Received,
        now: Now,
    ) -> Result<(), CloseReason> {
        match packet {
            Received::Connect(connect) => self.on_connect(id, connect),
            Received::ConnectOfOtherLevel => Err(self.refuse(
                id,
                ConnectReturnCode::UnacceptableProtocolVersion,
                "the protocol level is not that of MQTT 3.1.1",
            )),
            Received::Publish(publish) => self.on_publish(id, &publish, now),
            // .NET's SDK acknowledges answers of QoS 0, with packet id 0.
            Received::Puback(_) => self.open_mut(id).map(drop),
            Received::Subscribe { packet_id, filters } => {
                let open = self.open_mut(id)?;
                if filters.iter().any(|(filter, _)| filter != topic::ANSWERS) {
                    return Err(CloseReason::FilterNotAllowed);
                }
                open.is_subscribed = true;
                let granted: Vec<_> = filters.into_iter().map(|(_, qos)| qos).collect();
                self.transmit(id, packet::suback(packet_id, &granted));
                Ok(())
            }
            Received::Unsubscribe { packet_id, filters } => {
                let open = self.open_mut(id)?;
                if filters.iter().any(|filter| filter != topic::ANSWERS) {
                    return Err(CloseReason::FilterNotAllowed);
                }
                open.is_subscribed = false;
                self.transmit(id, packet::unsuback(packet_id));
                Ok(())
            }
            Received::Pingreq => {
                self.open_mut(id)?;
                self.transmit(id, packet::pingresp());
                Ok(())
            }
            Received::Disconnect => Err(CloseReason::Disconnected),
        }
    }

    /// Who it is must be said, and be said twice; whether it is true is judged with each request
    /// (see [`attestation`](super::attestation)). A will is not kept: there is nowhere to send it.
    fn on_connect(&mut self, id: ConnectionId, connect: Connect) -> Result<(), CloseReason> {
        if self.open_mut(id).is_ok() {
            return Err(CloseReason::SecondConnect);
        }
        let registration = match self.read_connect(id, &connect) {
            Ok(registration) => registration,
            Err(why) => return Err(self.refuse(id, ConnectReturnCode::NotAuthorized, why)),
        };
        if let Some(older) = self.clients.insert(registration.clone(), id) {
            self.close(older, CloseReason::TakenOver);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.phase = Phase::Open(Open {
                registration,
                token: connect.password.filter(|password| !password.is_empty()),
                silence: silence(connect.keep_alive_s),
                is_subscribed: false,
            });
        }
        self.transmit(id, packet::connack(ConnectReturnCode::Accepted, false));
        Ok(())
    }

    /// `{idScope}/registrations/{registrationId}/api-version=...` ("Communicate with DPS using the MQTT protocol").
    fn read_connect(
        &self,
        id: ConnectionId,
        connect: &Connect,
    ) -> Result<RegistrationId, &'static str> {
        let username = connect.username.as_deref().ok_or("no username")?;
        let mut parts = username.splitn(4, '/');
        let (Some(scope), Some("registrations"), Some(registration)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err("the username is not {idScope}/registrations/{registrationId}/...");
        };
        if !self.config.id_scope.is(scope) {
            return Err("the username names another id scope");
        }
        // azure-docs issue 69882: refused with code 5.
        if connect.client_id != registration {
            return Err("the client id is not the registration in the username");
        }
        let has_certificate = self
            .connections
            .get(&id)
            .is_some_and(|connection| !connection.peer.certificates().is_empty());
        let has_token = connect.password.as_ref().is_some_and(|p| !p.is_empty());
        if !has_certificate && !has_token {
            return Err("neither a token nor a certificate");
        }
        registration
            .parse()
            .map_err(|_| "the registration id breaks its rules")
    }

    /// PUBACK first, which .NET's SDK insists on.
    fn on_publish(
        &mut self,
        id: ConnectionId,
        publish: &Publish,
        now: Now,
    ) -> Result<(), CloseReason> {
        let open = self.open_mut(id)?;
        if publish.qos == Qos::ExactlyOnce {
            return Err(CloseReason::Qos2);
        }
        let request = Request::parse(&publish.topic)?;
        let is_subscribed = open.is_subscribed;
        if let Some(packet_id) = publish.packet_id {
            self.transmit(id, packet::puback(packet_id));
        }
        // Nobody could hear the answer.
        if !is_subscribed {
            return Ok(());
        }
        let (status, retry_after_s, body) = match self.perform(id, &request, publish, now)? {
            Ok(reply) => (reply.status, reply.retry_after_s, reply.body.to_string()),
            Err(error) => {
                let (code, tracking_id) = (error.code, self.random.guid());
                let body = error_body(code.number(), &error.message, &tracking_id, now.utc);
                (code.status(), error.retry_after_s, body.to_string())
            }
        };
        // QoS 0, whatever was granted (freertos-samples issue 393).
        let topic = topic::answer(status, request.rid, retry_after_s);
        self.transmit(id, packet::publish(&topic, body.as_bytes()));
        Ok(())
    }

    fn perform(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
        publish: &Publish,
        now: Now,
    ) -> Result<Result<Reply, Error>, CloseReason> {
        let connection = self
            .connections
            .get_mut(&id)
            .ok_or(CloseReason::NoConnect)?;
        let peer = connection.peer.clone();
        let open = connection.as_open_mut()?;
        let (registration, token) = (open.registration.clone(), open.token.clone());
        let presented = Presented {
            token: token.as_deref(),
            peer: &peer,
        };
        Ok(match request.kind {
            Kind::Register => self.register(&registration, presented, &publish.payload, now),
            Kind::Status { operation } => {
                self.operation_status(&registration, presented, operation, now)
            }
        })
    }

    /// Looks at the deadline of a connection; a timer that fired for nothing changes nothing.
    pub(super) fn on_timer(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.wake_at = None;
        let reason = match &connection.phase {
            Phase::AwaitingConnect { .. } => CloseReason::ConnectTimeout,
            Phase::Open(_) => CloseReason::KeepAliveTimeout,
        };
        if connection.deadline() <= now.at {
            self.close(id, reason);
        } else {
            self.schedule(id);
        }
    }

    pub(super) fn schedule(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let deadline = connection.deadline();
        if connection.wake_at.is_none_or(|wake_at| deadline < wake_at) {
            connection.wake_at = Some(deadline);
            self.timers.push(Reverse((deadline, id)));
        }
    }

    /// Forgets a connection. False if it was forgotten already.
    pub(super) fn forget(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.remove(&id) else {
            return false;
        };
        if let Phase::Open(open) = connection.phase
            && self.clients.get(&open.registration) == Some(&id)
        {
            self.clients.remove(&open.registration);
        }
        true
    }

    fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        if self.forget(connection) {
            self.outputs.push_back(Output::Close { connection, reason });
        }
    }

    /// Answers CONNECT with a code; the reason that is returned closes the connection.
    fn refuse(
        &mut self,
        id: ConnectionId,
        code: ConnectReturnCode,
        why: &'static str,
    ) -> CloseReason {
        self.transmit(id, packet::connack(code, false));
        CloseReason::Refused {
            code: code as u8,
            why,
        }
    }

    fn open_mut(&mut self, id: ConnectionId) -> Result<&mut Open, CloseReason> {
        let connection = self.connections.get_mut(&id);
        connection.ok_or(CloseReason::NoConnect)?.as_open_mut()
    }

    /// Queues a packet; those that follow each other on one connection become one write.
    fn transmit(&mut self, connection: ConnectionId, mut packet: Vec<u8>) {
        if let Some(Output::Transmit {
            connection: last,
            bytes,
        }) = self.outputs.back_mut()
            && *last == connection
        {
            bytes.append(&mut packet);
            return;
        }
        self.outputs.push_back(Output::Transmit {
            connection,
            bytes: packet,
        });
    }
}
