//! What a hub of a tier lets through: throttles in a moment, messages in a day ("IoT Hub quotas and throttling", "Azure IoT
//! Hub billing information"). Off unless the configuration names a tier.
//!
//! ```text
//! operation ─▶ bucket ──room──▶ at once
//!                 ├──its turn comes within 3 s──▶ late (traffic shaping)
//!                 └──later than that──▶ refused: 429003; MQTT telemetry: connection closed
//! message ─▶ meter of the day ──spent──▶ refused: 403002; MQTT telemetry: connection closed
//! ```
//!
//! A bucket holds what its limit allows in one period, a second or a minute; how much of a burst the real one takes is not
//! documented.

mod bucket;
mod usage;

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use serde::Serialize;

pub(super) use self::usage::Usage;
pub use self::usage::{ThrottleInfo, UsageInfo};

/// A tier that has all of a hub's features. Those of the basic tiers are fewer: no twins, no methods, no cloud-to-device
/// messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Tier {
    /// Free.
    F1,
    /// Standard 1.
    S1,
    /// Standard 2.
    S2,
    /// Standard 3.
    S3,
}

/// A tier, so many times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    tier: Tier,
    units: NonZeroU32,
}

/// The free tier has one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hub of the tier F1 has one unit")]
pub struct TooManyUnits;

/// A name that is no tier's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tier is F1, S1, S2 or S3; the basic tiers are not emulated")]
pub struct UnknownTier;

/// What is throttled, each for itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// New device connections.
    Connects,
    /// Device-to-cloud sends.
    Telemetry,
    /// Cloud-to-device sends.
    CloudSends,
    /// Cloud-to-device receives over HTTPS.
    CloudReceives,
    /// File uploads.
    FileUploads,
    /// Direct methods, in blocks of 4 KB of their requests.
    Methods,
    /// Reads of twins, by devices and by the service.
    TwinReads,
    /// Writes of twins, by devices and by the service.
    TwinUpdates,
    /// Queries.
    Queries,
    /// The identity registry.
    Registry,
    /// Jobs.
    Jobs,
}

/// So many in so long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rate {
    pub(super) count: u64,
    pub(super) period: Duration,
}

impl Capacity {
    /// A hub of this tier with so many units.
    ///
    /// # Errors
    ///
    /// More than one of the free tier.
    pub fn new(tier: Tier, units: NonZeroU32) -> Result<Self, TooManyUnits> {
        if tier == Tier::F1 && units.get() > 1 {
            return Err(TooManyUnits);
        }
        Ok(Self { tier, units })
    }

    /// Devices that a hub may have.
    pub(super) const fn devices(self) -> usize {
        match self.tier {
            Tier::F1 => 500,
            Tier::S1 | Tier::S2 | Tier::S3 => super::registry::DEVICES,
        }
    }

    /// Messages of a day ("Azure IoT Hub pricing").
    pub(super) fn messages(self) -> u64 {
        let of_one = match self.tier {
            Tier::F1 => 8000,
            Tier::S1 => 400_000,
            Tier::S2 => 6_000_000,
            Tier::S3 => 300_000_000,
        };
        of_one * u64::from(self.units.get())
    }

    /// Bytes that count as one message ("Azure IoT Hub pricing").
    pub(super) const fn meter_bytes(self) -> u64 {
        match self.tier {
            Tier::F1 => 512,
            Tier::S1 | Tier::S2 | Tier::S3 => 4096,
        }
    }

    /// The table of "IoT Hub quotas and throttling".
    pub(super) fn rate(self, operation: Operation) -> Rate {
        let units = u64::from(self.units.get());
        // Of the three columns of the table: free and S1, S2, S3.
        let of = |[small, middle, large]: [u64; 3]| match self.tier {
            Tier::F1 | Tier::S1 => small,
            Tier::S2 => middle,
            Tier::S3 => large,
        };
        let second = |count| Rate {
            count,
            period: Duration::from_secs(1),
        };
        let minute = |count| Rate {
            count,
            period: Duration::from_secs(60),
        };
        match operation {
            Operation::Connects | Operation::Telemetry => {
                second(of([(12 * units).max(100), 120 * units, 6000 * units]))
            }
            Operation::CloudSends
            | Operation::FileUploads
            | Operation::Registry
            | Operation::Jobs => minute(units * of([100, 100, 5000])),
            Operation::CloudReceives => minute(units * of([1000, 1000, 50_000])),
            // 160 KB, 480 KB and 24 MB in blocks of 4 KB.
            Operation::Methods => second(units * of([40, 120, 6144])),
            Operation::TwinReads => second(of([100, (10 * units).max(100), 500 * units])),
            Operation::TwinUpdates => second(of([50, (5 * units).max(50), 250 * units])),
            Operation::Queries => minute(units * of([20, 20, 1000])),
        }
    }
}

impl Tier {
    const fn as_str(self) -> &'static str {
        match self {
            Self::F1 => "F1",
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
        }
    }
}

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(text: &str) -> Result<Self, UnknownTier> {
        [Self::F1, Self::S1, Self::S2, Self::S3]
            .into_iter()
            .find(|tier| tier.as_str().eq_ignore_ascii_case(text))
            .ok_or(UnknownTier)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Operation {
    pub(super) const ALL: [Self; 11] = [
        Self::Connects,
        Self::Telemetry,
        Self::CloudSends,
        Self::CloudReceives,
        Self::FileUploads,
        Self::Methods,
        Self::TwinReads,
        Self::TwinUpdates,
        Self::Queries,
        Self::Registry,
        Self::Jobs,
    ];

    /// As the text of a refusal names it; one was seen, "ConfigurationWrite" (live hub).
    const fn name(self) -> &'static str {
        match self {
            Self::Connects => "DeviceConnect",
            Self::Telemetry => "DeviceSend",
            Self::CloudSends => "CloudToDeviceSend",
            Self::CloudReceives => "CloudToDeviceReceive",
            Self::FileUploads => "FileUpload",
            Self::Methods => "DirectMethod",
            Self::TwinReads => "TwinRead",
            Self::TwinUpdates => "TwinWrite",
            Self::Queries => "Query",
            Self::Registry => "RegistryOperation",
            Self::Jobs => "JobOperation",
        }
    }
}

/// How long a request waits for its turn at most. On a live hub of the free tier 250 reads of the registry in 10.5 s all
/// succeeded, the slowest after 3.2 s.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(3);
