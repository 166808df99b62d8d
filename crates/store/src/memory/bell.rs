//! A counter that one task waits for.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

/// Tells the one who waits that something changed; of several, the one who asked last. To ask again costs no more than a
/// look, which a [`Pulse`](super::pulse::Pulse), with a list of all who wait, cannot offer.
#[derive(Default)]
pub(super) struct Bell {
    count: AtomicU64,
    waker: AtomicWaker,
}

impl Bell {
    /// Something changed; call it after the change can be seen.
    pub(super) fn ring(&self) {
        self.count.fetch_add(1, Ordering::Release);
        self.waker.wake();
    }

    /// How often it has rung.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits for the next ring. Look *after* this at what may have changed: a change that cannot be seen then wakes.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Waits until the count is not `seen`, and gives it.
    pub(super) fn poll_after(&self, seen: u64, cx: &Context<'_>) -> Poll<u64> {
        self.listen(cx);
        let count = self.count();
        if count == seen {
            Poll::Pending
        } else {
            Poll::Ready(count)
        }
    }
}
