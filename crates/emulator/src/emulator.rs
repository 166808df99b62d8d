//! Start and stop.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use iothub::{DeviceId, HubName};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{
    Config, Tls, http,
    hub::{Error, Hub, Now, Random},
    listen::{self, Listener},
    mqtt,
    shell::Shell,
};

/// A running emulator.
///
/// Dropped without [`Emulator::shutdown`], it stops as soon as its tasks see it, without waiting for them.
pub struct Emulator {
    shell: Arc<Shell>,
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

/// Connections were still open at the end of the time, and were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connections were still open at the end of the time for shutdown, and were cut")]
pub struct ShutdownTimeout;

impl Emulator {
    /// Listens on both addresses and runs until [`Emulator::shutdown`].
    ///
    /// # Errors
    ///
    /// An address that is taken, a certificate that cannot be used, or a device twice in the configuration.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let mqtt_tls = acceptor(&config.tls, &[])?;
        let https_tls = acceptor(&config.tls, &[b"h2", b"http/1.1"])?;
        let mqtt = bind("MQTT", config.mqtt).await?;
        let https = bind("HTTPS", config.https).await?;
        let hub_name = config.hub.name.clone();
        let random = Random::new(|bytes| {
            getrandom::fill(bytes).expect("the system has a source of random bytes");
        });
        let mut hub = Hub::new(config.hub, random);
        for (device, spec) in config.devices {
            hub.create_device(&device, spec, Now::read())
                .map_err(|source| StartError::Device { device, source })?;
        }
        let limits = config.limits;
        let shell = Arc::new(Shell::new(hub, limits.unwritten_bytes));
        let router = http::router(
            Arc::clone(&shell),
            http::Access::new(
                &hub_name,
                config.allowed_hosts,
                config.token,
                config.token_opens_service_api,
            ),
            limits,
        );
        let emulator = Self {
            mqtt: mqtt.address,
            https: https.address,
            shell: Arc::clone(&shell),
            hub_name,
        };
        shell.tasks.spawn(Arc::clone(&shell).run_timers());
        shell.tasks.spawn(listen::run(
            mqtt.listener(mqtt_tls, limits.mqtt_connections, limits.handshake),
            Arc::clone(&shell),
            {
                let shell = Arc::clone(&shell);
                move |stream| mqtt::serve(Arc::clone(&shell), stream, limits.write)
            },
        ));
        shell.tasks.spawn(listen::run(
            https.listener(https_tls, limits.https_connections, limits.handshake),
            Arc::clone(&shell),
            {
                let shell = Arc::clone(&shell);
                move |stream| http::serve(Arc::clone(&shell), stream, router.clone(), limits)
            },
        ));
        Ok(emulator)
    }

    /// Closes all connections and waits until they are gone.
    ///
    /// # Errors
    ///
    /// Some were not gone at the end of `time`.
    pub async fn shutdown(self, time: Duration) -> Result<(), ShutdownTimeout> {
        self.shell.stop.cancel();
        self.shell.tasks.close();
        tokio::time::timeout(time, self.shell.tasks.wait())
            .await
            .map_err(|_| ShutdownTimeout)
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

    /// Works on the hub itself, with the time of now: for tests and for who runs it in-process. `act` must be short: every
    /// connection waits for it. The result of a method that is invoked here is not to be had; use the REST API.
    pub fn with_hub<R>(&self, act: impl FnOnce(&mut Hub, Now) -> R) -> R {
        self.shell.with(act)
    }

    /// `HostName=...;DeviceId=...;SharedAccessKey=...`, as Azure's samples take it.
    ///
    /// # Errors
    ///
    /// There is no such device.
    pub fn device_connection_string(&self, device: &DeviceId) -> Result<String, Error> {
        let key = self.with_hub(|hub, _| hub.device(device))?.keys.primary;
        Ok(format!(
            "HostName={};DeviceId={device};SharedAccessKey={}",
            self.hub_name,
            key.to_base64()
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

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shell.stop.cancel();
    }
}

/// A bound socket and the address that it got.
struct Bound {
    socket: TcpListener,
    address: SocketAddr,
}

impl Bound {
    fn listener(self, tls: TlsAcceptor, connections: usize, handshake: Duration) -> Listener {
        Listener {
            socket: self.socket,
            tls,
            connections,
            handshake,
        }
    }
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<Bound, StartError> {
    let bound = async {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Bound { socket, address })
    };
    bound.await.map_err(|source| StartError::Bind {
        what,
        address,
        source,
    })
}

fn acceptor(tls: &Tls, protocols: &[&[u8]]) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(tls.certificates.clone(), tls.key.clone_key())?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config).into())
}
