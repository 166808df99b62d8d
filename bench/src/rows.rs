//! The figures: what they are called, which trial brings them, and what the gateway has to reach.

use std::fmt;

use clap::ValueEnum;

use crate::load::Writing;
use crate::stage::{HubKind, PeerKind};

mod figure;
mod samples;

pub(crate) use figure::{Comparison, Figure, Goal, Measure};
pub(crate) use samples::{Gained, Samples, Spread};

/// What `--only` chooses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// Telemetry acknowledged by the hub, messages a second
    Rate,
    /// Processor time per 1,000 messages
    Cpu,
    /// Latency at half load
    Latency,
    /// Memory of an idle session
    Memory,
    /// From the start of the process to the first answer
    Start,
    /// First request of a device that has no session
    Cold,
    /// Telemetry that is stored, has keys or comes in batches, beside single messages without a key
    Writes,
    /// Start with many stored messages, and what they take of disk and memory
    Recovery,
    /// Telemetry that the emulator takes, beside mosquitto
    Intake,
    /// Memory of an idle device connection at the emulator, beside mosquitto
    Connections,
    /// From the start of the emulator to its first answer
    HubStart,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Between the load generator and a hub.
    Peer(PeerKind),
    /// With devices of the load generator's own.
    Hub(HubKind),
    /// The gateway with a disk, written to in one way.
    Writing(Writing),
}

/// One pass with one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    Telemetry,
    Cold,
    Memory,
    Writes,
    Recovery,
    Intake,
    Connections,
}

/// A trial with one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    Telemetry(PeerKind),
    Cold(PeerKind),
    Memory(PeerKind),
    Writes(Writing),
    Recovery,
    Intake(HubKind),
    Connections(HubKind),
}

impl Row {
    /// What is printed for it: what it is about first.
    pub(crate) fn figures(self) -> &'static [Figure] {
        match self {
            Self::Rate => &[Figure::Rate, Figure::Neighbours],
            Self::Cpu => &[
                Figure::Processor,
                Figure::HubProcessor,
                Figure::LoadProcessor,
            ],
            Self::Latency => &[Figure::LatencyP50, Figure::LatencyP99, Figure::HalfLoad],
            Self::Memory => &[Figure::SessionMemory, Figure::ResidentMemory],
            Self::Start => &[Figure::Start],
            Self::Cold => &[Figure::Cold, Figure::Warm],
            Self::Writes => &[
                Figure::Written,
                Figure::Delivered,
                Figure::WritesProcessor,
                Figure::WritesNeighbours,
            ],
            Self::Recovery => &[
                Figure::Recovery,
                Figure::StoredStart,
                Figure::StoredOnDisk,
                Figure::StoredInMemory,
            ],
            Self::Intake => &[
                Figure::Intake,
                Figure::IntakeProcessor,
                Figure::IntakeLoadProcessor,
                Figure::IntakeNeighbours,
            ],
            Self::Connections => &[Figure::ConnectionMemory, Figure::ConnectionsResident],
            Self::HubStart => &[Figure::HubStart],
        }
    }

    fn trial(self) -> Trial {
        match self {
            Self::Rate | Self::Cpu | Self::Latency => Trial::Telemetry,
            Self::Memory => Trial::Memory,
            Self::Start | Self::Cold => Trial::Cold,
            Self::Writes => Trial::Writes,
            Self::Recovery => Trial::Recovery,
            Self::Intake | Self::HubStart => Trial::Intake,
            Self::Connections => Trial::Connections,
        }
    }
}

impl Trial {
    /// The trials that bring these rows.
    pub(crate) fn wanted(rows: &[Row]) -> impl Iterator<Item = Self> {
        [
            Self::Telemetry,
            Self::Cold,
            Self::Writes,
            Self::Intake,
            Self::Memory,
            Self::Recovery,
            Self::Connections,
        ]
        .into_iter()
        .filter(|&trial| rows.iter().any(|row| row.trial() == trial))
    }

    /// How often it is done, if `rounds` were asked for.
    pub(crate) fn rounds(self, rounds: usize) -> usize {
        match self {
            Self::Telemetry | Self::Cold | Self::Writes | Self::Intake => rounds,
            // They average over thousands of sessions or messages, and take minutes.
            Self::Memory | Self::Recovery | Self::Connections => 1,
        }
    }

    /// One run for each that it compares, of the peers that there are, of all hubs, of all ways to write.
    pub(crate) fn runs(self, peers: &[PeerKind]) -> Vec<Run> {
        let with_peers = |run: fn(PeerKind) -> Run| peers.iter().copied().map(run).collect();
        let with_hubs = |run: fn(HubKind) -> Run| {
            let hubs = HubKind::value_variants().iter().copied();
            hubs.map(run).collect()
        };
        let of_the_gateway = |runs: Vec<Run>| {
            let is_wanted = peers.contains(&PeerKind::Gateway);
            if is_wanted { runs } else { Vec::new() }
        };
        match self {
            Self::Telemetry => with_peers(Run::Telemetry),
            Self::Cold => with_peers(Run::Cold),
            Self::Memory => with_peers(Run::Memory),
            Self::Writes => of_the_gateway(Writing::COMPARED.map(Run::Writes).to_vec()),
            Self::Recovery => of_the_gateway(vec![Run::Recovery]),
            Self::Intake => with_hubs(Run::Intake),
            Self::Connections => with_hubs(Run::Connections),
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Telemetry => "telemetry",
            Self::Cold => "start and cold",
            Self::Memory => "memory",
            Self::Writes => "writes",
            Self::Recovery => "recovery",
            Self::Intake => "intake",
            Self::Connections => "connections",
        })
    }
}

impl Run {
    pub(crate) fn subject(self) -> Subject {
        match self {
            Self::Telemetry(peer) | Self::Cold(peer) | Self::Memory(peer) => Subject::Peer(peer),
            Self::Writes(writing) => Subject::Writing(writing),
            Self::Recovery => Subject::Peer(PeerKind::Gateway),
            Self::Intake(hub) | Self::Connections(hub) => Subject::Hub(hub),
        }
    }
}

impl Subject {
    /// As tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Peer(peer) => peer.name(),
            Self::Hub(hub) => hub.name(),
            Self::Writing(writing) => writing.name(),
        }
    }

    /// Who runs for it.
    pub(crate) fn program(self) -> Self {
        match self {
            Self::Peer(_) | Self::Hub(_) => self,
            Self::Writing(_) => Self::Peer(PeerKind::Gateway),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trial_may_bring_several_rows() {
        let wanted: Vec<_> = Trial::wanted(&[Row::Latency, Row::Rate, Row::Start]).collect();
        assert_eq!(wanted, [Trial::Telemetry, Trial::Cold]);
    }

    #[test]
    fn hubs_are_compared_with_each_other_and_not_with_peers() {
        let peers = [PeerKind::Gateway];
        let compared = |trial: Trial| {
            let runs = trial.runs(&peers).into_iter();
            runs.map(|run| run.subject().name()).collect::<Vec<_>>()
        };
        assert_eq!(compared(Trial::Memory), ["gateway"]);
        assert_eq!(compared(Trial::Intake), ["mosquitto", "tombolo emulator"]);
    }
}
