//! From a hub's name to a TLS connection.
//!
//! The name is looked up anew for every connection, because a hub that fails over gets another address and keeps its
//! name. All addresses are tried in turn. Certificates are checked for the hub's name, which is also sent as SNI,
//! wherever the connection goes.

use std::{
    error::Error,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use iothub::HubName;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{
    CertificateDer, InvalidDnsNameError, ServerName,
    pem::{self, PemObject as _},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::config::{HubAddress, HubConfig};

/// Where and how one hub is reached.
pub(crate) struct Endpoint {
    mqtt: Place,
    https: Place,
    server_name: ServerName<'static>,
    tls: TlsConnector,
    step_timeout: Duration,
    /// Whether the last attempt to connect got as far as the hub.
    reached: Mutex<Option<bool>>,
}

/// The hub's doors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// MQTT over TLS.
    Mqtt,
    /// The HTTPS API.
    Https,
}

struct Place {
    host: String,
    port: u16,
}

/// Why there is no connection to the hub.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The name has no address.
    #[error("{host} could not be looked up")]
    Lookup {
        host: String,
        #[source]
        source: io::Error,
    },
    /// None of the addresses took the connection; this is the last one's reason.
    #[error("no TCP connection to {address}")]
    Tcp {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// The other side is not the hub, or speaks no TLS that we do.
    #[error("no TLS connection to {address}")]
    Tls {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// A step took too long.
    #[error("{step} took longer than {limit:?}")]
    Timeout { step: Step, limit: Duration },
}

/// The steps of a connection, each with its time limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Lookup,
    Tcp,
    Tls,
}

/// Why a hub of the configuration cannot be connected to at all.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The system's trusted certificates.
    #[error("the system has no trusted certificates; name a ca_file for {hub}")]
    NoRoots {
        /// The hub that needs them.
        hub: HubName,
    },
    /// The file of `ca_file`.
    #[error("{} holds no usable certificate", path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: CaFileError,
    },
    /// TLS cannot carry the name.
    #[error("{hub} is no name for TLS")]
    Name {
        /// Which.
        hub: HubName,
        /// Why.
        #[source]
        source: InvalidDnsNameError,
    },
    /// TLS cannot be used at all.
    #[error("TLS")]
    Tls(#[from] rustls::Error),
}

/// Why a PEM file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// It cannot be read, or is no PEM file.
    #[error("PEM")]
    Pem(#[from] pem::Error),
    /// A certificate in it.
    #[error("certificate")]
    Certificate(#[from] rustls::Error),
    /// No certificate in it.
    #[error("the file has no certificate")]
    Empty,
}

impl Endpoint {
    /// Prepares connections to a hub. Opens files, so not for an async thread.
    pub(crate) fn new(
        hub: &HubConfig,
        system_roots: &[CertificateDer<'static>],
        step_timeout: Duration,
    ) -> Result<Self, EndpointError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system_roots.iter().cloned());
        if let Some(path) = &hub.ca_file {
            add_file(&mut roots, path).map_err(|source| EndpointError::CaFile {
                path: path.clone(),
                source,
            })?;
        }
        if roots.is_empty() {
            return Err(EndpointError::NoRoots {
                hub: hub.name.clone(),
            });
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server_name = ServerName::try_from(hub.name.to_string());
        let server_name = server_name.map_err(|source| EndpointError::Name {
            hub: hub.name.clone(),
            source,
        })?;
        let place = |address: Option<&HubAddress>, default_port| Place {
            host: address.map_or_else(|| hub.name.to_string(), |address| address.host.clone()),
            port: address
                .and_then(|address| address.port)
                .unwrap_or(default_port),
        };
        Ok(Self {
            mqtt: place(hub.address.as_ref(), hub.mqtt_port),
            https: place(hub.https_address.as_ref(), HTTPS_PORT),
            server_name,
            tls: TlsConnector::from(Arc::new(config)),
            step_timeout,
            reached: Mutex::new(None),
        })
    }

    /// Whether the last attempt to connect got as far as the hub; none if there has been none.
    pub(crate) fn reached(&self) -> Option<bool> {
        *self.reached.lock()
    }

    /// Connects.
    pub(crate) async fn connect(&self, door: Door) -> Result<TlsStream<TcpStream>, ConnectError> {
        let connected = self.connect_to(door).await;
        *self.reached.lock() = Some(connected.is_ok());
        connected
    }

    async fn connect_to(&self, door: Door) -> Result<TlsStream<TcpStream>, ConnectError> {
        let place = match door {
            Door::Mqtt => &self.mqtt,
            Door::Https => &self.https,
        };
        let addresses = self.look_up(place).await?;
        let (tcp, address) = self.open_tcp(&addresses).await?;
        let handshake = self.tls.connect(self.server_name.clone(), tcp);
        timeout(self.step_timeout, handshake)
            .await
            .map_err(|_| self.too_slow(Step::Tls))?
            .map_err(|source| ConnectError::Tls { address, source })
    }

    async fn look_up(&self, place: &Place) -> Result<Vec<SocketAddr>, ConnectError> {
        let host = place.host.as_str();
        let lookup = tokio::net::lookup_host((host, place.port));
        let addresses = timeout(self.step_timeout, lookup)
            .await
            .map_err(|_| self.too_slow(Step::Lookup))?;
        let failed = |source| ConnectError::Lookup {
            host: host.to_owned(),
            source,
        };
        let addresses: Vec<_> = addresses.map_err(failed)?.collect();
        if addresses.is_empty() {
            return Err(failed(io::Error::other("the name has no address")));
        }
        Ok(addresses)
    }

    /// Tries one address after the other; each gets its share of the time that is left.
    async fn open_tcp(
        &self,
        addresses: &[SocketAddr],
    ) -> Result<(TcpStream, SocketAddr), ConnectError> {
        let deadline = Instant::now() + self.step_timeout;
        let mut last = self.too_slow(Step::Tcp);
        for (place, &address) in addresses.iter().enumerate() {
            let now = Instant::now();
            let tries_left = u32::try_from(addresses.len() - place).unwrap_or(u32::MAX);
            let share = now + deadline.saturating_duration_since(now) / tries_left;
            match timeout_at(share, TcpStream::connect(address)).await {
                Err(_) => last = self.too_slow(Step::Tcp),
                Ok(Err(source)) => last = ConnectError::Tcp { address, source },
                Ok(Ok(tcp)) => {
                    // Packets are small and each is awaited: Nagle's algorithm would hold them back. Where the
                    // option is refused, the connection is slower and otherwise sound.
                    let _ = tcp.set_nodelay(true);
                    return Ok((tcp, address));
                }
            }
        }
        Err(last)
    }

    const fn too_slow(&self, step: Step) -> ConnectError {
        ConnectError::Timeout {
            step,
            limit: self.step_timeout,
        }
    }
}

/// The certificates that the system trusts. Slow (tens of milliseconds) and blocking.
pub(crate) fn system_roots() -> Vec<CertificateDer<'static>> {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "a trusted certificate of the system could not be read");
    }
    loaded.certs
}

/// An error and all its causes on one line, for logs and for the session's status.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), CaFileError> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    if roots.len() == before {
        return Err(CaFileError::Empty);
    }
    Ok(())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "the name look-up",
            Self::Tcp => "the TCP connection",
            Self::Tls => "the TLS handshake",
        })
    }
}

const HTTPS_PORT: u16 = 443;
