//! What an emulator is started with.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use iothub::DeviceId;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;

use crate::hub::{self, DeviceSpec, FaultRule};

/// What an emulator is started with.
#[derive(Debug)]
pub struct Config {
    /// The hub: its name, its policies, its rules.
    pub hub: hub::Config,
    /// File in which the hub's identities, twins, sessions and queues are kept from one start to the next; they live in
    /// memory alone without. It holds keys.
    pub state: Option<PathBuf>,
    /// What goes wrong from the start.
    pub faults: Vec<FaultRule>,
    /// Devices that are there from the start.
    pub devices: Vec<(DeviceId, DeviceSpec)>,
    /// Certificate authorities whose devices may connect with their certificates, from the start.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Where devices connect over MQTT. Port 0 takes a free one; a real hub has 8883.
    pub mqtt: SocketAddr,
    /// Where the REST API is. Port 0 takes a free one; a real hub has 443.
    pub https: SocketAddr,
    /// Where both listeners move, with their ports, when the fault `fail-over` asks for it; until then nobody listens there.
    pub other_address: Option<IpAddr>,
    /// Certificate and key of both listeners.
    pub tls: Tls,
    /// Names and addresses by which the REST API may be asked for, without port, beside the hub's name. Another `Host` is
    /// refused, so that a web page cannot reach the emulator by a name that it made point to this machine.
    pub allowed_hosts: Vec<String>,
    /// What `Authorization: Bearer` must say for `/emulator/...`.
    pub token: SecretString,
    /// Whether the same token opens the service REST API as well. A real hub knows nothing of it; it spares people with
    /// curl the making of a shared access signature.
    pub token_opens_service_api: bool,
    /// Bounds of the listeners.
    pub limits: Limits,
}

/// Certificate and key of a listener.
pub struct Tls {
    /// The chain, the listener's own certificate first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// Bounds of the listeners: everything from outside has a limit and a deadline.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// MQTT connections at a time, over TLS and WebSocket together; more wait in the backlog of the system, or are answered
    /// 503 over WebSocket.
    pub mqtt_connections: usize,
    /// HTTPS connections at a time.
    pub https_connections: usize,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Time for the headers of a request, and for the next request on an open connection.
    pub headers: Duration,
    /// Time for the body of a request.
    pub body: Duration,
    /// Bytes of the body of a request.
    pub body_bytes: usize,
    /// Bytes of one WebSocket message, and of one frame; more end the connection. The largest MQTT packet has some 328,000.
    pub websocket_message_bytes: usize,
    /// Time for one write to a device that does not read.
    pub write: Duration,
    /// Bytes that may wait to be written to one device; more, and the connection is closed.
    pub unwritten_bytes: usize,
}

impl Config {
    /// A hub on free loopback ports, with the defaults for the rest.
    #[must_use]
    pub fn new(hub: hub::Config, tls: Tls, token: SecretString) -> Self {
        Self {
            hub,
            state: None,
            faults: Vec::new(),
            devices: Vec::new(),
            authorities: Vec::new(),
            mqtt: SocketAddr::from(([127, 0, 0, 1], 0)),
            https: SocketAddr::from(([127, 0, 0, 1], 0)),
            other_address: None,
            tls,
            allowed_hosts: ["localhost", "127.0.0.1", "[::1]"]
                .map(str::to_owned)
                .into(),
            token,
            token_opens_service_api: true,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mqtt_connections: 20_000,
            https_connections: 512,
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(30),
            body: Duration::from_secs(30),
            body_bytes: 1024 * 1024,
            websocket_message_bytes: 512 * 1024,
            write: Duration::from_secs(10),
            unwritten_bytes: 4 * 1024 * 1024,
        }
    }
}

/// Never shows the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("certificates", &self.certificates.len())
            .finish_non_exhaustive()
    }
}
