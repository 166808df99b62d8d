//! A counter that can be waited for.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Tells waiters that something changed. Look at [`Pulse::count`] *before* looking at what may have changed, then wait
/// for the count to be another: what happened in between is not missed.
#[derive(Default)]
pub(super) struct Pulse {
    count: AtomicU64,
    notify: Notify,
}

impl Pulse {
    /// Something changed; call it after the change can be seen.
    pub(super) fn beat(&self) {
        self.count.fetch_add(1, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// How often it has beaten.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until the count is not `seen`, and gives it.
    pub(super) async fn after(&self, seen: u64) -> u64 {
        loop {
            // A `Notified` hears every `notify_waiters` from its making on, so a beat after the look wakes it.
            let notified = self.notify.notified();
            let count = self.count();
            if count != seen {
                return count;
            }
            notified.await;
        }
    }
}
