//! How long to wait before the next attempt.

use std::time::{Duration, Instant};

use crate::{Config, RefusalReason};

/// Exponential back-off with full jitter: any time between zero and `base` doubled with every attempt, up to `cap`.
///
/// Full jitter spreads ten thousand sessions that lost the same hub evenly, which equal or half-random waits do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// Longest wait before the first attempt.
    pub base: Duration,
    /// Longest wait before any attempt.
    pub cap: Duration,
}

impl Backoff {
    /// The wait before attempt number `attempt`, counted from 0.
    pub(crate) fn delay(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        let ceiling = self
            .base
            .saturating_mul(2_u32.saturating_pow(attempt))
            .min(self.cap);
        ceiling.mul_f64(rng.f64())
    }
}

/// A wait before the next attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    pub(crate) until: Instant,
    /// From when on somebody in a hurry need not wait any longer. Never after a refusal of credentials: the hub would
    /// only refuse them again.
    pub(crate) may_hurry_from: Option<Instant>,
}

/// How often in a row something went wrong. That a connection could not be made, that the hub refused it and that it
/// was lost are different questions, so each has its own count.
#[derive(Default)]
pub(crate) struct Attempts {
    connect: u32,
    refusal: u32,
    loss: u32,
}

impl Attempts {
    /// The hub accepted a connection. That says nothing about how long it will last.
    pub(crate) fn on_accepted(&mut self) {
        self.connect = 0;
        self.refusal = 0;
    }

    pub(crate) fn after_connect_failure(
        &mut self,
        config: &Config,
        rng: &mut fastrand::Rng,
        now: Instant,
    ) -> Wait {
        wait(&mut self.connect, config.connect_backoff, rng, now)
    }

    pub(crate) fn after_refusal(
        &mut self,
        reason: RefusalReason,
        config: &Config,
        rng: &mut fastrand::Rng,
        now: Instant,
    ) -> Wait {
        match reason {
            RefusalReason::Unavailable => self.after_connect_failure(config, rng, now),
            RefusalReason::Credentials | RefusalReason::Protocol => Wait {
                may_hurry_from: None,
                ..wait(&mut self.refusal, config.refusal_backoff, rng, now)
            },
        }
    }

    pub(crate) fn after_loss(
        &mut self,
        lasted: Duration,
        config: &Config,
        rng: &mut fastrand::Rng,
        now: Instant,
    ) -> Wait {
        if lasted >= config.stable_after {
            self.loss = 0;
        }
        wait(&mut self.loss, config.loss_backoff, rng, now)
    }
}

fn wait(attempt: &mut u32, backoff: Backoff, rng: &mut fastrand::Rng, now: Instant) -> Wait {
    let delay = backoff.delay(*attempt, rng);
    *attempt = attempt.saturating_add(1);
    Wait {
        until: now + delay,
        may_hurry_from: Some(now + backoff.base),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let backoff = Backoff {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(10),
        };
        let mut rng = fastrand::Rng::with_seed(7);
        for (attempt, ceiling) in [(0, 1), (1, 2), (3, 8), (4, 10), (u32::MAX, 10)] {
            let longest = (0..2000).map(|_| backoff.delay(attempt, &mut rng)).max();
            let longest = longest.expect("two thousand draws").as_secs_f64();
            let ceiling = f64::from(ceiling);
            assert!(longest <= ceiling && longest > 0.98 * ceiling, "{longest}");
        }
    }
}
