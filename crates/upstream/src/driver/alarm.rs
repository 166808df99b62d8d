//! A timer that is set often and rings rarely.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep};

/// Rings at the time it is set to, or earlier.
///
/// A session's deadlines move with every packet, mostly into the future. Only an earlier one is worth telling the
/// timer of the runtime; a later one is met by ringing once in vain.
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    pub(super) fn new() -> Self {
        Self(Box::pin(tokio::time::sleep_until(Instant::now())))
    }

    /// Lets it ring at `at` at the latest.
    pub(super) fn set(&mut self, at: std::time::Instant) {
        let at = Instant::from_std(at);
        if self.0.is_elapsed() || at < self.0.deadline() {
            self.0.as_mut().reset(at);
        }
    }

    /// Waits until it rings.
    pub(super) fn poll_rings(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}
