//! All tickets of one entry.

use crate::{Resolver, Ticket, ticket};

/// The tickets that wait for one outcome; nearly always one.
pub(super) struct Waiters<T> {
    first: Resolver<T>,
    more: Vec<Resolver<T>>,
}

impl<T: Clone> Waiters<T> {
    /// The first ticket, and who waits on it.
    pub(super) fn new() -> (Self, Ticket<T>) {
        let (first, ticket) = ticket();
        let more = Vec::new();
        (Self { first, more }, ticket)
    }

    /// One more ticket. Those that nobody holds any longer are forgotten, so asking again and again costs nothing.
    pub(super) fn join(&mut self) -> Ticket<T> {
        let (resolver, ticket) = ticket();
        self.more.retain(|other| !other.is_forsaken());
        self.more.push(resolver);
        ticket
    }

    pub(super) fn resolve(self, outcome: T) {
        for resolver in self.more {
            resolver.resolve(outcome.clone());
        }
        self.first.resolve(outcome);
    }
}

/// A ticket of what has its outcome already.
pub(super) fn resolved<T>(outcome: T) -> Ticket<T> {
    let (resolver, ticket) = ticket();
    resolver.resolve(outcome);
    ticket
}

/// A ticket of what will never have an outcome.
pub(super) fn lost<T>() -> Ticket<T> {
    ticket().1
}
