//! A clock that stands until it is moved, each of its faces by itself.

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
    /// By how many milliseconds the wall clock was moved without time passing.
    moved: Arc<Mutex<i64>>,
}

impl ManualClock {
    /// A clock that stands at the present monotonic moment, and at noon of a day in 2026.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            passed: Arc::default(),
            moved: Arc::default(),
        }
    }

    /// Lets time pass, on both faces of the clock.
    pub fn advance(&self, duration: Duration) {
        *self.passed.lock() += duration;
    }

    /// Sets the wall clock forward by so many seconds, or back, as people and time servers do.
    pub fn move_wall_clock(&self, seconds: i64) {
        *self.moved.lock() += seconds * 1000;
    }
}

impl Clock for ManualClock {
    fn instant(&self) -> Instant {
        self.started + *self.passed.lock()
    }

    fn timestamp(&self) -> Timestamp {
        let started = Timestamp::from_unix_millis(STARTED_AT * 1000 + *self.moved.lock());
        started.saturating_add(*self.passed.lock())
    }
}

const STARTED_AT: i64 = 1_790_942_400; // 2026-10-02T12:00:00Z
