//! The provisioning service itself, as a state machine: no socket, no clock, no task, no global random.
//!
//! ```text
//!            accept / handle_input / handle_closed / handle_timeout
//!  sockets ──────────────────────────────────────────────────────▶ ┌─────────┐ ◀── operations of devices over HTTPS
//!          ◀────────────────────────────────────────────────────── │ Service │ ◀── operations of operators (enrollments,
//!            poll_output: Transmit, Close                          └─────────┘       registrations)
//!                                              Assign │    ▲ handle_assigned
//!                                                     ▼    │
//!                                                      hubs
//! ```
//!
//! A registration has this life:
//!
//! ```text
//!  register ─▶ Assigning ──handle_assigned──▶ Assigned ──register again──▶ Assigning ...
//!                  │└──────────────────────▶ Failed (the hub refused, there is no hub)
//!                  └───────────────────────▶ Disabled (the enrollment is)
//! ```
//!
//! The first answer is always 202 `assigning`, even if the hub has done its part already: "Communicate with DPS using the
//! MQTT protocol" describes it so, and Microsoft's .NET client takes no other. What became of it is asked for by the
//! operation's id.
//!
//! One file per concern: `enrollment` is what operators write, `registry` how; `attestation` judges what devices show,
//! `registration` is what they get, `allocation` where; `connection` and `topic` speak MQTT 3.1.1; `throttle` counts; `memory`
//! is what outlives the service.

mod allocation;
mod attestation;
mod authority;
mod certificate;
mod connection;
mod enrollment;
mod error;
mod id;
mod memory;
mod registration;
mod registry;
mod throttle;
mod topic;

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use iothub::{HubName, limits, sas::Key};

pub use attestation::Presented;
pub use authority::{OWNER, Policy as AccessPolicy};
pub use certificate::{Certificate, InvalidCertificate};
pub use connection::{CloseReason, ConnectionId};
pub(crate) use enrollment::Enrollment;
pub use enrollment::{
    Allocation, Attestation, Certificates, Group, Individual, InitialTwin, Policy, Reprovision,
    Terms,
};
pub(crate) use error::error_body;
pub use error::{Code, Error};
pub use id::{GroupId, IdScope, InvalidId, InvalidIdScope, RegistrationId};
pub use registration::{Assignment, Departure, OperationId, Reply};
pub(crate) use registry::{Page, check_query};
pub use topic::UnknownTopic;

use crate::{
    hub::{Now, Random},
    x509::Peer,
};
use connection::Connection;
use enrollment::Record;
use registration::Registration;
use throttle::{Bound, Window};

/// A Device Provisioning Service.
///
/// # How to run it
///
/// After every call that takes `now`, take all of [`Service::poll_output`], in order: a `Transmit` is to be written, a
/// `Close` closes the connection after what was written before it, an `Assign` is to be brought to its hub and answered with
/// [`Service::handle_assigned`]. Then arm one timer for [`Service::poll_timeout`] and call [`Service::handle_timeout`] when it
/// fires; early, late or twice is harmless.
///
/// A connection begins with [`Service::accept`] and ends once: by a `Close`, or by [`Service::handle_closed`]. Calls with the
/// id of an ended connection do nothing.
pub struct Service {
    config: Config,
    random: Random,
    individuals: BTreeMap<RegistrationId, Record<Individual>>,
    groups: BTreeMap<GroupId, Record<Group>>,
    registrations: BTreeMap<RegistrationId, Registration>,
    /// Moves whenever something of these three may be changed.
    revision: u64,
    registered: Window,
    operated: Window,
    connections: HashMap<ConnectionId, Connection>,
    /// Who holds the client id, which is the registration's.
    clients: BTreeMap<RegistrationId, ConnectionId>,
    next_connection: u64,
    /// Promises to look at a connection again; what is due is decided by its own fields.
    timers: BinaryHeap<Reverse<(Instant, ConnectionId)>>,
    outputs: VecDeque<Output>,
}

/// What a provisioning service is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its host name: tokens of operators name it.
    pub name: HubName,
    /// Its scope: devices name it.
    pub id_scope: IdScope,
    /// Shared access policies of operators.
    pub policies: Vec<AccessPolicy>,
    /// The hubs to choose from; 50 at most count ("Azure IoT Hub Device Provisioning Service limits").
    pub hubs: Vec<HubName>,
    /// Authorities that enrollments refer to by name (`caReferences`).
    pub authorities: BTreeMap<String, Certificate>,
    /// How long after its `se` a token is still taken; the same as a hub's, for the service's own is not published.
    pub token_grace: Duration,
    /// How long a connection may be silent before its CONNECT; as a hub's.
    pub connect_timeout: Duration,
    /// What devices are told to wait before they ask for the outcome. Traces of the real service say 3 s.
    pub retry_after_s: u32,
    /// Its bounds.
    pub limits: Limits,
}

