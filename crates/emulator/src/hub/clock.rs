//! The time, handed in with every call.

use std::time::{Instant, SystemTime};

use iothub::Timestamp;

/// One moment on both clocks: the monotonic one for deadlines, the wall clock for tokens, expiries and stamps.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never goes back.
    pub at: Instant,
    /// May be set.
    pub utc: Timestamp,
}

impl Now {
    /// Reads the machine's clocks.
    #[must_use]
    pub fn read() -> Self {
        Self {
            at: Instant::now(),
            utc: SystemTime::now().into(),
        }
    }

    /// The instant at which the wall clock will show `utc` if nobody sets it; this instant if it has passed.
    #[must_use]
    pub fn instant_of(self, utc: Timestamp) -> Instant {
        // A deadline past the end of what `Instant` holds is never reached, and a day is soon enough to look again.
        let wait = utc.saturating_since(self.utc).min(LONGEST_WAIT);
        self.at + wait
    }
}

const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
