//! All tickets of one entry.

use crate::{Resolver, Ticket, ticket};

/// The tickets that wait for one outcome; nearly always one, and none for what was there before a restart.
pub(super) struct Waiters<T> {
    first: Option<Resolver<T>>,
    /// Boxed, because entries have none and are many.
    more: Option<Box<More<T>>>,
}

struct More<T>(Vec<Resolver<T>>);

impl<T: Clone> Waiters<T> {
    /// The first ticket, and who waits on it.
    pub(super) fn new() -> (Self, Ticket<T>) {
        let (first, ticket) = ticket();
        let waiters = Self {
            first: Some(first),
            more: None,
        };
        (waiters, ticket)
    }

    /// Nobody.
    pub(super) const fn none() -> Self {
        Self {
            first: None,
            more: None,
        }
    }

    /// One more ticket. Those that nobody holds any longer are forgotten, so asking again and again costs nothing.
    pub(super) fn join(&mut self) -> Ticket<T> {
        let (resolver, ticket) = ticket();
        let More(more) = &mut **self.more.get_or_insert_default();
        more.retain(|other| !other.is_forsaken());
        more.push(resolver);
        ticket
    }

    /// Whether somebody waits.
    pub(super) fn is_any(&self) -> bool {
        let more = self.more.iter().flat_map(|more| &more.0);
        self.first
            .iter()
            .chain(more)
            .any(|resolver| !resolver.is_forsaken())
    }

    pub(super) fn resolve(self, outcome: T) {
        for resolver in self.more.into_iter().flat_map(|more| more.0) {
            resolver.resolve(outcome.clone());
        }
        if let Some(first) = self.first {
            first.resolve(outcome);
        }
    }
}

impl<T> Default for More<T> {
    fn default() -> Self {
        Self(Vec::new())
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
