//! How many requests are being answered, of all devices and of each.

use std::{
    collections::hash_map::Entry,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use iothub::{Identity, IdentityMap};
use parking_lot::Mutex;

/// Counts requests and refuses those that are too many.
pub(crate) struct InFlight {
    all: AtomicUsize,
    limit: usize,
    /// Only devices with a request have a place here. Split, so that devices seldom wait for each other.
    by_device: [Mutex<IdentityMap<u32>>; SHARDS],
    limit_per_device: u32,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooMany {
    /// That of one device.
    #[error("the device has {0} requests in flight, as many as it may")]
    OfDevice(u32),
    /// That of the gateway.
    #[error("the gateway has as many requests in flight as it may")]
    OfAll,
}

/// A request among all; it counts until this is dropped.
pub(crate) struct OfAll(Arc<InFlight>);

/// A request of a device; it counts until this is dropped.
pub(crate) struct OfDevice {
    counts: Arc<InFlight>,
    identity: Identity,
}

impl InFlight {
    pub(crate) fn new(limit: usize, limit_per_device: u32) -> Arc<Self> {
        Arc::new(Self {
            all: AtomicUsize::new(0),
            limit,
            by_device: std::array::from_fn(|_| Mutex::default()),
            limit_per_device,
        })
    }

    /// Counts a request of whomever.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<OfAll, TooMany> {
        let counted = OfAll(self.clone());
        if self.all.fetch_add(1, Ordering::Relaxed) < self.limit {
            Ok(counted)
        } else {
            Err(TooMany::OfAll)
        }
    }

    /// Counts a request of a device.
    pub(crate) fn enter_device(self: &Arc<Self>, identity: &Identity) -> Result<OfDevice, TooMany> {
        let mut by_device = self.shard(identity).lock();
        let count = by_device.entry(identity.clone()).or_insert(0);
        if *count >= self.limit_per_device {
            return Err(TooMany::OfDevice(*count));
        }
        *count += 1;
        drop(by_device);
        Ok(OfDevice {
            counts: self.clone(),
            identity: identity.clone(),
        })
    }

    fn shard(&self, identity: &Identity) -> &Mutex<IdentityMap<u32>> {
        // Bits that the map makes little use of.
        let [.., number, _, _] = identity.digest().to_be_bytes();
        &self.by_device[usize::from(number) % SHARDS]
    }
}

impl Drop for OfAll {
    fn drop(&mut self) {
        self.0.all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OfDevice {
    fn drop(&mut self) {
        let mut by_device = self.counts.shard(&self.identity).lock();
        if let Entry::Occupied(mut count) = by_device.entry(self.identity.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(device: &str) -> Identity {
        Identity::device("hub.example".parse().unwrap(), device.parse().unwrap())
    }

    #[test]
    fn a_device_has_its_own_limit() {
        let counts = InFlight::new(100, 2);
        let first = counts.enter_device(&identity("a")).ok().unwrap();
        let _second = counts.enter_device(&identity("a")).ok().unwrap();
        assert_eq!(
            counts.enter_device(&identity("a")).err(),
            Some(TooMany::OfDevice(2))
        );
        assert!(counts.enter_device(&identity("b")).is_ok());
        drop(first);
        assert!(counts.enter_device(&identity("a")).is_ok());
    }

    #[test]
    fn a_device_without_requests_leaves_nothing_behind() {
        let counts = InFlight::new(100, 1);
        drop(counts.enter_device(&identity("a")));
        assert!(counts.by_device.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn all_have_a_limit_together() {
        let counts = InFlight::new(1, 16);
        let first = counts.enter().ok().unwrap();
        assert_eq!(counts.enter().err(), Some(TooMany::OfAll));
        drop(first);
        assert!(counts.enter().is_ok());
    }
}
