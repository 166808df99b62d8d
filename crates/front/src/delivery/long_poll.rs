//! How long a request looks again.

use std::time::Duration;

use store::{Demand, SessionState, Status, Watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Completeness;

/// A request that looks, waits for a change, and looks again.
///
/// It has two times. Until the *hub time* it waits for a session that can tell what there is. Until the *poll time*,
/// if the device prefers to wait, it waits for something to be there. A wait shorter than the hub time cuts both.
pub(super) struct LongPoll<'a> {
    _demand: Demand,
    watch: Box<dyn Watch>,
    stopping: &'a CancellationToken,
    hub_time: Instant,
    poll_time: Option<Instant>,
    /// The time is over, and one last look is taken: a wake-up may have been missed.
    is_last_look: bool,
}

impl<'a> LongPoll<'a> {
    pub(super) fn new(
        demand: Demand,
        watch: Box<dyn Watch>,
        stopping: &'a CancellationToken,
        hub_wait: Duration,
        wait: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        Self {
            _demand: demand,
            watch,
            stopping,
            hub_time: now + wait.unwrap_or(hub_wait).min(hub_wait),
            poll_time: wait.map(|wait| now + wait),
            is_last_look: false,
        }
    }

    /// Nothing was found while the session was in this state, and that is all there is or not: waits for a change, and
    /// says whether to look again.
    pub(super) async fn again(&mut self, status: &Status, completeness: Completeness) -> bool {
        match (completeness, status.state) {
            (Completeness::Complete, _) => self.again_while_waiting().await,
            // It will hardly be had in time. What is wrong is worth more to the device than a long silence.
            (Completeness::Partial, SessionState::Refused | SessionState::Unreachable) => {
                self.again_until_known().await
            }
            (
                Completeness::Partial,
                SessionState::Closed
                | SessionState::Connecting
                | SessionState::Connected
                | SessionState::Settled,
            ) => {
                self.changed_before(self.poll_time.unwrap_or(self.hub_time))
                    .await
            }
        }
    }

    /// What there is, is known: waits for a change only if the device prefers to.
    pub(super) async fn again_while_waiting(&mut self) -> bool {
        match self.poll_time {
            Some(time) => self.changed_before(time).await,
            None => false,
        }
    }

    /// What there is, is not known yet.
    pub(super) async fn again_until_known(&mut self) -> bool {
        self.changed_before(self.hub_time).await
    }

    async fn changed_before(&mut self, time: Instant) -> bool {
        if self.is_last_look {
            return false;
        }
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => false,
            () = sleep_until(time) => {
                self.is_last_look = true;
                true
            }
            () = self.watch.changed() => true,
        }
    }
}
