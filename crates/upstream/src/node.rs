//! What the sessions of this node share.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime},
};

use iothub::{HubName, Identity, Timestamp};
use session::{Backoff, ConnectionEpoch};
use store::{DeviceRecord, MethodPolicy, NodeId, Store};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Mistake, default_custody},
    connect::{Endpoint, EndpointError, system_roots},
    credentials::Credentials,
    leases::LeaseKeeper,
    metrics::Meters,
    pace::Turnstile,
    probe::Manners,
    tokens::{Secret, Tokens},
};

/// What the sessions of this node share.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) store: Store,
    pub(crate) leases: Arc<LeaseKeeper>,
    pub(crate) hubs: HashMap<HubName, Arc<Hub>>,
    pub(crate) credentials: Credentials,
    pub(crate) session_config: Arc<session::Config>,
    pub(crate) linger: Duration,
    pub(crate) presence_grace: Duration,
    pub(crate) method_timeout: Duration,
    pub(crate) meters: Meters,
    /// Whether it has been said what feedback means while the gateway has the messages.
    pub(crate) has_warned_of_feedback: AtomicBool,
    /// Whether it has been said that tokens cannot be kept, or what is kept cannot be opened.
    pub(crate) has_warned_of_vault: AtomicBool,
    /// Cancelled when the node stops.
    pub(crate) stop: CancellationToken,
    /// When sessions must have ended, known before `stop` is cancelled; unknown if they have no time at all.
    pub(crate) stop_by: Arc<OnceLock<Instant>>,
    started: Instant,
    /// Microseconds since 1970 at `started`.
    started_at: u64,
}

/// A hub, and the way into it.
pub(crate) struct Hub {
    pub(crate) endpoint: Endpoint,
    pub(crate) turnstile: Arc<Turnstile>,
    pub(crate) manners: Manners,
}

/// What a node reads from files before it can start.
pub(crate) struct Secrets {
    hubs: HashMap<HubName, Arc<Hub>>,
    credentials: Credentials,
}

/// Why the files of the configuration cannot be used.
pub(crate) enum LoadError {
    Keys(Vec<Mistake>),
    Randomness(getrandom::Error),
    Endpoint(EndpointError),
}

impl Secrets {
    /// Reads keys and certificates. Blocking.
    pub(crate) fn load(config: &Config) -> Result<Self, LoadError> {
        let secret = Secret::random().map_err(LoadError::Randomness)?;
        let credentials = Credentials::load(config, Tokens::new(secret));
        let credentials = credentials.map_err(LoadError::Keys)?;
        let roots = system_roots();
        let now = now();
        let mut hubs = HashMap::with_capacity(config.hubs.len());
        for hub in &config.hubs {
            let endpoint = Endpoint::new(hub, &roots, config.connect_timeout);
            let hub_of_node = Hub {
                endpoint: endpoint.map_err(LoadError::Endpoint)?,
                turnstile: Turnstile::new(hub.connects_per_second, now),
                manners: Manners::default(),
            };
            hubs.insert(hub.name.clone(), Arc::new(hub_of_node));
        }
        Ok(Self { hubs, credentials })
    }
}

impl Node {
    pub(crate) fn new(id: NodeId, config: &Config, secrets: Secrets, store: Store) -> Self {
        let stop = CancellationToken::new();
        Self {
            leases: LeaseKeeper::new(Arc::clone(&store.leases), id.clone(), stop.clone()),
            id,
            store,
            hubs: secrets.hubs,
            credentials: secrets.credentials,
            session_config: Arc::new(session_config(config)),
            linger: config.linger,
            presence_grace: config.presence_grace,
            method_timeout: config.method_timeout,
            meters: Meters::register(),
            has_warned_of_feedback: AtomicBool::new(false),
            has_warned_of_vault: AtomicBool::new(false),
            stop,
            stop_by: Arc::default(),
            started: now(),
            started_at: microseconds_since_1970(),
        }
    }

    /// A number for a session's first connection that is above all that were ever used for its device. A connection takes
    /// more than a microsecond, and the clock is asked once, so a step back of it matters only across a restart.
    pub(crate) fn first_connection(&self, now: Instant) -> ConnectionEpoch {
        let since = now.saturating_duration_since(self.started).as_micros();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        ConnectionEpoch(self.started_at.saturating_add(since))
    }

    /// What holds for a device that the configuration does not list.
    pub(crate) fn unlisted_device(&self, identity: Identity) -> DeviceRecord {
        DeviceRecord {
            identity,
            custody: default_custody(self.store.outbox.is_durable()),
            method_policy: MethodPolicy::default(),
            is_pinned: false,
            is_passed_through: true,
        }
    }
}

fn session_config(config: &Config) -> session::Config {
    let defaults = session::Config::default();
    let limited = |backoff: Backoff| Backoff {
        base: backoff.base.min(config.backoff_limit),
        cap: config.backoff_limit,
    };
    session::Config {
        client_type: Some(CLIENT_TYPE.to_owned()),
        keep_alive: config.keep_alive,
        connect_backoff: limited(defaults.connect_backoff),
        loss_backoff: limited(defaults.loss_backoff),
        refusal_backoff: limited(defaults.refusal_backoff),
        ..defaults
    }
}

/// This moment, for people and for expiry dates.
pub(crate) fn wall_now() -> Timestamp {
    SystemTime::now().into()
}

/// This moment, for timers.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn microseconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // A clock before 1970 is a clock that was never set.
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// How the hub's logs name this client.
const CLIENT_TYPE: &str = concat!("tombolo/", env!("CARGO_PKG_VERSION"));
