//! A leaky bucket in whole numbers: exact at every count and time.

use std::time::{Duration, Instant};

use super::Rate;

/// How full it is, in nanoseconds times operations: one operation fills in a period's length, and in a nanosecond as many
/// leak out as the rate counts. So nothing is ever rounded.
pub(super) struct Bucket {
    rate: Rate,
    level: u128,
    looked_at: Option<Instant>,
}

/// The turn would come too late.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLate;

impl Bucket {
    pub(super) const fn new(rate: Rate) -> Self {
        Self {
            rate,
            level: 0,
            looked_at: None,
        }
    }

    pub(super) const fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes a turn for so many operations, and tells how long to wait for it. What is refused takes none.
    pub(super) fn take(
        &mut self,
        amount: u64,
        longest: Duration,
        now: Instant,
    ) -> Result<Duration, TooLate> {
        let count = u128::from(self.rate.count);
        let period = self.rate.period.as_nanos();
        let since = self.looked_at.replace(now).unwrap_or(now);
        let leaked = now.saturating_duration_since(since).as_nanos() * count;
        self.level = self.level.saturating_sub(leaked);
        let filled = self.level + u128::from(amount) * period;
        let over = filled.saturating_sub(count * period);
        let wait = u64::try_from(over.div_ceil(count)).map_or(Duration::MAX, Duration::from_nanos);
        if wait > longest {
            return Err(TooLate);
        }
        self.level = filled;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_let_through_and_what_comes_after_waits_its_turn() {
        let rate = Rate {
            count: 3,
            period: Duration::from_secs(1),
        };
        let (mut bucket, start) = (Bucket::new(rate), Instant::now());
        let third = Duration::from_nanos(333_333_334);
        let most = third * 2;
        for expected in [Duration::ZERO, Duration::ZERO, Duration::ZERO, third] {
            assert_eq!(bucket.take(1, most, start), Ok(expected));
        }
        assert!(bucket.take(1, most, start).is_ok());
        assert_eq!(bucket.take(1, most, start), Err(TooLate));
        let later = start + Duration::from_secs(2);
        assert_eq!(bucket.take(1, Duration::ZERO, later), Ok(Duration::ZERO));
        assert_eq!(
            bucket.take(3, Duration::ZERO, start + Duration::from_secs(60)),
            Ok(Duration::ZERO)
        );
    }

    #[test]
    fn refusals_take_no_turn() {
        let rate = Rate {
            count: 1,
            period: Duration::from_secs(60),
        };
        let (mut bucket, start) = (Bucket::new(rate), Instant::now());
        assert!(bucket.take(1, Duration::ZERO, start).is_ok());
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            assert_eq!(bucket.take(1, Duration::ZERO, now), Err(TooLate));
        }
        let now = start + Duration::from_secs(60);
        assert_eq!(bucket.take(1, Duration::ZERO, now), Ok(Duration::ZERO));
    }
}
