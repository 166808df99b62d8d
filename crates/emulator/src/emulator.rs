//! Start and stop.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use iothub::{DeviceId, HubName};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
};

use crate::{
    Config, http,
    hub::{self, Error, Hub, Now, Random},
    life::Life,
    listen::{self, Listener, Moves},
    mqtt,
    provisioning::{self, service::GroupId},
    shell::Shell,
    state::{self, StateError, StateFile},
    tls,
    x509::AuthorityError,
};

/// A running emulator.
///
/// Dropped without [`Emulator::shutdown`], it stops as soon as its tasks see it, without waiting for them.
pub struct Emulator {
    shell: Arc<Shell>,
    life: Life,
    state: Option<Arc<StateFile>>,
    hub_name: HubName,
    mqtt: SocketAddr,
    https: SocketAddr,
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address is taken, or not this machine's.
    #[error("could not listen for {what} on {address}")]
    Bind {
        /// `MQTT` or `HTTPS`.
        what: &'static str,
        /// The address from the configuration.
        address: SocketAddr,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("the certificate or its key cannot be used")]
    Tls(#[from] rustls::Error),
    /// A certificate from the configuration is no authority's.
    #[error("a certificate authority for devices cannot be used")]
    Authority(#[from] AuthorityError),
    /// What was kept cannot be read, or the file not be written.
    #[error("what was kept cannot be used")]
    State(#[from] StateError),
    /// There are more faults than there may be.
    #[error("the faults cannot be begun with")]
    Faults(#[source] Error),
    /// An enrollment group from the configuration cannot be created.
    #[error("enrollment group {group} could not be created")]
    Group {
        /// Which.
        group: GroupId,
        /// Why not.
        #[source]
        source: provisioning::service::Error,
    },
    /// A device from the configuration cannot be created.
    #[error("device {device} could not be created")]
    Device {
        /// Which.
        device: DeviceId,
        /// Why not.
        #[source]
        source: Error,
    },
}

/// A hub that runs, for those of the same process who work on it: the provisioning service. It lasts as long as its last
/// handle, but nobody connects to it any more once its [`Emulator`] has stopped.
#[derive(Clone)]
pub struct HubHandle {
    shell: Arc<Shell>,
    name: HubName,
}

/// Connections were still open at the end of the time, and were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connections were still open at the end of the time for shutdown, and were cut")]
pub struct ShutdownTimeout;

/// An emulator that did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// Connections were cut.
    #[error(transparent)]
    Timeout(#[from] ShutdownTimeout),
    /// What was to be kept is not on disk.
    #[error("the last changes of the state are not kept")]
    State(#[from] StateError),
}

impl Emulator {
    /// Listens on both addresses and runs until [`Emulator::shutdown`].
    ///
    /// # Errors
    ///
    /// An address that is taken, a certificate or a state file that cannot be used, a device twice in the configuration, or
    /// too many faults.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let mqtt_tls = tls::acceptor(&config.tls, &[])?;
        let https_tls = tls::acceptor(&config.tls, &[b"h2", b"http/1.1"])?;
        let (mqtt, mqtt_address) = bind("MQTT", config.mqtt).await?;
        let (https, https_address) = bind("HTTPS", config.https).await?;
        let other = |what, taken: SocketAddr| {
            config
                .other_address
                .map(|address| reserve(what, SocketAddr::new(address, taken.port())))
                .transpose()
        };
        let mqtt_other = other("MQTT", mqtt_address)?;
        let https_other = other("HTTPS", https_address)?;
        let hub_name = config.hub.name.clone();
        let rules = hub::Config {
            has_other_address: config.other_address.is_some(),
            ..config.hub
        };
        let mut hub = Hub::new(rules, Random::system());
        for certificate in &config.authorities {
            hub.authorities_mut().add(certificate)?;
        }
        let state = config.state.map(StateFile::at).map(Arc::new);
        if let Some(file) = &state {
            file.load::<Shell, _>(|json| hub.recall(json, Now::read()))?;
        }
        for (device, spec) in config.devices {
            // What the state file knows of it is newer.
            if state.is_some() && hub.device(&device).is_ok() {
                continue;
            }
            hub.create_device(&device, spec, Now::read())
                .map_err(|source| StartError::Device { device, source })?;
        }
        for rule in config.faults {
            hub.inject(rule, Now::read()).map_err(StartError::Faults)?;
        }
        let (limits, life) = (config.limits, Life::default());
        let shell = Arc::new(Shell::new(hub, limits.unwritten_bytes, life.stop.clone()));
        if let Some(file) = &state {
            file.save(&*shell)?;
            let (file, shell) = (Arc::clone(file), Arc::clone(&shell));
            life.spawn(state::keep(file, shell, life.stop.clone()));
        }
        let server = mqtt::Server {
            wiring: Arc::clone(&shell.wiring),
            slots: Arc::new(Semaphore::new(limits.mqtt_connections)),
            write: limits.write,
            stop: life.stop.clone(),
        };
        let access = http::Access::new(
            &hub_name,
            config.allowed_hosts,
            config.token,
            config.token_opens_service_api,
        );
        let router = http::router(Arc::clone(&shell), server.clone(), access, limits);
        life.spawn(Arc::clone(&shell.wiring).run_timers(life.stop.clone()));
        let moves = |other: Option<TcpSocket>| {
            other.map(|other| Moves {
                other,
                place: shell.watch_place(),
                is_there: false,
            })
        };
        let listener = Listener {
            socket: mqtt,
            tls: mqtt_tls,
            slots: Arc::clone(&server.slots),
            handshake: limits.handshake,
            moves: moves(mqtt_other),
        };
        life.spawn(listen::run(listener, life.clone(), move |accepted| {
            let server = server.until(accepted.stop);
            let (stream, peer, slot) = (accepted.stream, accepted.peer, accepted.slot);
            async move { server.serve(stream, peer, slot).await }
        }));
        let listener = Listener {
            socket: https,
            tls: https_tls,
            slots: Arc::new(Semaphore::new(limits.https_connections)),
            handshake: limits.handshake,
            moves: moves(https_other),
        };
        life.spawn(listen::run(listener, life.clone(), move |accepted| {
            http::serve(accepted, router.clone(), limits)
        }));
        Ok(Self {
            shell,
            life,
            state,
            hub_name,
            mqtt: mqtt_address,
            https: https_address,
        })
    }

    /// Closes all connections, waits until they are gone, and writes what is to be kept.
    ///
    /// # Errors
    ///
    /// Some were not gone at the end of `time`, or the state could not be written.
    pub async fn shutdown(self, time: Duration) -> Result<(), ShutdownError> {
        let ended = self.life.end(time).await.map_err(|_| ShutdownTimeout);
        if let Some(file) = &self.state {
            file.save(&*self.shell)?;
        }
        Ok(ended?)
    }

    /// Where devices connect over MQTT, with the port that was taken.
    #[must_use]
    pub const fn mqtt_address(&self) -> SocketAddr {
        self.mqtt
    }

    /// Where the REST API is, with the port that was taken.
    #[must_use]
    pub const fn https_address(&self) -> SocketAddr {
        self.https
    }

    /// The hub's name.
    #[must_use]
    pub const fn hub_name(&self) -> &HubName {
        &self.hub_name
    }

    /// A way to the hub that does not hold the emulator.
    #[must_use]
    pub fn handle(&self) -> HubHandle {
        HubHandle {
            shell: Arc::clone(&self.shell),
            name: self.hub_name.clone(),
        }
    }

    /// Works on the hub itself, with the time of now: for tests and for who runs it in-process. `act` must be short: every
    /// connection waits for it. The result of a method that is invoked here is not to be had; use the REST API.
    pub fn with_hub<R>(&self, act: impl FnOnce(&mut Hub, Now) -> R) -> R {
        self.shell.with(act)
    }

    /// `HostName=...;DeviceId=...;SharedAccessKey=...`, as Azure's samples take it; `...;x509=true` for a device with a
    /// certificate.
    ///
    /// # Errors
    ///
    /// There is no such device.
    pub fn device_connection_string(&self, device: &DeviceId) -> Result<String, Error> {
        let info = self.with_hub(|hub, _| hub.device(device))?;
        let proof = match info.authentication.keys() {
            Some(keys) => format!("SharedAccessKey={}", keys.primary.to_base64()),
            None => "x509=true".to_owned(),
        };
        Ok(format!(
            "HostName={};DeviceId={device};{proof}",
            self.hub_name
        ))
    }

    /// `HostName=...;SharedAccessKeyName=...;SharedAccessKey=...`, if there is such a policy.
    #[must_use]
    pub fn service_connection_string(&self, policy: &str) -> Option<String> {
        let find = |hub: &mut Hub, _| {
            let policy = hub.policies().iter().find(|p| p.name == policy)?;
            Some(policy.primary.to_base64())
        };
        let key = self.with_hub(find)?;
        Some(format!(
            "HostName={};SharedAccessKeyName={policy};SharedAccessKey={key}",
            self.hub_name
        ))
    }
}

impl HubHandle {
    /// The hub's name.
    #[must_use]
    pub const fn name(&self) -> &HubName {
        &self.name
    }

    /// See [`Emulator::with_hub`].
    pub fn with_hub<R>(&self, act: impl FnOnce(&mut Hub, Now) -> R) -> R {
        self.shell.with(act)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.life.stop.cancel();
    }
}

pub(crate) async fn bind(
    what: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    listen::bind(address)
        .await
        .map_err(|source| StartError::Bind {
            what,
            address,
            source,
        })
}

fn reserve(what: &'static str, address: SocketAddr) -> Result<TcpSocket, StartError> {
    listen::reserve(address).map_err(|source| StartError::Bind {
        what,
        address,
        source,
    })
}
