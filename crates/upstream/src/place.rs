//! A session's place among those that the node may hold.
//!
//! When all places are taken and another device waits, the session that has been idle for longest makes room.

use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What the manager and one session tell each other.
#[derive(Default)]
pub(crate) struct Place {
    idle_since: Mutex<Option<Instant>>,
    is_wanted: Notify,
}

impl Place {
    /// From the session: since when nobody has needed it, if nobody does.
    pub(crate) fn set_idle_since(&self, since: Option<Instant>) {
        *self.idle_since.lock() = since;
    }

    /// What the session said last. One that has not begun is in use.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        *self.idle_since.lock()
    }

    /// From the manager: another device waits for the place. A session that is needed by now keeps it.
    pub(crate) fn ask_for(&self) {
        self.is_wanted.notify_one();
    }

    /// Returns when another device waits for the place.
    pub(crate) async fn asked_for(&self) {
        self.is_wanted.notified().await;
    }
}
