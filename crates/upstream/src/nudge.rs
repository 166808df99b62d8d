//! A word to the one task that waits for it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

/// Is kept until it is taken. What is given twice is taken once.
///
/// A session waits for several of these at once, and asks again for every message: that costs a look, where a `Notify`
/// would keep a list.
#[derive(Default)]
pub(crate) struct Nudge {
    is_given: AtomicBool,
    waker: AtomicWaker,
}

impl Nudge {
    /// Gives it.
    pub(crate) fn give(&self) {
        self.is_given.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Waits for it, and takes it. The task that asked last is woken.
    pub(crate) fn poll_taken(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_given.load(Ordering::Relaxed) && self.is_given.swap(false, Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn is_kept_and_taken_once() {
        let nudge = Nudge::default();
        nudge.give();
        nudge.give();
        poll_fn(|cx| nudge.poll_taken(cx)).await;
        assert_eq!(poll_fn(|cx| nudge.poll_taken(cx)).now_or_never(), None);

        tokio::join!(poll_fn(|cx| nudge.poll_taken(cx)), async { nudge.give() });
    }
}
