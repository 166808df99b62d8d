//! The life of the emulator's hub with devices that say anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use emulator::{
    Peer,
    hub::{
        Authentication, CallId, Config, ConnectionId, DeviceKeys, DeviceSpec, Hub, MethodCall, Now,
        Output, Policy, Random, TwinChange,
    },
};
use iothub::{CloudMessage, DeviceId, Identity, Timestamp, connect::Username, sas, sas::Key};
use serde_json::Map;

use crate::{packets, steps::Steps};

/// A scripted life: connections come and go, the cloud side sends, and the devices' bytes are the input's.
///
/// The hub writes whole packets that a server may send, and only to connections that it has not closed; a direct method
/// ends once; its timers come to rest; and it does the same when every byte comes alone.
pub fn hub_life(bytes: &[u8]) {
    let start = Instant::now();
    let whole = live(bytes, usize::MAX, start);
    let cut = live(bytes, 1, start);
    assert_eq!(whole, cut, "how input is cut must not matter");
}

fn live(script: &[u8], piece: usize, start: Instant) -> Vec<Said> {
    let mut steps = Steps::new(script);
    let mut life = Life::new(start, piece);
    while let Some(step) = steps.byte() {
        life.take_step(step % 16, &mut steps);
    }
    life.wait(Duration::from_secs(2 * 3600));
    life.account
}

struct Life {
    hub: Hub,
    now: Now,
    device: DeviceId,
    identity: Identity,
    /// Input comes in pieces of this many bytes.
    piece: usize,
    open: BTreeSet<ConnectionId>,
    /// The connection that speaks.
    speaking: Option<ConnectionId>,
    calls: BTreeSet<CallId>,
    account: Vec<Said>,
}

/// What a hub said in one step.
#[derive(PartialEq, Eq, Debug, Default)]
struct Said {
    written: BTreeMap<ConnectionId, Vec<u8>>,
    ended: Vec<String>,
}

impl Life {
    fn new(start: Instant, piece: usize) -> Self {
        let identity = identity();
        let mut random = Random::seeded(7);
        let config = Config::new(identity.hub().clone(), Policy::defaults(&mut random));
        let mut life = Self {
            hub: Hub::new(config, random),
            now: Now {
                at: start,
                utc: Timestamp::from_unix_seconds(A_YEAR_BEFORE),
            },
            device: identity.device_id().clone(),
            identity,
            piece,
            open: BTreeSet::new(),
            speaking: None,
            calls: BTreeSet::new(),
            account: Vec::new(),
        };
        let spec = DeviceSpec {
            authentication: Some(Authentication::Sas(DeviceKeys {
                primary: key(),
                secondary: key().derive("secondary"),
            })),
            ..DeviceSpec::default()
        };
        life.hub
            .create_device(&life.device, spec, life.now)
            .expect("there is no such device yet");
        life
    }

    fn take_step(&mut self, step: u8, steps: &mut Steps<'_>) {
        self.account.push(Said::default());
        match step {
            1 => {
                let id = self.hub.accept(Peer::ANONYMOUS, self.now);
                self.open.insert(id);
                self.speaking = Some(id);
            }
            2 => {
                let id = self.hub.accept(Peer::ANONYMOUS, self.now);
                self.open.insert(id);
                self.speaking = Some(id);
                // Signing is slow, and this packet is not what is tried here.
                static CONNECT: LazyLock<Vec<u8>> = LazyLock::new(connect);
                self.hub.handle_input(id, &CONNECT, self.now);
            }
            3 => {
                let seconds = 1 << (steps.byte().unwrap_or_default() % 12);
                self.wait(Duration::from_secs(seconds));
            }
            4 => {
                if let Some(id) = self.speaking.take()
                    && self.open.remove(&id)
                {
                    self.hub.handle_closed(id, self.now);
                }
            }
            5 => {
                let message = CloudMessage {
                    payload: Bytes::copy_from_slice(steps.bytes()),
                    ..CloudMessage::default()
                };
                // A full queue is an answer too.
                let _ = self.hub.send_message(&self.device, message, self.now);
            }
            6 => self.invoke(),
            7 => self.change_twin(steps.byte().unwrap_or_default()),
            // 0 and 8 to 15: most of a life is talk.
            _ => self.hear(steps.bytes()),
        }
        self.drain();
    }

