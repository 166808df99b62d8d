//! The figures, and what is asked of them.

use serde::Serialize;

use super::Subject;
use crate::load::Writing;
use crate::stage::{HubKind, PeerKind};

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
    Written,
    Delivered,
    WritesProcessor,
    WritesNeighbours,
    Recovery,
    StoredStart,
    StoredOnDisk,
    StoredInMemory,
    Intake,
    IntakeProcessor,
    IntakeLoadProcessor,
    IntakeNeighbours,
    ConnectionMemory,
    ConnectionsResident,
    HubStart,
}

/// How somebody's figure is looked at, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) of: Subject,
    pub(crate) by: Measure,
    pub(crate) goal: Option<Goal>,
}

/// A way to look at a figure.
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

impl Figure {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Rate => "telemetry acknowledged by the hub",
            Self::Neighbours | Self::WritesNeighbours | Self::IntakeNeighbours => {
                "other work on this machine meanwhile"
            }
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
            Self::Written => "telemetry that the gateway answers, with a disk",
            Self::Delivered => "the same, until the hub has all of it",
            Self::WritesProcessor => "processor time of the gateway per 1,000 messages",
            Self::Recovery => "start to first answer, per stored message",
            Self::StoredStart => "start to first answer with stored messages",
            Self::StoredOnDisk => "disk for a stored message of 300 bytes",
            Self::StoredInMemory => "memory for a stored message of 300 bytes",
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
            Self::Rate | Self::HalfLoad | Self::Written | Self::Delivered | Self::Intake => {
                "messages/s"
            }
            Self::Neighbours | Self::WritesNeighbours | Self::IntakeNeighbours => "% of all cores",
            Self::Processor
            | Self::HubProcessor
            | Self::LoadProcessor
            | Self::Start
            | Self::WritesProcessor
            | Self::StoredStart
            | Self::IntakeProcessor
            | Self::IntakeLoadProcessor
            | Self::HubStart => "ms",
            Self::LatencyP50 | Self::LatencyP99 | Self::Cold | Self::Warm | Self::Recovery => "µs",
            Self::StoredOnDisk | Self::StoredInMemory => "bytes",
            Self::SessionMemory | Self::ConnectionMemory => "KiB",
            Self::ResidentMemory | Self::ConnectionsResident => "MiB",
        }
    }

    /// The figures of the design, as far as they are measured here.
    pub(crate) fn comparisons(self) -> &'static [Comparison] {
        const fn comparison(of: Subject, by: Measure, goal: Option<Goal>) -> Comparison {
            Comparison { of, by, goal }
        }
        use Goal::{Least, Most, NoMoreThan};
        use Measure::{Alone, LessThan, RatioTo};
        const GATEWAY: Subject = Subject::Peer(PeerKind::Gateway);
        const BARE: Subject = Subject::Peer(PeerKind::BareProxy);
        const NODE: Subject = Subject::Peer(PeerKind::Node);
        const EMULATOR: Subject = Subject::Hub(HubKind::Emulator);
        const MOSQUITTO: Subject = Subject::Hub(HubKind::Mosquitto);
        const KEYLESS: Subject = Subject::Writing(Writing::Keyless);
        const KEYED: Subject = Subject::Writing(Writing::Keyed);
        const STORED: Subject = Subject::Writing(Writing::Stored);
        const BATCHES: Subject = Subject::Writing(Writing::Batches);
        match self {
            Self::Rate => {
                const {
                    &[
                        comparison(GATEWAY, RatioTo(BARE), Some(Least(0.9))),
                        comparison(GATEWAY, RatioTo(NODE), Some(Least(5.0))),
                    ]
                }
            }
            Self::Processor => {
                const {
                    &[
                        comparison(GATEWAY, RatioTo(BARE), Some(Most(1.3))),
                        comparison(GATEWAY, RatioTo(NODE), None),
                    ]
                }
            }
            Self::LatencyP50 => const { &[comparison(GATEWAY, LessThan(BARE), Some(Most(150.0)))] },
            Self::LatencyP99 => {
                const { &[comparison(GATEWAY, LessThan(BARE), Some(Most(2000.0)))] }
            }
            Self::SessionMemory => {
                const {
                    &[
                        comparison(GATEWAY, Alone, Some(Most(16.0))),
                        comparison(GATEWAY, RatioTo(BARE), None),
                        comparison(GATEWAY, RatioTo(NODE), Some(Most(0.1))),
                    ]
                }
            }
            Self::Start => const { &[comparison(GATEWAY, Alone, Some(Most(100.0)))] },
            // A warm request, one at a time, is one round trip to the peer and one to the hub: two round trips.
            Self::Cold => {
                const {
                    &[comparison(
                        GATEWAY,
                        LessThan(BARE),
                        Some(NoMoreThan(Self::Warm, BARE)),
                    )]
                }
            }
            Self::Written => {
                const {
                    &[
                        comparison(STORED, RatioTo(KEYLESS), Some(Least(0.8))),
                        comparison(KEYED, RatioTo(KEYLESS), Some(Least(0.8))),
                        comparison(BATCHES, RatioTo(KEYLESS), Some(Least(3.0))),
                    ]
                }
            }
            Self::Delivered => const { &[comparison(STORED, RatioTo(KEYLESS), None)] },
            Self::WritesProcessor => {
                const {
                    &[
                        comparison(STORED, RatioTo(KEYLESS), None),
                        comparison(KEYED, RatioTo(KEYLESS), None),
                        comparison(BATCHES, RatioTo(KEYLESS), None),
                    ]
                }
            }
            // 1,000,000 in 4 s.
            Self::Recovery => const { &[comparison(GATEWAY, Alone, Some(Most(4.0)))] },
            Self::StoredOnDisk | Self::StoredInMemory => {
                const { &[comparison(GATEWAY, Alone, None)] }
            }
            Self::Intake => const { &[comparison(EMULATOR, RatioTo(MOSQUITTO), Some(Least(1.0)))] },
            Self::IntakeProcessor => const { &[comparison(EMULATOR, RatioTo(MOSQUITTO), None)] },
            Self::ConnectionMemory => {
                const {
                    &[
                        comparison(EMULATOR, Alone, Some(Most(16.0))),
                        comparison(EMULATOR, RatioTo(MOSQUITTO), None),
                    ]
                }
            }
            Self::HubStart => const { &[comparison(EMULATOR, Alone, Some(Most(100.0)))] },
            Self::Neighbours
            | Self::HubProcessor
            | Self::LoadProcessor
            | Self::HalfLoad
            | Self::ResidentMemory
            | Self::Warm
            | Self::WritesNeighbours
            | Self::StoredStart
            | Self::IntakeLoadProcessor
            | Self::IntakeNeighbours
            | Self::ConnectionsResident => &[],
        }
    }
}
