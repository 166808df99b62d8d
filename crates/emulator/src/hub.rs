//! The hub itself, as a state machine: no socket, no clock, no task, no global random.
//!
//! ```text
//!            accept / handle_input / handle_closed / handle_timeout
//!  sockets ──────────────────────────────────────────────────────▶ ┌─────┐ ◀── service operations
//!          ◀────────────────────────────────────────────────────── │ Hub │      (devices, twins, messages,
//!            poll_output: Transmit, Close, MethodDone               └─────┘       methods, faults, ...),
//!                                                                             and a device's over HTTPS
//! ```
//!
//! One file per concern: `registry` keeps identities, `access` judges who they are, `session` what a device has subscribed,
//! `connection` and `connect` speak MQTT 3.1.1, `telemetry`, `messages`, `twin` and `methods` are the four things that a hub
//! does, `query` and `jobs` work on many devices, `files` is file upload, `device_api` is what of all that a device has over
//! HTTPS, `tier` says how much of it, `faults` makes it all go wrong on purpose.
//!
//! Each rule names the text that it imitates: "the MQTT page" is Microsoft's "Communicate with an IoT hub using the MQTT
//! protocol"; other pages, SDKs and issues are named in full. Where Microsoft says nothing, the comment says that too.
//!
//! Of `mqtt-protocol-core` the packets are used and not its `Connection`: that one answers, stores and resends by
//! itself, takes a PUBLISH before CONNECT, and closes on a PUBACK that the hub would ignore.

mod access;
mod clock;
mod connect;
mod connection;
mod device_api;
mod error;
mod faults;
mod feedback;
mod files;
mod jobs;
mod messages;
mod methods;
mod query;
mod queue;
mod random;
mod registry;
mod session;
mod snapshot;
mod telemetry;
mod tier;
mod timers;
mod twin;
mod twin_requests;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use iothub::{HubName, MethodResponse, limits};

use crate::{
    packet,
    x509::{Authorities, Peer},
};

pub use access::{Policy, Proof, Right};
pub use clock::Now;
pub(crate) use connect::silence;
pub use connection::{CloseReason, Malformed};
pub use device_api::{Caller, LockedMessage, Settlement};
pub use error::{Error, IfMatch};
pub use faults::{
    Api, ConnectRefusal, ErrorStatus, Fault, FaultId, FaultKind, FaultRule, Pattern, Probability,
    RequestFault,
};
pub use feedback::{FeedbackRecord, FeedbackStatus, LockedFeedback};
pub use files::{BlobToken, FileError, FileInfo, FileNotification, FileStore, StoredFile, Upload};
pub use jobs::{InvalidJobId, JobId, JobSpec, JobStatus, JobWork};
pub use messages::SentMessage;
pub(crate) use methods::payload_json;
pub use methods::{CallId, MethodCall};
pub use query::{ItemType, PAGE as QUERY_PAGE, QueryError, QueryPage};
pub use random::Random;
pub use registry::{
    Authentication, BulkAction, BulkIdentity, BulkItem, BulkTwin, DeviceInfo, DeviceKeys,
    DeviceSpec, DeviceStatus, ModuleInfo, ModuleSpec, Statistics, Thumbprints,
};
pub use session::SessionInfo;
pub use telemetry::{AuthScope, TelemetryPage, TelemetryRecord};
pub use tier::{Capacity, Operation, ThrottleInfo, Tier, TooManyUnits, UnknownTier, UsageInfo};
pub(crate) use twin::NEVER;
pub use twin::TwinChange;

use connection::Connection;
use faults::Faults;
use feedback::FeedbackLog;
use files::{FileLog, StorageKey};
use jobs::Jobs;
use methods::Call;
use registry::Registry;
use telemetry::TelemetryLog;
use tier::Usage;
use timers::{Timer, Timers};

/// An IoT Hub.
///
/// # How to run it
///
/// After every call that takes `now`, take all of [`Hub::poll_output`], in order: a `Transmit` is to be written, a
/// `Close` closes the connection after what was written before it, a `MethodDone` is the end of a method that
/// [`Hub::invoke_method`] began. Then arm one timer for [`Hub::poll_timeout`] and call [`Hub::handle_timeout`] when it
/// fires; early, late or twice is harmless.
///
/// A connection begins with [`Hub::accept`] and ends once: by a `Close` that the hub gives, or by
/// [`Hub::handle_closed`]. Calls with the id of an ended connection do nothing.
pub struct Hub {
    config: Config,
    random: Random,
    registry: Registry,
    authorities: Authorities,
    connections: HashMap<ConnectionId, Connection>,
    next_connection: u64,
    calls: BTreeMap<CallId, Call>,
    next_call: u64,
    jobs: Jobs,
    storage_key: StorageKey,
    files: FileStore,
    file_log: FileLog,
    telemetry: TelemetryLog,
    feedback: FeedbackLog,
    usage: Usage,
    faults: Faults,
    /// Whether a fault has moved it to its other address.
    is_moved: bool,
    /// How far the wall clock was set by a fault.
    clock_jump_millis: i64,
    timers: Timers,
    outputs: Outputs,
}

