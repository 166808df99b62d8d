//! What devices and operators touch: the listeners, authentication, the verbs of a device, the waiting for what the hub
//! sends, and the admin API.
//!
//! How a request finds its way: `http/listen` accepts a connection, `http` checks the request and finds its handler,
//! `auth` turns its credential into a grant, the handler calls one verb of `devices` or `delivery`, which speak
//! to the store and to nothing else. `tokens` makes gateway tokens. What goes wrong on the way becomes an answer in `http/problem`, and only there.
//!
//! [`Front::start`] binds the listeners and returns a [`Handle`], which stops them in order: nothing new is accepted,
//! handshakes are dropped, long-polls end with what is known, and writes in flight get their answers. A write that the
//! hub leaves open is answered at the last call: that its outcome is not known. What is left at the deadline is cut.
//!
//! The store must keep working until [`Handle::shutdown`] has returned, for requests in flight wait for it.

mod auth;
mod config;
mod delivery;
mod devices;
mod http;
pub mod metrics;
pub mod shown;
mod tokens;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use iothub::HubName;
use rustls::ServerConfig;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use store::Store;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

#[cfg(feature = "fuzzing")]
pub use self::http::fuzzing::{batch_messages, takes_head};
pub use self::{
    config::{Config, InvalidServedName, Limits, ServedName, Waits},
    http::tls::CertificateError,
};
use self::{
    http::{
        Admin, Gateway, Listeners,
        listen::{Shared, accept},
        tls::Certificate,
    },
    metrics::Metrics,
};

/// Renders the metrics of the process in the text format of Prometheus.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What is known of the ways to the hubs, for `/readyz`.
pub type ReportHubs = Arc<dyn Fn() -> Vec<HubReport> + Send + Sync>;

/// What the store has on its disk, for the admin API; none if nothing survives a restart.
pub type ReportDisk = Arc<dyn Fn() -> Option<api::admin::Disk> + Send + Sync>;

/// What is known of the way to one hub.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct HubReport {
    /// The hub.
    pub hub: HubName,
    /// Whether the last attempt to connect got as far as the hub; none if there has been none.
    pub reached: Option<bool>,
}

/// What the front works with, from the composition root.
pub struct Parts {
    /// The contract with the other half.
    pub store: Store,
    /// The hubs whose devices a request may reach, and the admin API may name.
    pub hubs: Vec<HubName>,
    /// What opens the admin API.
    pub admin_token: SecretString,
    /// What `/metrics` answers.
    pub render_metrics: RenderMetrics,
    /// What `/readyz` tells of the hubs.
    pub report_hubs: ReportHubs,
    /// What the admin API tells of the store's disk.
    pub report_disk: ReportDisk,
}

/// The device-facing half of the gateway.
pub struct Front;

/// A front that runs. Dropping it does not stop it: call [`Handle::shutdown`].
pub struct Handle {
    /// Where the device API listens; port 0 has become a real one.
    addresses: Vec<SocketAddr>,
    admin_address: SocketAddr,
    certificate: Arc<Certificate>,
    tasks: TaskTracker,
    stop: Stop,
}

/// How far stopping has come.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    /// Cancelled when the front begins to stop.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when requests in flight have to be answered with what is known.
    pub(crate) last_call: CancellationToken,
    /// Cancelled when whatever is left must go.
    pub(crate) cut: CancellationToken,
}

