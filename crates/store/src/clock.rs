//! Time, as engines are given it.

use std::time::{Instant, SystemTime};

use iothub::Timestamp;

/// Tells the time. Engines ask nobody else, so that a test can move it.
pub trait Clock: Send + Sync {
    /// The moment for deadlines, delivery leases and session leases.
    fn instant(&self) -> Instant;

    /// The moment for expiry, and for people.
    fn timestamp(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn timestamp(&self) -> Timestamp {
        SystemTime::now().into()
    }
}
