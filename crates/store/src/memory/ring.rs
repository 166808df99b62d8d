//! The last few of something.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Keeps the newest `N` items, and forgets all of them when none has come for a while. Boxed, so that an empty one is
/// a word.
pub(super) struct Ring<T, const N: usize>(Option<Box<Contents<T>>>);

struct Contents<T> {
    items: VecDeque<T>,
    newest_at: Instant,
}

impl<T, const N: usize> Ring<T, N> {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    pub(super) fn push(&mut self, item: T, now: Instant) {
        let contents = self.0.get_or_insert_with(|| {
            Box::new(Contents {
                items: VecDeque::new(),
                newest_at: now,
            })
        });
        contents.newest_at = now;
        if contents.items.len() == N {
            contents.items.pop_front();
        }
        contents.items.push_back(item);
    }

    /// The newest item of which this is true.
    pub(super) fn find(&self, is_wanted: impl Fn(&T) -> bool) -> Option<&T> {
        let items = self.0.as_ref()?.items.iter();
        items.rev().find(|item| is_wanted(item))
    }

    /// The same, to be changed.
    pub(super) fn find_mut(&mut self, is_wanted: impl Fn(&T) -> bool) -> Option<&mut T> {
        let items = self.0.as_mut()?.items.iter_mut();
        items.rev().find(|item| is_wanted(item))
    }

    /// Forgets the items of which this is true.
    pub(super) fn remove(&mut self, is_over: impl Fn(&T) -> bool) {
        if let Some(contents) = &mut self.0 {
            contents.items.retain(|item| !is_over(item));
        }
        self.0.take_if(|contents| contents.items.is_empty());
    }

    pub(super) fn forget_after(&mut self, age: Duration, now: Instant) {
        self.0
            .take_if(|contents| now.saturating_duration_since(contents.newest_at) >= age);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_forgets_with_age() {
        let now = Instant::now();
        let mut ring = Ring::<u32, 2>::new();
        for item in 1..=3 {
            ring.push(item, now);
        }
        assert_eq!(ring.find(|item| *item == 1), None);
        assert_eq!(ring.find(|item| *item < 3), Some(&2));

        ring.forget_after(Duration::from_secs(2), now + Duration::from_secs(1));
        assert!(!ring.is_empty());
        ring.forget_after(Duration::from_secs(2), now + Duration::from_secs(2));
        assert!(ring.is_empty());
    }

    #[test]
    fn changes_and_removes_what_it_is_told() {
        let mut ring = Ring::<u32, 3>::new();
        assert_eq!(ring.find_mut(|_| true), None);
        for item in 1..=3 {
            ring.push(item, Instant::now());
        }
        *ring.find_mut(|item| *item < 3).unwrap() = 7;
        ring.remove(|item| *item == 3);
        assert_eq!(ring.find(|_| true), Some(&7));
        ring.remove(|_| true);
        assert!(ring.is_empty());
    }
}
