//! The memory engine against models of a few lines: whatever random calls do to one, they do to the other.
//!
//! A failed run has printed its seed; put it into [`seeds`] to see it again.

mod inbox;
mod outbox;

use std::{future::Future, ops::Range, pin::pin, task::Poll};

use iothub::{Identity, Timestamp};
use tombolo_store::{Clock as _, Ticket, conformance::ManualClock};

fn seeds() -> Range<u64> {
    0..300
}

/// What a ticket has to say at this moment: `None` if nothing yet, `Some(None)` if it never will.
async fn peek<T>(ticket: &mut Ticket<T>) -> Option<Option<T>> {
    // Tokio lets a task that has looked at many tickets believe that nothing has come, so that it yields.
    let mut ticket = pin!(tokio::task::unconstrained(ticket));
    std::future::poll_fn(|cx| {
        Poll::Ready(match ticket.as_mut().poll(cx) {
            Poll::Pending => None,
            Poll::Ready(outcome) => Some(outcome.ok()),
        })
    })
    .await
}

fn device() -> Identity {
    let hub = "hub.example".parse().expect("a hub name");
    Identity::device(hub, "dev1".parse().expect("a device id"))
}

fn wall(clock: &ManualClock) -> Timestamp {
    clock.timestamp()
}
