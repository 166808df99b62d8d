//! The figures: what they are called, which trial brings them, and what the gateway has to reach.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::stage::{HubKind, PeerKind};

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
}

/// One pass with one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    Telemetry,
    Cold,
    Memory,
    Intake,
    Connections,
}

/// A trial with one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    Telemetry(PeerKind),
    Cold(PeerKind),
    Memory(PeerKind),
    Intake(HubKind),
    Connections(HubKind),
}

/// One number that a trial brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    Rate,
    Neighbours,
    Processor,
    HubProcessor,
    LoadProcessor,
    HalfLoad,
    LatencyP50,
    LatencyP99,
    SessionMemory,
    ResidentMemory,
    Start,
    Cold,
    Warm,
    Intake,
    IntakeProcessor,
    IntakeLoadProcessor,
    IntakeNeighbours,
    ConnectionMemory,
    ConnectionsResident,
    HubStart,
}

/// How our figure is looked at, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) by: Measure,
    pub(crate) goal: Option<Goal>,
}

/// A way to look at our figure: the gateway's, or the emulator's among hubs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The number itself.
    Alone,
    /// Divided by this one's of the same round.
    RatioTo(Subject),
    /// Less this one's of the same round.
    LessThan(Subject),
}

/// What is asked of the median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    Least(f64),
    Most(f64),
    /// No more than the median of another figure of this one.
    NoMoreThan(Figure, Subject),
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
            Self::Intake,
            Self::Memory,
            Self::Connections,
        ]
        .into_iter()
        .filter(|&trial| rows.iter().any(|row| row.trial() == trial))
    }

    /// How often it is done, if `rounds` were asked for.
    pub(crate) fn rounds(self, rounds: usize) -> usize {
        match self {
            Self::Telemetry | Self::Cold | Self::Intake => rounds,
            // It averages over thousands of sessions, and takes minutes.
            Self::Memory | Self::Connections => 1,
        }
    }

    /// One run for each that it compares, of the peers that there are and of all hubs.
    pub(crate) fn runs(self, peers: &[PeerKind]) -> Vec<Run> {
        let with_peers = |run: fn(PeerKind) -> Run| peers.iter().copied().map(run).collect();
        let with_hubs = |run: fn(HubKind) -> Run| {
            let hubs = HubKind::value_variants().iter().copied();
            hubs.map(run).collect()
        };
        match self {
            Self::Telemetry => with_peers(Run::Telemetry),
            Self::Cold => with_peers(Run::Cold),
            Self::Memory => with_peers(Run::Memory),
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
            Self::Intake => "intake",
            Self::Connections => "connections",
        })
    }
}

impl Run {
    pub(crate) fn subject(self) -> Subject {
        match self {
            Self::Telemetry(peer) | Self::Cold(peer) | Self::Memory(peer) => Subject::Peer(peer),
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
        }
    }
}

impl Figure {
    /// Who is to reach the goal.
    pub(crate) fn ours(self) -> Subject {
        match self {
            Self::Intake
            | Self::IntakeProcessor
            | Self::IntakeLoadProcessor
            | Self::IntakeNeighbours
            | Self::ConnectionMemory
            | Self::ConnectionsResident
            | Self::HubStart => Subject::Hub(HubKind::Emulator),
            Self::Rate
            | Self::Neighbours
            | Self::Processor
            | Self::HubProcessor
            | Self::LoadProcessor
            | Self::HalfLoad
            | Self::LatencyP50
            | Self::LatencyP99
            | Self::SessionMemory
            | Self::ResidentMemory
            | Self::Start
            | Self::Cold
            | Self::Warm => Subject::Peer(PeerKind::Gateway),
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Rate => "telemetry acknowledged by the hub",
            Self::Neighbours | Self::IntakeNeighbours => "other work on this machine meanwhile",
            Self::Processor => "processor time of the peer per 1,000 messages",
            Self::HubProcessor => "processor time of the hub beside it",
            Self::LoadProcessor => "processor time of the load generator beside it",
            Self::HalfLoad => "load for the latencies",
            Self::LatencyP50 => "latency at half load, p50",
            Self::LatencyP99 => "latency at half load, p99",
            Self::SessionMemory => "memory of an idle session",
            Self::ResidentMemory => "resident memory with all sessions",
            Self::Start => "start to first answer",
            Self::Cold => "first request of a device, session not open",
            Self::Warm => "the same request with the session open",
            Self::Intake => "telemetry that a hub acknowledges",
            Self::IntakeProcessor => "processor time of the hub per 1,000 messages",
            Self::IntakeLoadProcessor => "processor time of the devices beside it",
            Self::ConnectionMemory => "memory of an idle device connection at a hub",
            Self::ConnectionsResident => "resident memory with all connections",
            Self::HubStart => "start of a hub to its first answer",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Rate | Self::HalfLoad | Self::Intake => "messages/s",
            Self::Neighbours | Self::IntakeNeighbours => "% of all cores",
            Self::Processor
            | Self::HubProcessor
            | Self::LoadProcessor
            | Self::Start
            | Self::IntakeProcessor
            | Self::IntakeLoadProcessor
            | Self::HubStart => "ms",
            Self::LatencyP50 | Self::LatencyP99 | Self::Cold | Self::Warm => "µs",
            Self::SessionMemory | Self::ConnectionMemory => "KiB",
            Self::ResidentMemory | Self::ConnectionsResident => "MiB",
        }
    }

