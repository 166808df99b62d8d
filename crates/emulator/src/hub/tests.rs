//! The hub's rules, one test each. A [`Rig`] is a hub with a clock of its own; what a device sends is written by the
//! library's client packets or by hand, what it gets is read back packet by packet.

mod bulk;
mod bytes;
mod connect;
mod device_api;
mod faults;
mod feedback;
mod files;
mod jobs;
mod messages;
mod methods;
mod modules;
mod query;
mod registry;
mod snapshot;
mod telemetry;
mod tier;
mod twin;
mod x509;

use std::time::{Duration, Instant};

use ::bytes::Bytes;
use iothub::{DeviceId, Identity, Timestamp, connect::Username, sas, sas::Key};
use mqtt_protocol_core::mqtt::{
    common::Cursor,
    connection::{PacketBuildResult, PacketBuilder, PacketData},
    packet::{Qos, SubEntry, SubOpts, v3_1_1},
};
use serde_json::{Map, Value};

use super::*;

/// A hub named as in the protocol's test vectors, and the clock.
struct Rig {
    hub: Hub,
    now: Now,
}

/// What a device gets.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Got {
    Connack { code: u8, session_present: bool },
    Publish(Message),
    Puback(u16),
    Suback(u16, Vec<u8>),
    Unsuback(u16),
    Pingresp,
    Closed(CloseReason),
}

#[derive(Debug, PartialEq, Eq, Clone)]
struct Message {
    topic: String,
    payload: String,
    qos: u8,
    packet_id: Option<u16>,
    dup: bool,
}

/// How a device says CONNECT.
struct Hello {
    client_id: String,
    username: String,
    password: String,
    is_clean: bool,
    keep_alive_s: u16,
    will: Option<(String, String, Qos, bool)>,
}

impl Rig {
    /// With one device, `dev1`, whose primary key is that of the test vectors.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut random = Random::seeded(7);
        let mut config = Config::new(HUB.parse().unwrap(), Policy::defaults(&mut random));
        change(&mut config);
        let mut rig = Self {
            hub: Hub::new(config, random),
            now: Now {
                at: Instant::now(),
                // A year before the expiry of the test vectors' tokens.
                utc: Timestamp::from_unix_seconds(1_735_689_600),
            },
        };
        rig.add_device("dev1");
        rig
    }

    fn add_device(&mut self, id: &str) {
        let keys = DeviceKeys {
            primary: key(),
            secondary: Key::from_bytes(vec![9; 32]).unwrap(),
        };
        let spec = DeviceSpec {
            authentication: Some(keys.into()),
            ..DeviceSpec::default()
        };
        self.hub
            .create_device(&id.parse().unwrap(), spec, self.now)
            .unwrap();
    }

    /// Moves both clocks and lets every timer fire on the way.
    fn wait(&mut self, duration: Duration) {
        let end = self.now.at + duration;
        while let Some(at) = self.hub.poll_timeout().filter(|at| *at <= end) {
            self.set(at.max(self.now.at));
            self.hub.handle_timeout(self.now);
        }
        self.set(end);
    }

    fn set(&mut self, at: Instant) {
        self.now.utc = self.now.utc.saturating_add(at - self.now.at);
        self.now.at = at;
    }

    fn accept(&mut self) -> ConnectionId {
        self.hub.accept(Peer::ANONYMOUS, self.now)
    }

    /// Connects `dev1` and returns the connection with all that came at once.
    fn connect(&mut self) -> (ConnectionId, Vec<Got>) {
        self.say(&Hello::dev1())
    }

    fn say(&mut self, hello: &Hello) -> (ConnectionId, Vec<Got>) {
        let id = self.accept();
        let got = self.send(id, &hello.packet());
        (id, got)
    }

    /// Connects `dev1` with a new session that has these subscriptions.
    fn subscribed(&mut self, filters: &[(&str, u8)]) -> ConnectionId {
        let (id, _) = self.connect();
        let got = self.send(id, &subscribe(1, filters));
        assert!(matches!(got[0], Got::Suback(1, _)), "{got:?}");
        id
    }

    fn send(&mut self, id: ConnectionId, bytes: &[u8]) -> Vec<Got> {
        self.hub.handle_input(id, bytes, self.now);
        self.got(id)
    }

    /// All that has come for one connection; what has come for others is dropped.
    fn got(&mut self, id: ConnectionId) -> Vec<Got> {
        let mut got = Vec::new();
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Transmit { connection, bytes } if connection == id => {
                    got.extend(read(&bytes));
                }
                Output::Close { connection, reason } if connection == id => {
                    got.push(Got::Closed(reason));
                }
                Output::Transmit { .. } | Output::Close { .. } | Output::MethodDone { .. } => {}
            }
        }
        got
    }

    fn done(&mut self) -> Vec<(CallId, Result<MethodResponse, Error>)> {
        let mut done = Vec::new();
        while let Some(output) = self.hub.poll_output() {
            if let Output::MethodDone { call, result } = output {
                done.push((call, result));
            }
        }
        done
    }
}