    fn hear(&mut self, bytes: &[u8]) {
        let Some(id) = self.speaking.filter(|id| self.hub.wants_input(*id)) else {
            return;
        };
        for piece in bytes.chunks(self.piece) {
            self.hub.handle_input(id, piece, self.now);
            self.drain();
        }
    }

    fn invoke(&mut self) {
        let call = MethodCall {
            name: "reboot".parse().expect("a name"),
            payload: Bytes::from_static(b"{}"),
            response_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
        };
        if let Ok(call) = self.hub.invoke_method(&self.identity, call, self.now) {
            self.calls.insert(call);
        }
    }

    fn change_twin(&mut self, number: u8) {
        let change = TwinChange::Merge {
            tags: None,
            desired: Some(Map::from_iter([("n".to_owned(), number.into())])),
        };
        let changed = self.hub.update_twin(&self.identity, change, None, self.now);
        assert!(changed.is_ok(), "{changed:?}");
    }

    fn wait(&mut self, duration: Duration) {
        self.account.push(Said::default());
        let end = self.now.at + duration;
        for _ in 0..TIMEOUTS_IN_TWO_HOURS {
            match self.hub.poll_timeout() {
                Some(at) if at <= end => self.set(at.max(self.now.at)),
                Some(_) | None => {
                    self.set(end);
                    return;
                }
            }
            self.hub.handle_timeout(self.now);
            self.drain();
        }
        panic!("timers do not come to rest");
    }

    fn set(&mut self, at: Instant) {
        self.now.utc = self.now.utc.saturating_add(at - self.now.at);
        self.now.at = at;
    }

    fn drain(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Transmit { connection, bytes } => {
                    assert!(self.open.contains(&connection), "bytes for no connection");
                    packets::check(&bytes, FROM_A_SERVER);
                    let said = self.said();
                    said.written.entry(connection).or_default().extend(bytes);
                }
                Output::Close { connection, reason } => {
                    assert!(self.open.remove(&connection), "closed already");
                    let ended = format!("{connection:?}: {reason}");
                    self.said().ended.push(ended);
                }
                Output::MethodDone { call, result } => {
                    assert!(self.calls.remove(&call), "done already");
                    let ended = format!("{call:?}: {result:?}");
                    self.said().ended.push(ended);
                }
            }
        }
    }

    fn said(&mut self) -> &mut Said {
        if self.account.is_empty() {
            self.account.push(Said::default());
        }
        let last = self.account.len() - 1;
        &mut self.account[last]
    }
}

/// The CONNECT of `dev1`, with a token that is good for a year.
fn connect() -> Vec<u8> {
    let identity = identity();
    let expiry = Timestamp::from_unix_seconds(A_YEAR_BEFORE + 366 * 86_400);
    let token = key().sign(&sas::resource(&identity), None, expiry);
    let username = Username::new(identity.clone(), None).encode();
    // Protocol name and level, flags of a persistent session with username and password, keep-alive 240 s (MQTT 3.1.1,
    // section 3.1).
    let mut body = b"\0\x04MQTT\x04\xc0\0\xf0".to_vec();
    for text in [identity.client_id(), username, token] {
        let length = u16::try_from(text.len()).expect("a text of some hundred bytes");
        body.extend(length.to_be_bytes());
        body.extend(text.bytes());
    }
    let [low, high] = [body.len() & 0x7f | 0x80, body.len() >> 7]
        .map(|digit| u8::try_from(digit).expect("some hundred bytes have two digits"));
    [&[0x10, low, high], &body[..]].concat()
}

fn identity() -> Identity {
    Identity::device(
        HUB.parse().expect("a host name"),
        "dev1".parse().expect("an id"),
    )
}

fn key() -> Key {
    Key::from_bytes((0..32).collect()).expect("a key has 16 to 64 bytes")
}

const HUB: &str = "test-hub.azure-devices.net";
/// 2025-01-01, a year before the tokens of the golden vectors end.
const A_YEAR_BEFORE: i64 = 1_735_689_600;
/// CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP.
const FROM_A_SERVER: &[u8] = &[2, 3, 4, 9, 11, 13];
const TIMEOUTS_IN_TWO_HOURS: usize = 20_000;
