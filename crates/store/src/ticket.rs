//! What a submitter holds until the outcome.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot::{self, error::TryRecvError};

/// Resolves once, with what became of an entry. Dropping it changes nothing about the entry.
#[derive(Debug)]
pub struct Ticket<T>(oneshot::Receiver<T>);

/// The other end of a [`Ticket`].
#[derive(Debug)]
pub struct Resolver<T>(oneshot::Sender<T>);

/// The store let go of the entry without an outcome (it stops): what became of it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store stopped before the outcome was known")]
pub struct TicketLost;

/// A ticket and its resolver.
#[must_use]
pub fn ticket<T>() -> (Resolver<T>, Ticket<T>) {
    let (sender, receiver) = oneshot::channel();
    (Resolver(sender), Ticket(receiver))
}

impl<T> Resolver<T> {
    /// Resolves the ticket, if somebody still holds it.
    pub fn resolve(self, outcome: T) {
        // Nobody waits any more: the outcome stands in the record.
        let _ = self.0.send(outcome);
    }

    /// Whether nobody holds the ticket any more.
    #[must_use]
    pub fn is_forsaken(&self) -> bool {
        self.0.is_closed()
    }
}

impl<T> Ticket<T> {
    /// What is known at this moment, which ends the ticket.
    ///
    /// To poll once is no such look: a task that has done much without a pause is told that nothing is there yet, so that
    /// others have their turn ([`tokio::task::coop`]). Here that would be a lie.
    ///
    /// # Errors
    ///
    /// There will be no outcome.
    pub fn now(&mut self) -> Result<Option<T>, TicketLost> {
        match self.0.try_recv() {
            Ok(outcome) => Ok(Some(outcome)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Closed) => Err(TicketLost),
        }
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, TicketLost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|result| result.map_err(|_| TicketLost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_has_done_much_is_told_what_is_known_all_the_same() {
        for number in 0..1000 {
            let (resolver, mut ticket) = ticket();
            assert_eq!(ticket.now(), Ok(None));
            resolver.resolve(number);
            assert_eq!(ticket.now(), Ok(Some(number)));
        }
        let (resolver, mut lost) = ticket::<u32>();
        drop(resolver);
        assert_eq!(lost.now(), Err(TicketLost));
    }
}
