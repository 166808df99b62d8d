//! The service without sockets: bytes in, bytes out, and a clock that is set.

mod attestation;
mod memory;
mod mqtt;
mod operators;
mod registration;
mod reprovisioning;

use std::time::{Duration, Instant};

use iothub::{Timestamp, sas::Key};
use serde_json::{Value, json};

use super::{
    Assignment, Attestation, Config, ConnectionId, Error, Group, IdScope, Individual, Output,
    Presented, RegistrationId, Reply, Service, Terms,
};
use crate::{
    hub::{self, DeviceKeys, Now, Random},
    x509::Peer,
};

/// A service with the hubs `a.example` and `b.example`, the individual enrollment `reg-1` and the group `group-1`.
struct Rig {
    service: Service,
    now: Now,
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let scope: IdScope = SCOPE.parse().unwrap();
        let mut config = Config::new("dps.example".parse().unwrap(), scope, key());
        config.hubs = ["a.example", "b.example"]
            .map(|n| n.parse().unwrap())
            .into();
        change(&mut config);
        let mut rig = Self {
            service: Service::new(config, Random::seeded(1)),
            now: Now {
                at: Instant::now(),
                utc: Timestamp::from_unix_seconds(EXPIRY - 600),
            },
        };
        rig.enroll("reg-1", |_| {});
        let group = Group {
            terms: Terms::new(symmetric(group_key())),
        };
        rig.service
            .enroll_group(&"group-1".parse().unwrap(), group, rig.now)
            .unwrap();
        rig
    }

    /// An individual enrollment by [`key`].
    fn enroll(&mut self, id: &str, change: impl FnOnce(&mut Individual)) {
        let mut individual = Individual::new(Terms::new(symmetric(key())));
        change(&mut individual);
        self.service.enroll(&reg(id), individual, self.now).unwrap();
    }

    fn advance(&mut self, time: Duration) {
        self.now.at += time;
        self.now.utc = self.now.utc.saturating_add(time);
    }

    fn register(&mut self, id: &str, body: &[u8]) -> Result<Reply, Error> {
        let token = token(id);
        self.service
            .register(&reg(id), by_token(&token), body, self.now)
    }

    fn status(&mut self, id: &str, operation: &str) -> Result<Reply, Error> {
        let token = token(id);
        self.service
            .operation_status(&reg(id), by_token(&token), operation, self.now)
    }

    /// The device that waits to be brought to a hub.
    fn assignment(&mut self) -> Option<Box<Assignment>> {
        match self.service.poll_output() {
            Some(Output::Assign(assignment)) => Some(assignment),
            Some(Output::Transmit { .. } | Output::Close { .. }) | None => None,
        }
    }

    /// Registers, lets the hub say `result`, and returns the device's final answer and what the hub was asked.
    fn provision(
        &mut self,
        id: &str,
        result: Result<(), hub::Error>,
    ) -> (Value, Option<Box<Assignment>>) {
        let reply = self.register(id, b"").unwrap();
        assert_eq!(reply.status, 202);
        let assignment = self.assignment();
        if let Some(assignment) = &assignment {
            self.service.handle_assigned(assignment, result, self.now);
        }
        let reply = self.status(id, reply.operation.as_str()).unwrap();
        assert_eq!((reply.status, reply.retry_after_s), (200, None));
        (reply.body, assignment)
    }

    fn connect(&mut self, bytes: &[u8]) -> (ConnectionId, Vec<Output>) {
        let id = self.service.accept(Peer::ANONYMOUS, self.now);
        let outputs = self.send(id, bytes);
        (id, outputs)
    }

    /// A device that has connected and subscribed.
    fn online(&mut self) -> ConnectionId {
        let (id, _) = self.connect(&connect("reg-1", &username("reg-1"), &token("reg-1")));
        self.send(id, &subscribe("$dps/registrations/res/#"));
        id
    }

    fn send(&mut self, id: ConnectionId, bytes: &[u8]) -> Vec<Output> {
        self.service.handle_input(id, bytes, self.now);
        std::iter::from_fn(|| self.service.poll_output()).collect()
    }
}

fn reg(id: &str) -> RegistrationId {
    id.parse().unwrap()
}

fn by_token(token: &str) -> Presented<'_> {
    Presented {
        token: Some(token),
        peer: &Peer::ANONYMOUS,
    }
}

fn token(id: &str) -> String {
    key().sign(
        &format!("{SCOPE}/registrations/{id}"),
        Some("registration"),
        Timestamp::from_unix_seconds(EXPIRY),
    )
}

/// The key of the protocol's vectors: bytes 0 to 31.
fn key() -> Key {
    Key::from_bytes((0..32).collect()).unwrap()
}

fn group_key() -> Key {
    Key::from_bytes((32..64).collect()).unwrap()
}

fn symmetric(key: Key) -> Attestation {
    Attestation::SymmetricKey(DeviceKeys {
        secondary: key.derive("secondary"),
        primary: key,
    })
}

fn username(id: &str) -> String {
    format!("{SCOPE}/registrations/{id}/api-version=2019-03-31&ClientVersion=test")
}

/// A CONNECT with clean session 1 and keep-alive 60, written out from MQTT 3.1.1, section 3.1.
fn connect(client_id: &str, username: &str, password: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x3c".to_vec();
    for field in [client_id, username, password] {
        body.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
        body.extend(field.as_bytes());
    }
    packet(0x10, &body)
}

fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
    body.extend(filter.as_bytes());
    body.push(1);
    packet(0x82, &body)
}

/// A PUBLISH with QoS 1 and packet id 2.
fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    body.extend([0, 2]);
    body.extend(payload);
    packet(0x32, &body)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        bytes.push(u8::try_from(length % 128).unwrap() | more);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

fn enrollment(more: Value) -> Value {
    let mut body = json!({ "attestation": { "type": "symmetricKey" } });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

const SCOPE: &str = "0ne00000000";
/// `se` of the protocol's vectors: 2026-01-01T00:00:00Z.
const EXPIRY: i64 = 1_767_225_600;
