//! A session's place among those that the node may hold.
//!
//! When all places are taken and another device waits, the session that has been idle for longest makes room.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use parking_lot::Mutex;

use crate::nudge::Nudge;

/// What the manager and one session tell each other.
#[derive(Default)]
pub(crate) struct Place {
    idle_since: Mutex<Option<Instant>>,
    is_wanted: Nudge,
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
        self.is_wanted.give();
    }

    /// Waits until another device waits for the place.
    pub(crate) fn poll_asked_for(&self, cx: &Context<'_>) -> Poll<()> {
        self.is_wanted.poll_taken(cx)
    }
}
