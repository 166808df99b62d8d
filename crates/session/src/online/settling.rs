//! When it may be said that nothing more is waiting in the hub.
//!
//! MQTT has no mark for the end of a queue. What the hub had queued arrives some time after CONNACK, even before the
//! first SUBSCRIBE. So: the subscription is acknowledged, one round trip after it is over, and then no message has
//! come for a while.

use std::time::Instant;

use crate::Config;

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settling {
    /// Cloud-to-device messages are not subscribed.
    Unsubscribed,
    /// SUBSCRIBE is not acknowledged.
    Subscribing,
    /// So many pings must be answered until the one that followed SUBACK is.
    RoundTrip { pongs: u8 },
    /// Waiting for silence.
    Quiet { until: Instant, limit: Instant },
    /// Done.
    Settled,
}

impl Settling {
    pub(super) fn on_pong(&mut self, config: &Config, now: Instant) {
        if let Self::RoundTrip { pongs } = self {
            *pongs = pongs.saturating_sub(1);
            if *pongs == 0 {
                *self = Self::Quiet {
                    until: now + config.settle_quiet,
                    limit: now + config.settle_limit,
                };
            }
        }
    }

    pub(super) fn on_message(&mut self, config: &Config, now: Instant) {
        if let Self::Quiet { until, .. } = self {
            *until = now + config.settle_quiet;
        }
    }

    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Self::Quiet { until, limit } => Some(until.min(limit)),
            Self::Unsubscribed | Self::Subscribing | Self::RoundTrip { .. } | Self::Settled => None,
        }
    }
}