/// Bounds of a provisioning service ("Azure IoT Hub Device Provisioning Service limits").
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Registrations begun within a minute.
    pub registrations_per_minute: u32,
    /// Other calls within a minute.
    pub operations_per_minute: u32,
    /// Times within 10 s that one device may ask for the outcome.
    pub polls_per_10_s: u32,
    /// Registrations, and individual enrollments.
    pub registrations: usize,
    /// Enrollment groups.
    pub groups: usize,
}

/// What the service wants done.
#[derive(Debug)]
pub enum Output {
    /// Write these bytes.
    Transmit {
        /// Where.
        connection: ConnectionId,
        /// One or more whole packets.
        bytes: Vec<u8>,
    },
    /// Close the connection once everything before this is written. The service has forgotten it already.
    Close {
        /// Which.
        connection: ConnectionId,
        /// For logs: MQTT 3.1.1 has no way to tell the device.
        reason: CloseReason,
    },
    /// Bring a device to its hub.
    Assign(Box<Assignment>),
}

impl Config {
    /// The defaults, without hubs, and with one policy of all rights whose primary key is `owner`.
    #[must_use]
    pub fn new(name: HubName, id_scope: IdScope, owner: Key) -> Self {
        Self {
            name,
            id_scope,
            policies: vec![AccessPolicy::owner(owner)],
            hubs: Vec::new(),
            authorities: BTreeMap::new(),
            token_grace: Duration::from_secs(limits::TOKEN_GRACE_S),
            connect_timeout: Duration::from_secs(60),
            retry_after_s: 3,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            registrations_per_minute: 1000,
            operations_per_minute: 1000,
            polls_per_10_s: 5,
            registrations: 1_000_000,
            groups: 100,
        }
    }
}

impl Limits {
    const fn registrations(self) -> Bound {
        Bound {
            what: "registrations",
            most: self.registrations_per_minute,
            span: MINUTE,
        }
    }

    const fn operations(self) -> Bound {
        Bound {
            what: "operations",
            most: self.operations_per_minute,
            span: MINUTE,
        }
    }

    const fn polls(self) -> Bound {
        Bound {
            what: "questions of one device",
            most: self.polls_per_10_s,
            span: TEN_SECONDS,
        }
    }
}

impl Service {
    /// A service without enrollments.
    #[must_use]
    pub fn new(mut config: Config, random: Random) -> Self {
        config.hubs.truncate(HUBS);
        Self {
            config,
            random,
            individuals: BTreeMap::new(),
            groups: BTreeMap::new(),
            registrations: BTreeMap::new(),
            revision: 0,
            registered: Window::default(),
            operated: Window::default(),
            connections: HashMap::new(),
            clients: BTreeMap::new(),
            next_connection: 0,
            timers: BinaryHeap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// A connection was opened, by whom the TLS handshake tells.
    pub fn accept(&mut self, peer: Peer, now: Now) -> ConnectionId {
        let id = ConnectionId::new(self.next_connection);
        self.next_connection += 1;
        let deadline = now.at + self.config.connect_timeout;
        self.connections
            .insert(id, Connection::new(peer, deadline, now));
        self.schedule(id);
        id
    }

    /// Bytes came in on a connection, cut anywhere.
    pub fn handle_input(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
        self.receive(id, bytes, now);
        self.schedule(id);
    }

    /// The connection is gone.
    pub fn handle_closed(&mut self, id: ConnectionId) {
        self.forget(id);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while self.poll_timeout().is_some_and(|at| at <= now.at) {
            if let Some(Reverse((_, id))) = self.timers.pop() {
                self.on_timer(id, now);
            }
        }
    }

    /// When [`Service::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Its host name.
    #[must_use]
    pub const fn name(&self) -> &HubName {
        &self.config.name
    }

    /// Its scope.
    #[must_use]
    pub const fn id_scope(&self) -> &IdScope {
        &self.config.id_scope
    }

    /// The shared access policies.
    #[must_use]
    pub fn policies(&self) -> &[AccessPolicy] {
        &self.config.policies
    }
}

/// Hubs of a service ("Azure IoT Hub Device Provisioning Service limits").
const HUBS: usize = 50;
const MINUTE: Duration = Duration::from_secs(60);
const TEN_SECONDS: Duration = Duration::from_secs(10);
