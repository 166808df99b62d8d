//! A hub and one peer, running.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::Serialize;
use tokio_rustls::TlsConnector;

use crate::bare_proxy;
use crate::fleet::Fleet;
use crate::http_client::{Connection, Prepared};
use crate::load::{Outcome, Plan, Step, Writing};
use crate::process::{self, Process};
use crate::rig::Rig;
use crate::tls::{self, Endpoint};

pub(crate) mod certificates;
mod emulator;
pub(crate) mod gateway;
mod hub_alone;
mod kept;
mod mosquitto;
pub(crate) mod node;

pub(crate) use hub_alone::HubStage;
pub(crate) use kept::Kept;

/// What stands between the load generator and the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PeerKind {
    /// `tombolo serve`
    #[value(name = "gateway")]
    Gateway,
    /// The least that a gateway can do
    #[value(name = "bare")]
    BareProxy,
    /// The same gateway written with fastify and Azure's device SDK
    #[value(name = "node")]
    Node,
}

/// The hub that the peers talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum HubKind {
    /// The broker of the Debian package: fast, and nobody's relative
    Mosquitto,
    /// `tombolo emulator`: checks what IoT Hub checks
    Emulator,
}

/// How the gateway of a stage is set up, beyond what every peer is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Setting {
    /// It keeps on a disk what must survive.
    pub(crate) has_disk: bool,
    /// Nobody listens where it looks for the hub.
    pub(crate) is_hub_away: bool,
}

/// A hub and one peer. Both end when this is dropped.
pub(crate) struct Stage<'a> {
    rig: &'a Rig,
    folder: PathBuf,
    hub: Hub,
    kind: PeerKind,
    peer: Peer,
    fleet: Fleet,
}

struct Hub {
    process: Process,
    /// Where devices connect.
    endpoint: Endpoint,
    /// The service API, if the hub has to be told its devices.
    service: Option<Endpoint>,
    /// From the start of the process to the first TLS handshake.
    start: Duration,
}

/// A peer that answers.
struct Peer {
    process: Process,
    endpoint: Endpoint,
    /// From the start of the process to the first answer of any kind.
    start: Duration,
}

impl PeerKind {
    /// As tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::BareProxy => "bare proxy",
            Self::Node => "Node gateway",
        }
    }

    /// Whether devices can receive messages through it.
    pub(crate) fn is_receiving(self) -> bool {
        match self {
            Self::Gateway | Self::Node => true,
            Self::BareProxy => false,
        }
    }
}

impl HubKind {
    /// As tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto",
            Self::Emulator => "tombolo emulator",
        }
    }
}

impl<'a> Stage<'a> {
    /// Starts both, with that many devices.
    pub(crate) async fn open(rig: &'a Rig, kind: PeerKind, devices: usize) -> anyhow::Result<Self> {
        Self::open_with(rig, kind, devices, Setting::default()).await
    }

    /// Starts both, the gateway set up like this, with that many devices.
    pub(crate) async fn open_gateway(
        rig: &'a Rig,
        devices: usize,
        setting: Setting,
    ) -> anyhow::Result<Self> {
        Self::open_with(rig, PeerKind::Gateway, devices, setting).await
    }

    async fn open_with(
        rig: &'a Rig,
        kind: PeerKind,
        devices: usize,
        setting: Setting,
    ) -> anyhow::Result<Self> {
        let folder = rig.new_folder(kind.name())?;
        let mut fleet = Fleet::new(devices)?;
        let hub = Hub::open(rig, rig.options.hub, &folder, &fleet).await?;
        fleet.write(&folder.join(FLEET))?;
        let listen = free_address()?;
        let begun = Instant::now();
        let process = match kind {
            PeerKind::Gateway => {
                let mut known_hub = hub.endpoint.clone();
                if setting.is_hub_away {
                    known_hub.address = free_address()?;
                }
                gateway::configure(rig, &folder, listen, &known_hub, &fleet, setting.has_disk)?;
                gateway::start(rig, &folder)?
            }
            PeerKind::BareProxy => bare_proxy(rig, &folder, listen, &hub.endpoint)?,
            PeerKind::Node => node::start(rig, &folder, listen, &hub.endpoint, &fleet)?,
        };
        let mut peer = Peer {
            process,
            endpoint: rig.certificates.endpoint(listen, certificates::PEER),
            start: Duration::ZERO,
        };
        peer.wait(kind).await?;
        peer.start = begun.elapsed();
        match kind {
            PeerKind::Gateway => {
                gateway::hand_out_tokens(&folder, &mut fleet).await?;
                fleet.write(&folder.join(FLEET))?;
            }
            PeerKind::BareProxy | PeerKind::Node => {}
        }
        Ok(Self {
            rig,
            folder,
            hub,
            kind,
            peer,
            fleet,
        })
    }

    /// Has the load generator carry out these steps over that many connections.
    pub(crate) async fn load(
        &mut self,
        connections: usize,
        steps: &[Step],
    ) -> anyhow::Result<Vec<Outcome>> {
        self.write(Writing::Keyless, connections, steps).await
    }

    /// The same, with devices that write in this way.
    pub(crate) async fn write(
        &mut self,
        writing: Writing,
        connections: usize,
        steps: &[Step],
    ) -> anyhow::Result<Vec<Outcome>> {
        let plan = Plan {
            peer: self.peer.endpoint.clone(),
            hub: self.hub.endpoint.clone(),
            fleet_file: self.folder.join(FLEET),
            connections,
            http2: self.rig.options.http2,
            writing,
            peer_pid: self.peer.process.id()?,
            hub_pid: self.hub.process.id()?,
            steps: steps.to_vec(),
        };
        let arguments = ["load".to_owned(), serde_json::to_string(&plan)?];
        let printed =
            process::output("the load generator", &self.rig.own, arguments, LONGEST_LOAD).await;
        // A process that has died is the better explanation.
        self.hub.process.ensure_running()?;
        self.peer.process.ensure_running()?;
        serde_json::from_slice(&printed?)
            .context("the load generator printed something else than outcomes")
    }