/// What a hub is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The hub's host name: devices and tokens must name it.
    pub name: HubName,
    /// Shared access policies; [`Policy::defaults`] makes the five of a fresh hub.
    pub policies: Vec<Policy>,
    /// How long after its `se` a token is still taken, and a connection that it opened is kept. Microsoft's SDK issues
    /// report 5 min on HTTPS and about 10 min on MQTT (azure-iot-sdk-c 163); zero makes expiry sharp.
    pub token_grace: Duration,
    /// How long a connection may be silent before its CONNECT. EdgeHub waits 60 s.
    pub connect_timeout: Duration,
    /// Life of a cloud-to-device message whose sender set no expiry: 1 h ("Understand cloud-to-device messaging").
    pub cloud_message_ttl: Duration,
    /// Delivery count at which a message becomes a dead letter: 10 ("Understand cloud-to-device messaging").
    pub cloud_message_deliveries: u32,
    /// Whether a delivery that a lost connection cut short raises the delivery count. EdgeHub's documentation says that it
    /// is treated as an abandon; "Understand cloud-to-device messaging" says that only an explicit abandon counts, which
    /// is the default.
    pub count_lost_deliveries: bool,
    /// Telemetry records that are kept for readers; the oldest go first.
    pub telemetry_records: usize,
    /// Bytes of the telemetry that is kept; the oldest go first.
    pub telemetry_bytes: usize,
    /// Feedback records that are kept; the oldest go first.
    pub feedback_records: usize,
    /// How long a device may write a file, and until when it has to say how that ended: 1 h, of 1 min to 24 h ("Upload files
    /// with IoT Hub").
    pub upload_time: Duration,
    /// Bytes of one uploaded file. Azure Storage takes thousands of MiB; here files are held in memory.
    pub file_bytes: usize,
    /// Bytes of all files that are kept; those that were written longest ago go first.
    pub file_bytes_in_all: usize,
    /// Direct methods of one device that may wait for an answer; more get 403800. Microsoft names the error, not the
    /// number.
    pub methods_in_flight: usize,
    /// Tier and units, which throttle operations and limit the messages of a day; nothing does without.
    pub capacity: Option<Capacity>,
    /// Whether there is another address to move to (the fault `fail-over`).
    pub has_other_address: bool,
    /// Decides which chances a fault with a probability takes: the same seed, the same course.
    pub fault_seed: u64,
}

impl Config {
    /// The defaults, for a hub of this name.
    #[must_use]
    pub fn new(name: HubName, policies: Vec<Policy>) -> Self {
        Self {
            name,
            policies,
            token_grace: Duration::from_secs(limits::TOKEN_GRACE_S),
            connect_timeout: Duration::from_secs(60),
            cloud_message_ttl: Duration::from_secs(limits::CLOUD_MESSAGE_TTL_S),
            cloud_message_deliveries: limits::CLOUD_MESSAGE_DELIVERIES,
            count_lost_deliveries: false,
            telemetry_records: 10_000,
            telemetry_bytes: 64 * 1024 * 1024,
            feedback_records: 1_000,
            methods_in_flight: 100,
            capacity: None,
            upload_time: Duration::from_secs(3600),
            file_bytes: 64 * 1024 * 1024,
            file_bytes_in_all: 256 * 1024 * 1024,
            has_other_address: false,
            fault_seed: 0,
        }
    }
}

/// Names one connection for as long as the hub lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(u64);

/// What the hub wants done.
#[derive(Debug)]
pub enum Output {
    /// Write these bytes.
    Transmit {
        /// Where.
        connection: ConnectionId,
        /// One or more whole packets.
        bytes: Vec<u8>,
    },
    /// Close the connection once everything before this is written. The hub has forgotten it already.
    Close {
        /// Which.
        connection: ConnectionId,
        /// For logs: MQTT 3.1.1 has no way to tell the device.
        reason: CloseReason,
    },
    /// A direct method has its answer, or will not get one.
    MethodDone {
        /// What [`Hub::invoke_method`] returned.
        call: CallId,
        /// What the caller gets.
        result: Result<MethodResponse, Error>,
    },
}

