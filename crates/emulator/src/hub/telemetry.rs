//! Device-to-hub messages: taken, stamped, and kept in a ring for readers.
//!
//! The ring stands for the hub's built-in endpoint. Records have a running number from 1; a reader keeps the number that
//! it wants next, so any number of readers can follow without taking anything from each other.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use iothub::{DeviceId, Identity, ModuleId, Telemetry, Timestamp, limits};

use super::{CloseReason, ConnectionId, Hub, Now, Operation, tier};

/// One message with what the hub stamped on it ("Create and read IoT Hub messages").
#[derive(Clone, Debug)]
pub struct TelemetryRecord {
    /// Running number, from 1.
    pub sequence: u64,
    /// `iothub-connection-device-id`.
    pub device_id: DeviceId,
    /// `iothub-connection-module-id`.
    pub module_id: Option<ModuleId>,
    /// `iothub-connection-auth-generation-id`.
    pub generation_id: Arc<str>,
    /// From which `iothub-connection-auth-method` is made.
    pub scope: AuthScope,
    /// `dt-dataschema`: the model that the device announced at its CONNECT.
    pub model_id: Option<Arc<str>>,
    /// `iothub-enqueuedtime`.
    pub enqueued_at: Timestamp,
    /// The message.
    pub message: Telemetry,
}

/// Whose key or certificate opened the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthScope {
    /// The device's.
    Device,
    /// The module's.
    Module,
    /// A policy's.
    Hub,
    /// The device's certificate.
    DeviceCertificate,
    /// The module's certificate.
    ModuleCertificate,
}

/// What a reader gets.
#[derive(Clone, Debug)]
pub struct TelemetryPage {
    /// The records, oldest first.
    pub records: Vec<Arc<TelemetryRecord>>,
    /// What to ask for next.
    pub next: u64,
    /// Records that were asked for and had gone already.
    pub missed: u64,
}

/// What is the same on all messages of one connection.
pub(super) struct Stamps {
    pub(super) identity: Identity,
    pub(super) generation_id: Arc<str>,
    pub(super) scope: AuthScope,
    pub(super) model_id: Option<Arc<str>>,
}

pub(super) struct TelemetryLog {
    records: VecDeque<Arc<TelemetryRecord>>,
    bytes: usize,
    next: u64,
    most_records: usize,
    most_bytes: usize,
}

impl AuthScope {
    /// `iothub-connection-auth-method` ("Create and read IoT Hub messages").
    #[must_use]
    pub const fn auth_method(self) -> &'static str {
        match self {
            Self::Device => r#"{"scope":"device","type":"sas","issuer":"iothub"}"#,
            Self::Module => r#"{"scope":"module","type":"sas","issuer":"iothub"}"#,
            Self::Hub => r#"{"scope":"hub","type":"sas","issuer":"iothub"}"#,
            // Seen on messages of a real hub; whether the two kinds of certificate differ is not documented.
            Self::DeviceCertificate => {
                r#"{"scope":"device","type":"x509Certificate","issuer":"external"}"#
            }
            Self::ModuleCertificate => {
                r#"{"scope":"module","type":"x509Certificate","issuer":"external"}"#
            }
        }
    }
}

impl TelemetryLog {
    pub(super) fn new(most_records: usize, most_bytes: usize) -> Self {
        Self {
            records: VecDeque::new(),
            bytes: 0,
            next: 1,
            most_records,
            most_bytes,
        }
    }

    pub(super) fn push(&mut self, stamps: &Stamps, message: Telemetry, now: Now) {
        self.bytes += message.size();
        self.records.push_back(Arc::new(TelemetryRecord {
            sequence: self.next,
            device_id: stamps.identity.device_id().clone(),
            module_id: stamps.identity.module_id().cloned(),
            generation_id: Arc::clone(&stamps.generation_id),
            scope: stamps.scope,
            model_id: stamps.model_id.clone(),
            enqueued_at: now.utc,
            message,
        }));
        self.next += 1;
        while self.records.len() > self.most_records || self.bytes > self.most_bytes {
            let Some(oldest) = self.records.pop_front() else {
                break;
            };
            self.bytes -= oldest.message.size();
        }
    }

    fn read(&self, from: u64, most: usize) -> TelemetryPage {
        let oldest = self.records.front().map_or(self.next, |r| r.sequence);
        let start = from.clamp(oldest, self.next);
        let skip = usize::try_from(start - oldest).unwrap_or(usize::MAX);
        let records: Vec<_> = self.records.range(skip..).take(most).cloned().collect();
        TelemetryPage {
            next: start + records.len() as u64,
            missed: oldest.saturating_sub(from.max(1)),
            records,
        }
    }
}

impl Hub {
    /// At most `most` telemetry records from the number `from` on. Never waits: ask again when
    /// [`Hub::telemetry_next`] has moved.
    #[must_use]
    pub fn telemetry(&self, from: u64, most: usize) -> TelemetryPage {
        self.telemetry.read(from, most)
    }

    /// The number of the next record.
    #[must_use]
    pub const fn telemetry_next(&self) -> u64 {
        self.telemetry.next
    }

    /// Returns how late the message is to be acknowledged; none if it is not taken.
    pub(super) fn on_telemetry(
        &mut self,
        id: ConnectionId,
        message: Telemetry,
        now: Now,
    ) -> Result<Option<Duration>, CloseReason> {
        // azure-iot-sdk-node issue 501: the hub closes the connection on a message over 256 KB.
        if message.size() > limits::TELEMETRY_BYTES {
            return Err(CloseReason::MessageTooLarge);
        }
        let fault = self.fault(id, |faults, identity| faults.on_telemetry(identity, now));
        let turn = match fault {
            Some(wait) => Err(wait),
            None => self
                .throttle(Operation::Telemetry, 1, now)
                .map_err(|_| tier::LONGEST_WAIT),
        };
        let open = self.open_mut(id).ok_or(CloseReason::NoConnect)?;
        if let Err(wait) = turn {
            // azure-docs issue 107838: no PUBACK for a while, then the hub closes the connection.
            open.throttled_until.get_or_insert(now.at + wait);
        }
        let (Ok(delay), None) = (turn, open.throttled_until) else {
            return Ok(None);
        };
        // azure-iot-sdk-java issues 377 and 1805: connections are accepted, and cut when a message comes.
        self.charge([message.size()], now)
            .map_err(|_| CloseReason::QuotaExceeded)?;
        let open = self
            .connections
            .get_mut(&id)
            .and_then(|connection| connection.as_open_mut())
            .ok_or(CloseReason::NoConnect)?;
        open.last_activity_at = now.utc;
        self.telemetry.push(&open.stamps, message, now);
        Ok(Some(delay))
    }
}

/// The MQTT page: a retained message is not retained, but carries this.
pub(super) fn retained() -> (String, String) {
    ("mqtt-retain".to_owned(), "true".to_owned())
}

/// The MQTT page: the will carries this.
pub(super) fn from_will() -> (String, String) {
    ("iothub-MessageType".to_owned(), "Will".to_owned())
}