    /// Waits until the hub has acknowledged so many messages of the gateway's devices.
    pub(crate) async fn delivered(&self, messages: u64) -> anyhow::Result<()> {
        let until = Instant::now() + LONGEST_DELIVERY;
        loop {
            let acknowledged = gateway::acknowledged(&self.folder).await?;
            if acknowledged >= messages {
                return Ok(());
            }
            if Instant::now() > until {
                bail!(
                    "the hub has {acknowledged} of {messages} messages {LONGEST_DELIVERY:?} later"
                );
            }
            tokio::time::sleep(LOOK_AT_METRICS).await;
        }
    }

    /// Ends the gateway, and starts it again with what it has kept, none of which is in the system's memory.
    pub(crate) async fn restart(mut self) -> anyhow::Result<Self> {
        self.peer.process.stop().await?;
        gateway::kept(&self.folder)?.forget()?;
        let begun = Instant::now();
        self.peer.process = gateway::start(self.rig, &self.folder)?;
        self.peer.wait(self.kind).await?;
        self.peer.start = begun.elapsed();
        Ok(self)
    }

    /// What the gateway has on its disk.
    pub(crate) fn kept(&self) -> anyhow::Result<Kept> {
        gateway::kept(&self.folder)
    }

    /// How many entries the gateway says that it has found at its start.
    pub(crate) fn recovered(&self) -> anyhow::Result<usize> {
        gateway::recovered(&self.peer.process)
    }

    /// Stops both.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        self.peer.process.stop().await?;
        self.hub.process.stop().await
    }

    /// How long the peer took to its first answer.
    pub(crate) fn start(&self) -> Duration {
        self.peer.start
    }

    /// Resident memory of the peer.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        process::resident_kib(self.peer.process.id()?)
    }

    /// How many devices there are.
    pub(crate) fn devices(&self) -> usize {
        self.fleet.devices.len()
    }
}

impl Hub {
    /// Starts it and makes the devices known.
    async fn open(rig: &Rig, kind: HubKind, folder: &Path, fleet: &Fleet) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut hub = match kind {
            HubKind::Mosquitto => mosquitto::start(rig, folder)?,
            HubKind::Emulator => emulator::start(rig, folder)?,
        };
        hub.wait().await?;
        hub.start = begun.elapsed();
        if let Some(service) = &hub.service {
            emulator::register(service, fleet).await?;
        }
        Ok(hub)
    }

    /// Waits for the end of a TLS handshake: then a device can connect.
    async fn wait(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + LONGEST_START;
        loop {
            // The emulator's authority is made at its start.
            if let Ok(tls) = tls::client(&self.endpoint.ca_file, &[])
                && self.endpoint.connect(&tls.into()).await.is_ok()
            {
                return Ok(());
            }
            again("the hub", &mut self.process, until).await?;
        }
    }
}

impl Peer {
    /// Waits for an answer, whatever it says.
    async fn wait(&mut self, kind: PeerKind) -> anyhow::Result<()> {
        let tls = TlsConnector::from(tls::client(&self.endpoint.ca_file, &[tls::HTTP1])?);
        let request = Prepared::new(&self.endpoint, http::Method::GET, "/healthz", "none", "")?;
        let until = Instant::now() + LONGEST_START;
        loop {
            if let Ok(mut connection) = Connection::open(&self.endpoint, &tls).await
                && connection.exchange(&request).await.is_ok()
            {
                return Ok(());
            }
            again(kind.name(), &mut self.process, until).await?;
        }
    }
}

/// Waits a little before the next look at a process that starts.
async fn again(name: &str, process: &mut Process, until: Instant) -> anyhow::Result<()> {
    process.ensure_running()?;
    if Instant::now() > until {
        bail!("{name} does not answer {LONGEST_START:?} after its start");
    }
    tokio::time::sleep(LOOK).await;
    Ok(())
}

fn bare_proxy(
    rig: &Rig,
    folder: &Path,
    listen: SocketAddr,
    hub: &Endpoint,
) -> anyhow::Result<Process> {
    let settings = bare_proxy::Settings {
        listen,
        certificate_file: rig.certificates.certificate_file.clone(),
        key_file: rig.certificates.key_file.clone(),
        hub: hub.clone(),
        fleet_file: folder.join(FLEET),
    };
    let arguments = ["bare-proxy".to_owned(), serde_json::to_string(&settings)?];
    Process::start(PeerKind::BareProxy.name(), &rig.own, arguments, folder)
}

/// An address on loopback that nobody listens on. It is free until somebody else takes it, so use it soon.
fn free_address() -> anyhow::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .context("could not find a free port")
}

const FLEET: &str = "fleet.json";
/// What a start is measured in.
const LOOK: Duration = Duration::from_millis(1);
/// Seldom enough to cost the gateway nothing.
const LOOK_AT_METRICS: Duration = Duration::from_millis(20);
/// A gateway that reads millions of stored messages at its start.
const LONGEST_START: Duration = Duration::from_secs(60);
/// What a minute of load has left behind, at a hub that is slow.
const LONGEST_DELIVERY: Duration = Duration::from_secs(120);
/// The longest plan: 15,000 sessions opened and received on, at a peer that is slow.
const LONGEST_LOAD: Duration = Duration::from_secs(400);