    /// The figures of the design, as far as they are measured here.
    pub(crate) fn comparisons(self) -> &'static [Comparison] {
        const fn comparison(by: Measure, goal: Option<Goal>) -> Comparison {
            Comparison { by, goal }
        }
        use Goal::{Least, Most, NoMoreThan};
        use Measure::{Alone, LessThan, RatioTo};
        const BARE: Subject = Subject::Peer(PeerKind::BareProxy);
        const NODE: Subject = Subject::Peer(PeerKind::Node);
        const MOSQUITTO: Subject = Subject::Hub(HubKind::Mosquitto);
        match self {
            Self::Rate => {
                const {
                    &[
                        comparison(RatioTo(BARE), Some(Least(0.9))),
                        comparison(RatioTo(NODE), Some(Least(5.0))),
                    ]
                }
            }
            Self::Processor => {
                const {
                    &[
                        comparison(RatioTo(BARE), Some(Most(1.3))),
                        comparison(RatioTo(NODE), None),
                    ]
                }
            }
            Self::LatencyP50 => const { &[comparison(LessThan(BARE), Some(Most(150.0)))] },
            Self::LatencyP99 => const { &[comparison(LessThan(BARE), Some(Most(2000.0)))] },
            Self::SessionMemory => {
                const {
                    &[
                        comparison(Alone, Some(Most(16.0))),
                        comparison(RatioTo(BARE), None),
                        comparison(RatioTo(NODE), Some(Most(0.1))),
                    ]
                }
            }
            Self::Start => const { &[comparison(Alone, Some(Most(100.0)))] },
            // A warm request, one at a time, is one round trip to the peer and one to the hub: two round trips.
            Self::Cold => {
                const {
                    &[comparison(
                        LessThan(BARE),
                        Some(NoMoreThan(Self::Warm, BARE)),
                    )]
                }
            }
            Self::Intake => const { &[comparison(RatioTo(MOSQUITTO), Some(Least(1.0)))] },
            Self::IntakeProcessor => const { &[comparison(RatioTo(MOSQUITTO), None)] },
            Self::ConnectionMemory => {
                const {
                    &[
                        comparison(Alone, Some(Most(16.0))),
                        comparison(RatioTo(MOSQUITTO), None),
                    ]
                }
            }
            Self::HubStart => const { &[comparison(Alone, Some(Most(100.0)))] },
            Self::Neighbours
            | Self::HubProcessor
            | Self::LoadProcessor
            | Self::HalfLoad
            | Self::ResidentMemory
            | Self::Warm
            | Self::IntakeLoadProcessor
            | Self::IntakeNeighbours
            | Self::ConnectionsResident => &[],
        }
    }
}

/// What one trial brought.
#[derive(Debug, Default)]
pub(crate) struct Gained(Vec<(Figure, f64)>);

impl Gained {
    pub(crate) fn note(&mut self, figure: Figure, value: f64) {
        self.0.push((figure, value));
    }
}

impl fmt::Display for Gained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (figure, value) in &self.0 {
            if !figure.comparisons().is_empty() {
                write!(
                    f,
                    "{separator}{} {:.1} {}",
                    figure.title(),
                    value,
                    figure.unit()
                )?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// What all trials brought: a value for each round.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<(Figure, Subject), Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, subject: Subject, gained: &Gained) {
        for &(figure, value) in &gained.0 {
            self.0.entry((figure, subject)).or_default().push(value);
        }
    }

    /// The values of all rounds, in their order; none if it was not measured.
    pub(crate) fn get(&self, figure: Figure, subject: Subject) -> &[f64] {
        self.0.get(&(figure, subject)).map_or(&[], Vec::as_slice)
    }

    /// Whose values of a figure there are, in the order of the tables.
    pub(crate) fn subjects(&self, figure: Figure) -> impl Iterator<Item = Subject> {
        let keys = self.0.keys();
        keys.filter_map(move |&(of, subject)| (of == figure).then_some(subject))
    }

    /// Our figure, looked at in this way, for each round.
    pub(crate) fn compare(&self, figure: Figure, by: Measure) -> Vec<f64> {
        let own = self.get(figure, figure.ours()).iter();
        match by {
            Measure::Alone => own.copied().collect(),
            Measure::RatioTo(other) => own
                .zip(self.get(figure, other))
                .map(|(own, other)| own / other)
                .collect(),
            Measure::LessThan(other) => own
                .zip(self.get(figure, other))
                .map(|(own, other)| own - other)
                .collect(),
        }
    }
}

/// Least, middle and largest of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// None of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self {
            min,
            median: f64::midpoint(low, high),
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of(&[7.0]).unwrap().median, 7.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn peers_are_compared_round_by_round() {
        let mut samples = Samples::default();
        for (gateway, bare) in [(90.0, 100.0), (40.0, 50.0)] {
            for (peer, value) in [(PeerKind::Gateway, gateway), (PeerKind::BareProxy, bare)] {
                let peer = Subject::Peer(peer);
                let mut gained = Gained::default();
                gained.note(Figure::Rate, value);
                samples.add(peer, &gained);
            }
        }
        let by = Measure::RatioTo(Subject::Peer(PeerKind::BareProxy));
        assert_eq!(samples.compare(Figure::Rate, by), [0.9, 0.8]);
        let by = Measure::RatioTo(Subject::Peer(PeerKind::Node));
        assert!(samples.compare(Figure::Rate, by).is_empty());
    }

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