impl Hello {
    fn dev1() -> Self {
        Self::of("dev1")
    }

    fn of(id: &str) -> Self {
        let identity = whom(id);
        Self {
            client_id: identity.client_id(),
            username: Username::new(identity.clone(), None).encode(),
            password: key().sign(&sas::resource(&identity), None, expiry()),
            is_clean: false,
            keep_alive_s: 240,
            will: None,
        }
    }

    fn packet(&self) -> Vec<u8> {
        let mut builder = v3_1_1::Connect::builder()
            .client_id(&self.client_id)
            .unwrap()
            .clean_session(self.is_clean)
            .keep_alive(self.keep_alive_s)
            .user_name(&self.username)
            .unwrap()
            .password(self.password.as_bytes().to_vec())
            .unwrap();
        if let Some((topic, payload, qos, retain)) = &self.will {
            builder = builder
                .will_message(topic, payload.as_bytes().to_vec(), *qos, *retain)
                .unwrap();
        }
        builder.build().unwrap().to_continuous_buffer()
    }
}

impl Got {
    fn accepted(session_present: bool) -> Self {
        Self::Connack {
            code: 0,
            session_present,
        }
    }

    fn message(&self) -> &Message {
        let Self::Publish(message) = self else {
            panic!("not a PUBLISH: {self:?}")
        };
        message
    }
}

fn subscribe(packet_id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let entries: Vec<_> = filters
        .iter()
        .map(|(filter, qos)| {
            let qos = Qos::try_from(*qos).unwrap();
            SubEntry::new(*filter, SubOpts::new().set_qos(qos)).unwrap()
        })
        .collect();
    let packet = v3_1_1::Subscribe::builder()
        .packet_id(packet_id)
        .entries(entries)
        .build();
    packet.unwrap().to_continuous_buffer()
}

fn unsubscribe(packet_id: u16, filter: &str) -> Vec<u8> {
    let packet = v3_1_1::Unsubscribe::builder()
        .packet_id(packet_id)
        .entries(vec![filter])
        .unwrap()
        .build();
    packet.unwrap().to_continuous_buffer()
}

/// A PUBLISH with QoS 1, or QoS 0 if there is no packet id.
fn publish(topic: &str, payload: &[u8], packet_id: Option<u16>) -> Vec<u8> {
    match packet_id {
        None => packet::publish(topic, payload),
        Some(id) => packet::publish_acknowledged(topic, payload, id, false),
    }
}

fn puback(packet_id: u16) -> Vec<u8> {
    packet::puback(packet_id)
}

const DISCONNECT: [u8; 2] = [0xe0, 0];
const PINGREQ: [u8; 2] = [0xc0, 0];

fn read(bytes: &[u8]) -> Vec<Got> {
    let mut builder = PacketBuilder::new();
    let mut cursor = Cursor::new(bytes);
    let mut got = Vec::new();
    while let PacketBuildResult::Complete(raw) = builder.feed(&mut cursor) {
        let data = raw.data_as_slice();
        let id = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
        got.push(match raw.packet_type() {
            2 => Got::Connack {
                code: data[1],
                session_present: data[0] == 1,
            },
            3 => {
                let PacketData::Publish(data) = &raw.data else {
                    panic!("a PUBLISH is kept as one")
                };
                let (p, _) = v3_1_1::Publish::parse(raw.flags(), data.clone()).unwrap();
                Got::Publish(Message {
                    topic: p.topic_name().to_owned(),
                    payload: String::from_utf8(p.payload().as_slice().to_vec()).unwrap(),
                    qos: p.qos() as u8,
                    packet_id: p.packet_id(),
                    dup: p.dup(),
                })
            }
            4 => Got::Puback(id(0)),
            9 => Got::Suback(id(0), data[2..].to_vec()),
            11 => Got::Unsuback(id(0)),
            13 => Got::Pingresp,
            other => panic!("a hub does not send packets of type {other}"),
        });
    }
    got
}

fn primary(authentication: &Authentication) -> &Key {
    &authentication.keys().unwrap().primary
}

fn key() -> Key {
    Key::from_bytes((0..32).collect()).unwrap()
}

fn expiry() -> Timestamp {
    Timestamp::from_unix_seconds(1_767_225_600)
}

/// `{device}` or `{device}/{module}`
fn whom(id: &str) -> Identity {
    let hub = HUB.parse().unwrap();
    match id.split_once('/') {
        None => Identity::device(hub, id.parse().unwrap()),
        Some((device, module)) => {
            Identity::module(hub, device.parse().unwrap(), module.parse().unwrap())
        }
    }
}

fn dev1() -> DeviceId {
    "dev1".parse().unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else {
        panic!("not an object: {value}")
    };
    object
}

const HUB: &str = "test-hub.azure-devices.net";
const MESSAGES: &str = "devices/dev1/messages/devicebound/#";
const METHODS: &str = "$iothub/methods/POST/#";
const TWIN_ANSWERS: &str = "$iothub/twin/res/#";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
const EVENTS: &str = "devices/dev1/messages/events/";