/// Why the front could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No address to listen at.
    #[error("listen names no address")]
    NoAddress,
    /// No name to answer to.
    #[error("names names no host: every request would be refused")]
    NoName,
    /// The admin API must not be reachable from outside.
    #[error("admin_listen is {0}: the admin API listens on loopback only")]
    AdminNotLoopback(SocketAddr),
    /// Anybody could open the admin API.
    #[error("the token of the admin API is empty")]
    NoAdminToken,
    /// An address is taken, or is not this machine's.
    #[error("{address} cannot be listened at")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate.
    #[error("the certificate of the device API")]
    Certificate(#[from] CertificateError),
    /// The system gives no random bits.
    #[error("the system has no randomness to give")]
    Randomness(#[source] getrandom::Error),
}

/// Requests were cut off because they did not end before the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{connections} connections or requests did not end in time and were cut off")]
pub struct CutOff {
    /// How many tasks were left.
    pub connections: usize,
}

impl Front {
    /// Binds the listeners and serves them until [`Handle::shutdown`].
    ///
    /// # Errors
    ///
    /// The configuration cannot be followed: an address is taken, the certificate is unusable.
    pub async fn start(config: Config, parts: Parts) -> Result<Handle, StartError> {
        if config.names.is_empty() {
            return Err(StartError::NoName);
        }
        if config.listen.is_empty() {
            return Err(StartError::NoAddress);
        }
        if !config.admin_listen.ip().is_loopback() {
            return Err(StartError::AdminNotLoopback(config.admin_listen));
        }
        if parts.admin_token.expose_secret().is_empty() {
            return Err(StartError::NoAdminToken);
        }
        let certificate =
            Certificate::load(config.certificate_file.clone(), config.key_file.clone()).await?;
        let tls: Arc<ServerConfig> = Arc::new(certificate.server_config()?);

        let mut listeners = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            listeners.push(bind(*address).await?);
        }
        let (admin_listener, admin_address) = bind(config.admin_listen).await?;

        let (tasks, stop) = (TaskTracker::new(), Stop::default());
        let metrics = Arc::new(Metrics::new());
        let listening = Arc::<Listeners>::default();
        let gateway = Gateway::new(&config, &parts, metrics.clone(), tasks.clone(), &stop)
            .map_err(StartError::Randomness)?;
        let gateway = Arc::new(gateway);
        let admin = Arc::new(
            Admin::new(&config, parts, metrics.clone(), listening.clone(), &stop)
                .map_err(StartError::Randomness)?,
        );
        let shared = |connections| {
            Arc::new(Shared {
                limits: config.limits.clone(),
                waits: config.waits.clone(),
                metrics: metrics.clone(),
                connections: Arc::new(Semaphore::new(connections)),
                tasks: tasks.clone(),
                stop: stop.clone(),
            })
        };

        let of_devices = shared(config.limits.connections);
        let mut addresses = Vec::with_capacity(listeners.len());
        for (listener, address) in listeners {
            addresses.push(address);
            let acceptor = TlsAcceptor::from(tls.clone());
            tasks.spawn(accept(
                listener,
                listening.begin(),
                Some(acceptor),
                gateway.clone(),
                of_devices.clone(),
            ));
        }
        // Operators keep their way in when devices have taken all of theirs.
        tasks.spawn(accept(
            admin_listener,
            listening.begin(),
            None,
            admin,
            shared(ADMIN_CONNECTIONS),
        ));
        info!(?addresses, admin = %admin_address, "listening");
        Ok(Handle {
            addresses,
            admin_address,
            certificate,
            tasks,
            stop,
        })
    }
}

impl Handle {
    /// Stops in order: nothing new is accepted, long-polls end with what is known, requests in flight get their
    /// answers, by the last call (half of `deadline`, 1.5 s at most) that their outcome is not known. What is left after
    /// `deadline` is cut off.
    ///
    /// # Errors
    ///
    /// Something was cut off.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), CutOff> {
        self.stop.stopping.cancel();
        self.tasks.close();
        let end = Instant::now() + deadline;
        let last_call = (deadline / 2).min(LAST_CALL);
        if timeout(last_call, self.tasks.wait()).await.is_ok() {
            return Ok(());
        }
        self.stop.last_call.cancel();
        if timeout_at(end, self.tasks.wait()).await.is_ok() {
            return Ok(());
        }
        let cut_off = CutOff {
            connections: self.tasks.len(),
        };
        warn!(
            tasks = cut_off.connections,
            "cutting off what did not end in time"
        );
        self.stop.cut.cancel();
        Err(cut_off)
    }

    /// Reads the certificate and its key again. New connections get what the files hold then; if that is unusable,
    /// they go on getting what they got before.
    ///
    /// # Errors
    ///
    /// The files hold no certificate and key that go together.
    pub async fn reload_certificate(&self) -> Result<(), CertificateError> {
        self.certificate.reload().await?;
        info!("the certificate was reloaded");
        Ok(())
    }

    /// Where the device API listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin API listens.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Connections that the admin listener takes at once.
const ADMIN_CONNECTIONS: usize = 64;
/// How long requests in flight may go on when the front stops. A client that hears nothing for longer cannot tell a
/// stopping gateway from a lost network.
const LAST_CALL: Duration = Duration::from_millis(1500);
