//! A map by identity, in as many pieces as there are partitions.

use iothub::{Identity, IdentityMap};
use parking_lot::RwLock;

use crate::{Page, Partition};

/// Values by identity. The pieces are the partitions, so that one partition can be listed without looking at others.
pub(super) struct Partitioned<V>(Box<[RwLock<IdentityMap<V>>]>);

impl<V: Clone> Partitioned<V> {
    pub(super) fn new() -> Self {
        Self((0..Partition::COUNT).map(|_| RwLock::default()).collect())
    }

    pub(super) fn get(&self, identity: &Identity) -> Option<V> {
        self.piece(Partition::of(identity))
            .read()
            .get(identity)
            .cloned()
    }

    pub(super) fn get_or_insert_with(
        &self,
        identity: &Identity,
        make: impl FnOnce(Partition) -> V,
    ) -> V {
        let partition = Partition::of(identity);
        let piece = self.piece(partition);
        if let Some(value) = piece.read().get(identity) {
            return value.clone();
        }
        let mut piece = piece.write();
        let value = piece.entry(identity.clone());
        value.or_insert_with(|| make(partition)).clone()
    }

    pub(super) fn insert(&self, identity: Identity, value: V) {
        let piece = self.piece(Partition::of(&identity));
        piece.write().insert(identity, value);
    }

    /// Keeps those values of one partition of which this is true.
    pub(super) fn retain(&self, number: usize, mut is_kept: impl FnMut(&V) -> bool) {
        let piece = &self.0[number];
        if piece.read().is_empty() {
            return;
        }
        let mut piece = piece.write();
        piece.retain(|_, value| is_kept(value));
        if piece.is_empty() {
            *piece = IdentityMap::default();
        }
    }

    /// The values of one partition, in no order.
    pub(super) fn in_partition(&self, partition: Partition) -> Vec<V> {
        self.piece(partition).read().values().cloned().collect()
    }

    fn piece(&self, partition: Partition) -> &RwLock<IdentityMap<V>> {
        &self.0[usize::from(partition.number())]
    }
}

/// The page after the one that ended with `after`, of items under keys that never change.
pub(super) fn page_of<T>(mut items: Vec<(String, T)>, after: Option<&str>) -> Page<T> {
    items.retain(|(key, _)| after.is_none_or(|after| key.as_str() > after));
    items.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let is_last = items.len() <= PAGE_LENGTH;
    items.truncate(PAGE_LENGTH);
    let next = items
        .last()
        .filter(|_| !is_last)
        .map(|(key, _)| key.clone());
    Page {
        items: items.into_iter().map(|(_, item)| item).collect(),
        next,
    }
}

/// Items on a page: about one answer's worth for an operator.
const PAGE_LENGTH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        let items: Vec<_> = (0..250).map(|n| (format!("{n:03}"), n)).rev().collect();
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = page_of(items.clone(), after.as_deref());
            seen.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..250).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_page_that_is_the_last_says_so() {
        let items: Vec<_> = (0..PAGE_LENGTH).map(|n| (n.to_string(), n)).collect();
        assert_eq!(page_of(items, None).next, None);
    }
}
