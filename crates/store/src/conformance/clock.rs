//! A clock that stands until it is moved.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use iothub::Timestamp;
use parking_lot::Mutex;

use crate::Clock;

/// A clock that stands until it is moved. Copies of it are the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock {
    started: Instant,
    passed: Arc<Mutex<Duration>>,
}

impl ManualClock {
    /// A clock that stands at the present monotonic moment, and at noon of a day in 2026.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            passed: Arc::default(),
        }
    }

    /// Lets time pass, on both faces of the clock.
    pub fn advance(&self, duration: Duration) {
        *self.passed.lock() += duration;
    }
}

impl Clock for ManualClock {
    fn instant(&self) -> Instant {
        self.started + *self.passed.lock()
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::from_unix_seconds(STARTED_AT).saturating_add(*self.passed.lock())
    }
}

const STARTED_AT: i64 = 1_790_942_400; // 2026-10-02T12:00:00Z