impl Hub {
    /// A hub without devices.
    #[must_use]
    pub fn new(config: Config, mut random: Random) -> Self {
        Self {
            telemetry: TelemetryLog::new(config.telemetry_records, config.telemetry_bytes),
            feedback: FeedbackLog::new(config.feedback_records),
            usage: Usage::new(config.capacity),
            faults: Faults::new(config.fault_seed),
            storage_key: StorageKey::new(&mut random),
            files: FileStore::new(config.file_bytes, config.file_bytes_in_all),
            config,
            random,
            registry: Registry::default(),
            authorities: Authorities::default(),
            connections: HashMap::new(),
            next_connection: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            is_moved: false,
            clock_jump_millis: 0,
            jobs: Jobs::default(),
            file_log: FileLog::default(),
            timers: Timers::default(),
            outputs: Outputs::default(),
        }
    }

    /// A connection was opened towards the hub by `peer`.
    pub fn accept(&mut self, peer: Peer, now: Now) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let deadline = now.at + self.config.connect_timeout;
        self.connections
            .insert(id, Connection::new(peer, deadline, now));
        self.schedule_connection(id, now);
        id
    }

    /// Bytes came in on a connection, cut anywhere.
    pub fn handle_input(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
        self.receive(id, bytes, now);
        self.schedule_connection(id, now);
    }

    /// Whether bytes of this connection should be read. Not while 16 answers to the device are held back: EdgeHub and the
    /// protocol gateway take no more than that many messages at a time. It changes with what is polled.
    #[must_use]
    pub fn wants_input(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(&id);
        connection.is_some_and(|connection| connection.wants_input())
    }

    /// The connection is gone: the device closed it, or the network did. The device's will is published.
    pub fn handle_closed(&mut self, id: ConnectionId, now: Now) {
        self.detach(id, &CloseReason::Peer, now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Connection(id) => self.on_connection_timer(id, now),
                Timer::Messages(device) => self.on_messages_timer(device, now),
                Timer::Call(call) => self.on_call_timer(call, now),
                Timer::Fault(fault) => self.on_fault_timer(fault, now),
                Timer::Job(job) => self.on_job_timer(&job, now),
            }
        }
    }

    /// When [`Hub::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.queue.pop_front()
    }

    /// The certificate authorities whose devices may connect with their certificates.
    #[must_use]
    pub const fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// The same, to change.
    pub const fn authorities_mut(&mut self) -> &mut Authorities {
        self.registry.touch();
        &mut self.authorities
    }

    /// The hub's name.
    #[must_use]
    pub const fn name(&self) -> &HubName {
        &self.config.name
    }

    /// The shared access policies.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.config.policies
    }
}

/// What waits for [`Hub::poll_output`].
#[derive(Default)]
struct Outputs {
    queue: VecDeque<Output>,
    /// What frozen connections will write when they thaw (a fault).
    frozen: BTreeMap<ConnectionId, Vec<u8>>,
}

impl Outputs {
    /// Queues packets; those that follow each other on one connection become one write.
    fn transmit(&mut self, connection: ConnectionId, mut packet: Vec<u8>) {
        if let Some(held) = self.frozen.get_mut(&connection) {
            return held.append(&mut packet);
        }
        if let Some(Output::Transmit {
            connection: last,
            bytes,
        }) = self.queue.back_mut()
            && *last == connection
        {
            bytes.append(&mut packet);
            return;
        }
        self.queue.push_back(Output::Transmit {
            connection,
            bytes: packet,
        });
    }

    fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    /// Holds back all that is to be written to a connection from now on.
    fn freeze(&mut self, connection: ConnectionId) {
        self.frozen.entry(connection).or_default();
    }

    /// Writes what was held back, if only to say that the connection goes on.
    fn thaw(&mut self, connection: ConnectionId) {
        if let Some(bytes) = self.frozen.remove(&connection) {
            self.queue.push_back(Output::Transmit { connection, bytes });
        }
    }

    /// Whether more is held back for a connection than anybody would wait for.
    fn is_overfull(&self, connection: ConnectionId) -> bool {
        let held = self.frozen.get(&connection);
        held.is_some_and(|held| held.len() > FROZEN_BYTES)
    }

    /// The connection is gone; what was held back goes with it.
    fn forget(&mut self, connection: ConnectionId) {
        self.frozen.remove(&connection);
    }
}

/// Bound on what is held back for a frozen connection: a window of the largest cloud-to-device messages, and as much again.
const FROZEN_BYTES: usize = 2 * limits::TELEMETRY_WINDOW * limits::CLOUD_MESSAGE_BYTES;
