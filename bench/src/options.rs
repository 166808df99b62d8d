//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::rows::Row;
use crate::stage::{HubKind, PeerKind};

/// Measures the gateway beside a bare proxy and a gateway written with Node, all on this machine.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  cargo run --release -p tombolo-bench -- --quick\n  \
                  cargo run --release -p tombolo-bench -- --only rate --rounds 7 --seconds 10\n  \
                  cargo run --release -p tombolo-bench -- --only memory --peers gateway,bare --json memory.json"
)]
pub(crate) struct Arguments {
    /// The part that this process plays; none is the conductor.
    #[command(subcommand)]
    pub(crate) role: Option<Role>,

    /// How often each peer is measured [default: 5, with --quick 2]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: Option<u16>,

    /// How long one measurement takes, in seconds [default: 5, with --quick 2]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=60))]
    seconds: Option<u16>,

    /// A first impression: 2 rounds of 2 s, 1,000 idle sessions that were quiet for 5 s
    #[arg(long)]
    quick: bool,

    /// Measure this row alone (may be given more than once)
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Row>,

    /// The peers to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [PeerKind::Gateway, PeerKind::BareProxy, PeerKind::Node])]
    peers: Vec<PeerKind>,

    /// The hub that the peers talk to
    #[arg(long, value_enum, default_value_t = HubKind::Mosquitto)]
    hub: HubKind,

    /// Client connections, each with one request in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,

    /// Devices that take turns
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(256..=10_000))]
    devices: u16,

    /// HTTP/2 instead of HTTP/1.1 between load generator and peer (not for the Node gateway)
    #[arg(long)]
    h2: bool,

    /// Idle sessions of the memory row, and connections of the connections row [default: 10000, with --quick 1000]
    #[arg(long, value_parser = clap::value_parser!(u16).range(100..=15_000))]
    sessions: Option<u16>,

    /// How long those are quiet before they are weighed, in seconds
    /// [default: 60, with --quick 5]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=120))]
    quiet: Option<u16>,

    /// Messages that the recovery row stores, in thousands [default: 1000, with --quick 100]
    #[arg(long, value_name = "THOUSANDS", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    messages: Option<u16>,

    /// Measure this binary of the gateway instead of building one
    #[arg(long, value_name = "FILE")]
    gateway_binary: Option<PathBuf>,

    /// Write all samples to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A part that a process of this program can play. Their one argument is JSON from the conductor.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Drives a peer.
    #[command(hide = true)]
    Load {
        /// A [`crate::load::Plan`].
        plan: String,
    },
    /// Drives a hub.
    #[command(hide = true)]
    Devices {
        /// A [`crate::load::devices::Plan`].
        plan: String,
    },
    /// The floor that the gateway is compared with.
    #[command(hide = true)]
    BareProxy {
        /// A [`crate::bare_proxy::Settings`].
        settings: String,
    },
    /// Becomes another program that ends when the conductor does.
    #[command(hide = true)]
    Leashed {
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// What the conductor shall do.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) measured: Duration,
    pub(crate) rows: Vec<Row>,
    pub(crate) peers: Vec<PeerKind>,
    pub(crate) hub: HubKind,
    pub(crate) connections: usize,
    pub(crate) devices: usize,
    pub(crate) http2: bool,
    pub(crate) sessions: usize,
    pub(crate) quiet: Duration,
    pub(crate) messages: usize,
    pub(crate) gateway_binary: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
}

impl Arguments {
    /// The options with `--quick` and the defaults worked in.
    pub(crate) fn options(self) -> Options {
        let (rounds, seconds, sessions, quiet, messages) = if self.quick {
            (2, 2, 1000, 5, 100)
        } else {
            (5, 5, 10_000, 60, 1000)
        };
        let duration = |seconds: u16| Duration::from_secs(u64::from(seconds));
        let mut peers = self.peers;
        peers.sort_unstable();
        peers.dedup();
        if self.h2 {
            // Fastify serves HTTP/2 by another API; the comparison is about HTTP/1.1.
            peers.retain(|&peer| peer != PeerKind::Node);
        }
        let mut rows = self.only;
        if rows.is_empty() {
            rows = Row::value_variants().to_vec();
        }
        Options {
            rounds: usize::from(self.rounds.unwrap_or(rounds)),
            measured: duration(self.seconds.unwrap_or(seconds)),
            rows,
            peers,
            hub: self.hub,
            connections: usize::from(self.connections),
            devices: usize::from(self.devices),
            http2: self.h2,
            sessions: usize::from(self.sessions.unwrap_or(sessions)),
            quiet: duration(self.quiet.unwrap_or(quiet)),
            messages: usize::from(self.messages.unwrap_or(messages)) * 1000,
            gateway_binary: self.gateway_binary,
            json: self.json,
        }
    }
}
