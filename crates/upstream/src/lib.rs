//! What the hub touches: the sessions that this node holds.
//!
//! This half of the gateway reads the outbox and writes the inbox. It knows nothing of devices' requests, and nothing of who
//! waits for an answer; all that it shares with the other half is the [`store`] contract.
//!
//! - [`Config`]: hubs, devices with their keys, times and limits
//! - [`Upstream`]: start and stop
//! - [`metrics`]: what is measured
//!
//! # How a session lives and ends
//!
//! 1. A device is *wanted*: somebody in the front holds a demand, or its outbox has an entry. The manager acquires the
//!    session lease of its partition and starts a driver task for it.
//! 2. The driver opens the outbox and asks the hub's turnstile for its turn. Then name, TCP, TLS, and the session core speaks
//!    MQTT. Entries that arrived meanwhile go out right behind CONNACK.
//! 3. While it is up: entries go to the hub, outcomes come back; messages and methods go into the inbox, settlements come
//!    back. A lost connection is made anew, with back-off; telemetry that was in flight is sent again, messages that
//!    were not settled are the hub's again.
//! 4. Nobody has needed it for the linger time and nothing waits: methods are unsubscribed, DISCONNECT, the task ends. If the
//!    device is wanted again meanwhile, the next task begins when this one has ended, never beside it.
//!
//! # Whose word a device's token is
//!
//! A device may bring a shared access signature of its own. If the gateway holds the device's key, it checks the signature,
//! and signs its own tokens for the hub. If it does not, and the configuration lets the device be passed through, the
//! hub decides: the token becomes the password of the session, or is shown to the hub's HTTPS API beside it.

pub mod config;
mod connect;
mod credentials;
mod driver;
mod judge;
mod leases;
mod manager;
pub mod metrics;
mod node;
mod nudge;
mod pace;
mod place;
mod probe;
mod tokens;
mod vault;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use iothub::{HubName, Identity};
use store::{JudgeSeat, NodeId, Store, StoreError};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{Config, Mistake};
pub use connect::{CaFileError, EndpointError};

use crate::{
    judge::Judge,
    node::{Hub, LoadError, Node, Secrets, now},
};

/// The running half: the sessions of this node. Dropped, it ends them at once; [`Upstream::shutdown`] ends them in order.
#[derive(Debug)]
pub struct Upstream {
    stop: CancellationToken,
    /// By when sessions must have ended.
    stop_by: Arc<OnceLock<Instant>>,
    tasks: JoinSet<()>,
    /// What hubs are asked about tokens.
    questions: TaskTracker,
    seat: JudgeSeat,
    reach: Reach,
}

/// What is known of the ways to the hubs.
#[derive(Clone)]
pub struct Reach(Arc<Vec<(HubName, Arc<Hub>)>>);

/// Why this half could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error("{0}")]
    Config(Mistakes),
    /// A hub.
    #[error("a hub of the configuration cannot be used")]
    Hub(#[from] EndpointError),
    /// The store did not take the devices of the configuration.
    #[error("the devices could not be registered")]
    Registry(#[from] StoreError),
    /// The system gives no random bits.
    #[error("the system has no randomness to give")]
    Randomness(#[source] getrandom::Error),
}

/// Everything that is wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistakes(pub Vec<Mistake>);

/// Sessions were cut: they had not ended when the time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sessions with the hub were cut, because the time to stop was over")]
pub struct Cut;

impl Upstream {
    /// Registers the configured devices, begins to hold sessions, and takes the judge's seat.
    ///
    /// # Errors
    ///
    /// The configuration has mistakes, a key or a certificate cannot be read, or the store failed.
    pub async fn start(config: Config, store: Store, node: NodeId) -> Result<Self, StartError> {
        let is_durable = store.outbox.is_durable();
        let mut mistakes = config.mistakes();
        if !is_durable {
            mistakes.extend(config.mistakes_without_disk());
        }
        if !mistakes.is_empty() {
            return Err(StartError::Config(Mistakes(mistakes)));
        }
        let (config, secrets) = load_secrets(config).await?;
        let mut pinned: Vec<Identity> = Vec::new();
        for record in config.records(is_durable) {
            if record.is_pinned {
                pinned.push(record.identity.clone());
            }
            store.registry.put_device(record).await?;
        }
        let seat = store.judge.clone();
        let node = Arc::new(Node::new(node, &config, secrets, store));
        let stop = node.stop.clone();
        let reach = Reach::of(&config, &node);
        let stop_by = Arc::clone(&node.stop_by);
        let questions = TaskTracker::new();
        seat.appoint(Arc::new(Judge::new(Arc::clone(&node), questions.clone())));
        let mut tasks = JoinSet::new();
        tasks.spawn(manager::run(node, config.max_sessions, pinned));
        Ok(Self {
            stop,
            stop_by,
            tasks,
            questions,
            seat,
            reach,
        })
    }

    /// Tells, whenever it is asked, which hubs could be reached.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach.clone()
    }

    /// Ends all sessions in order: nothing more is taken, what is in flight is awaited for about half of `limit` at most,
    /// methods are unsubscribed, DISCONNECT. What has not ended after `limit` is cut.
    ///
    /// # Errors
    ///
    /// Something was cut.
    pub async fn shutdown(mut self, limit: Duration) -> Result<(), Cut> {
        self.seat.vacate();
        let margin = MARGIN.min(limit / 4);
        // Set once: `shutdown` takes the only handle there is.
        let _ = self.stop_by.set(now() + (limit - margin));
        self.stop.cancel();
        self.questions.close();
        let ended = async {
            self.questions.wait().await;
            while self.tasks.join_next().await.is_some() {}
        };
        tokio::time::timeout(limit, ended).await.map_err(|_| Cut)
    }
}

impl Reach {
    fn of(config: &Config, node: &Node) -> Self {
        let names = config.hubs.iter().map(|hub| &hub.name);
        let hubs = names.filter_map(|name| Some((name.clone(), Arc::clone(node.hubs.get(name)?))));
        Self(Arc::new(hubs.collect()))
    }

    /// The hubs in the order of the configuration, and whether the last attempt to connect got as far as the hub; none if there has been none.
    pub fn hubs(&self) -> impl Iterator<Item = (&HubName, Option<bool>)> {
        let hubs = self.0.iter();
        hubs.map(|(name, hub)| (name, hub.endpoint.reached()))
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.hubs()).finish()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.seat.vacate();
        self.stop.cancel();
    }
}

/// Reads keys and certificates off the async threads.
async fn load_secrets(config: Config) -> Result<(Config, Secrets), StartError> {
    let loaded = tokio::task::spawn_blocking(move || {
        let secrets = Secrets::load(&config);
        (config, secrets)
    });
    match loaded.await {
        Ok((config, Ok(secrets))) => Ok((config, secrets)),
        Ok((_, Err(LoadError::Keys(mistakes)))) => Err(StartError::Config(Mistakes(mistakes))),
        Ok((_, Err(LoadError::Endpoint(error)))) => Err(StartError::Hub(error)),
        Ok((_, Err(LoadError::Randomness(error)))) => Err(StartError::Randomness(error)),
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for mistake in &self.0 {
            write!(f, "{separator}{mistake}")?;
            separator = "\n";
        }
        Ok(())
    }
}

/// Time between the sessions' last packets and the end of `shutdown`: for their sockets, and to give the leases back.
const MARGIN: Duration = Duration::from_millis(250);
