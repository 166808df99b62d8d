//! How often credentials have failed, by the device that a request named and by where it came from.
//!
//! Only a credential that has failed is counted, and only then is the count looked at: whoever guesses cannot lock out
//! the device that he guesses for, nor anybody who shares his address. What is limited is what a guesser learns. A
//! handshake or a head that breaks off never comes this far.
//!
//! The counts stand in cells that keys share by their hash, so that no flood of names takes more memory. Two keys in one
//! cell only make a failure one too many earlier than it would be; the hash is keyed, so nobody can choose his
//! neighbour.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Counts failures.
pub(crate) struct Failures {
    /// Cells count seconds from here.
    epoch: Instant,
    limit: u32,
    by_device: Cells,
    by_source: Cells,
}

/// Too many credentials have failed in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many credentials have failed for this device, or from this address; a good one is taken at once"
)]
pub(crate) struct TooManyFailures {
    /// When the minute is over.
    pub(crate) retry_after: Duration,
}

impl Failures {
    /// Admits `limit` failures in a minute.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            epoch: Instant::now(),
            limit,
            by_device: Cells::new(),
            by_source: Cells::new(),
        }
    }

    /// Counts a credential that has failed.
    pub(crate) fn count(
        &self,
        device: &str,
        source: IpAddr,
        now: Instant,
    ) -> Result<(), TooManyFailures> {
        let second = now.saturating_duration_since(self.epoch).as_secs();
        let second = u32::try_from(second).unwrap_or(u32::MAX);
        let counts = [
            self.by_device.count(device, second),
            self.by_source.count(network(source), second),
        ];
        let exceeded = counts.iter().filter(|count| count.failures > self.limit);
        match exceeded.map(|count| count.left).max() {
            None => Ok(()),
            Some(retry_after) => Err(TooManyFailures { retry_after }),
        }
    }
}

/// What counts as one source: an address, or the 64 bits of an IPv6 address that its owner was given to choose freely
/// below (RFC 4291, section 2.5.1).
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// Each cell: the second in which its minute began above, failures since then below.
struct Cells {
    cells: Box<[AtomicU64]>,
    hasher: RandomState,
}

struct Count {
    failures: u32,
    left: Duration,
}

impl Cells {
    fn new() -> Self {
        Self {
            cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    fn count(&self, key: impl Hash, second: u32) -> Count {
        let place = self.hasher.hash_one(key) % self.cells.len() as u64;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the place is one of the cells, whose number is a usize"
        )]
        let cell = &self.cells[place as usize];
        let mut older = cell.load(Ordering::Relaxed);
        loop {
            let (begin, failures) = unpack(older);
            let is_over = failures == 0 || second.saturating_sub(begin) >= MINUTE;
            let (begin, failures) = if is_over {
                (second, 1)
            } else {
                (begin, failures.saturating_add(1))
            };
            let newer = u64::from(begin) << 32 | u64::from(failures);
            match cell.compare_exchange_weak(older, newer, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let left = MINUTE.saturating_sub(second.saturating_sub(begin));
                    return Count {
                        failures,
                        left: Duration::from_secs(left.into()),
                    };
                }
                Err(current) => older = current,
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves of the number are taken apart"
)]
const fn unpack(cell: u64) -> (u32, u32) {
    ((cell >> 32) as u32, cell as u32)
}

/// In seconds.
const MINUTE: u32 = 60;
/// 128 KiB for each of the two.
const CELLS: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The device changes, so only the source counts.
    fn from(failures: &Failures, source: &str, number: u32) -> bool {
        failures
            .count(&format!("device-{number}"), address(source), failures.epoch)
            .is_ok()
    }

    #[test]
    fn twenty_failures_a_minute_are_admitted() {
        for limit in [0, 1, 20] {
            let failures = Failures::new(limit);
            for number in 1..=limit + 2 {
                let is_admitted = from(&failures, "192.0.2.1", number);
                assert_eq!(is_admitted, number <= limit, "{number} of {limit}");
            }
        }
    }

    #[test]
    fn a_device_has_its_own_count_wherever_the_failures_come_from() {
        let failures = Failures::new(20);
        let from_everywhere = |device: &str| {
            (1..=21)
                .map(|number| {
                    let source = address(&format!("192.0.2.{number}"));
                    failures.count(device, source, failures.epoch).is_ok()
                })
                .collect::<Vec<_>>()
        };
        let admitted = from_everywhere("dev1");
        assert!(admitted[..20].iter().all(|is_admitted| *is_admitted) && !admitted[20]);
        assert!(from_everywhere("dev2")[0], "another device is not touched");
    }

    #[test]
    fn a_minute_ends_a_minute_after_it_began() {
        let failures = Failures::new(1);
        let at = |seconds| {
            let now = failures.epoch + Duration::from_secs(seconds);
            failures
                .count("dev1", address("192.0.2.1"), now)
                .map_err(|error| error.retry_after.as_secs())
        };
        assert_eq!(at(100), Ok(()));
        assert_eq!(at(101), Err(59));
        assert_eq!(at(159), Err(1));
        assert_eq!(at(160), Ok(()));
        assert_eq!(at(161), Err(59));
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let failures = Failures::new(1);
        assert!(from(&failures, "2001:db8:1:2::1", 1));
        assert!(!from(&failures, "2001:db8:1:2:ffff::9", 2));
        assert!(from(&failures, "2001:db8:1:3::1", 3));
        assert!(from(&failures, "192.0.2.1", 4));
        assert!(!from(&failures, "::ffff:192.0.2.1", 5));
    }
}
