//! The session leases that this node holds.
//!
//! A partition is acquired for the first session in it, renewed while any session uses it, and given back at a renewal
//! that finds it unused. When another node has taken it, every session in it hears so at once: two nodes that act for
//! one device throw each other's connections out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use store::{Leases, NodeId, Partition, SessionLease, StoreError};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// Acquires, renews and gives back.
pub(crate) struct LeaseKeeper {
    leases: Arc<dyn Leases>,
    node: NodeId,
    kept: Mutex<BTreeMap<Partition, Kept>>,
    /// Held while a partition changes hands, so that giving back cannot overtake acquiring again.
    exchange: tokio::sync::Mutex<()>,
    is_changed: Notify,
    /// Cancelled when the node stops, and every session's token with it.
    stop: CancellationToken,
}

struct Kept {
    lease: SessionLease,
    users: usize,
    renew_at: Instant,
    ends_at: Instant,
    lost: CancellationToken,
}

/// One session's use of a lease.
pub(crate) struct HeldLease {
    keeper: Arc<LeaseKeeper>,
    lease: SessionLease,
    ended: CancellationToken,
}

impl LeaseKeeper {
    pub(crate) fn new(leases: Arc<dyn Leases>, node: NodeId, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            leases,
            node,
            kept: Mutex::default(),
            exchange: tokio::sync::Mutex::default(),
            is_changed: Notify::new(),
            stop,
        })
    }

    /// The lease of a partition, for one session.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        partition: Partition,
    ) -> Result<HeldLease, StoreError> {
        if let Some(held) = self.share(partition) {
            return Ok(held);
        }
        let _exchange = self.exchange.lock().await;
        if let Some(held) = self.share(partition) {
            return Ok(held);
        }
        let lease = self.leases.acquire(&self.node, partition).await?;
        let lasts = self.leases.renew(&lease).await?;
        let kept = Kept::new(lease, lasts, self.stop.child_token());
        self.kept.lock().insert(partition, kept);
        self.is_changed.notify_one();
        tracing::debug!(partition = partition.number(), "session lease gained");
        self.share(partition).ok_or(StoreError::Stale)
    }

    /// Renews, for ever.
    pub(crate) async fn run(&self) {
        loop {
            let changed = self.is_changed.notified();
            let next = self.kept.lock().values().map(|kept| kept.renew_at).min();
            match next {
                None => changed.await,
                Some(next) => {
                    // A lease that is acquired meanwhile may have to be renewed earlier.
                    let _ = tokio::time::timeout_at(next, changed).await;
                    self.renew_due().await;
                }
            }
        }
    }

    /// Gives everything back: the sessions have ended.
    pub(crate) async fn release_all(&self) {
        let _exchange = self.exchange.lock().await;
        let kept = std::mem::take(&mut *self.kept.lock());
        for kept in kept.into_values() {
            self.release(&kept.lease).await;
        }
    }

    fn share(self: &Arc<Self>, partition: Partition) -> Option<HeldLease> {
        let mut kept = self.kept.lock();
        let kept = kept.get_mut(&partition)?;
        kept.users += 1;
        Some(HeldLease {
            keeper: Arc::clone(self),
            lease: kept.lease.clone(),
            // One of its own: waiting for a token that all share would make them wait for each other.
            ended: kept.lost.child_token(),
        })
    }

    async fn renew_due(&self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .kept
            .lock()
            .values()
            .filter(|kept| kept.renew_at <= now)
            .map(|kept| kept.lease.clone())
            .collect();
        for lease in due {
            if !self.give_back_unused(&lease).await {
                self.renew(&lease).await;
            }
        }
    }

    async fn give_back_unused(&self, lease: &SessionLease) -> bool {
        let _exchange = self.exchange.lock().await;
        let is_unused = {
            let mut kept = self.kept.lock();
            let is_unused = kept
                .get(&lease.partition)
                .is_some_and(|kept| kept.users == 0);
            if is_unused {
                kept.remove(&lease.partition);
            }
            is_unused
        };
        if is_unused {
            self.release(lease).await;
        }
        is_unused
    }

    async fn renew(&self, lease: &SessionLease) {
        let renewed = self.leases.renew(lease).await;
        let mut kept = self.kept.lock();
        let Some(entry) = kept.get_mut(&lease.partition) else {
            return;
        };
        match renewed {
            Ok(lasts) => entry.extend(lasts),
            Err(StoreError::Unavailable | StoreError::UnknownOutcome)
                if Instant::now() < entry.ends_at =>
            {
                entry.renew_at = Instant::now() + RETRY;
            }
            Err(error) => {
                tracing::info!(partition = lease.partition.number(), %error, "session lease lost");
                entry.lost.cancel();
                kept.remove(&lease.partition);
            }
        }
    }

    async fn release(&self, lease: &SessionLease) {
        if let Err(error) = self.leases.release(lease).await {
            // It runs out by itself.
            tracing::debug!(partition = lease.partition.number(), %error, "session lease not given back");
        }
    }
}

impl HeldLease {
    /// The proof that calls of the store carry.
    pub(crate) const fn lease(&self) -> &SessionLease {
        &self.lease
    }

    /// Cancelled when another node has taken the partition, or this node stops.
    pub(crate) const fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        let mut kept = self.keeper.kept.lock();
        if let Some(kept) = kept.get_mut(&self.lease.partition) {
            // A lost lease may have been acquired again, under another epoch.
            if kept.lease.epoch == self.lease.epoch {
                kept.users -= 1;
            }
        }
    }
}

impl Kept {
    fn new(lease: SessionLease, lasts: Duration, lost: CancellationToken) -> Self {
        let now = Instant::now();
        let mut kept = Self {
            lease,
            users: 0,
            renew_at: now,
            ends_at: now,
            lost,
        };
        kept.extend(lasts);
        kept
    }

    fn extend(&mut self, lasts: Duration) {
        let now = Instant::now();
        self.ends_at = now + lasts;
        // The contract asks for a renewal before half of the time is over.
        self.renew_at = now + lasts.mul_f64(0.4);
    }
}

/// Wait before a renewal is tried again that the store could not take.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use iothub::Timestamp;
    use store::{Clock, Store, memory};

    use super::*;

    /// Tokio's clock, so that leases and their renewals are measured alike.
    struct PausedClock;

    impl Clock for PausedClock {
        fn instant(&self) -> std::time::Instant {
            Instant::now().into_std()
        }

        fn timestamp(&self) -> Timestamp {
            Timestamp::from_unix_seconds(1_700_000_000)
        }
    }

    fn store() -> Store {
        memory::open_with_clock(memory::Config::default(), Arc::new(PausedClock)).unwrap()
    }

    fn keeper(store: &Store, name: &str) -> Arc<LeaseKeeper> {
        let leases = Arc::clone(&store.leases);
        LeaseKeeper::new(leases, NodeId::new(name), CancellationToken::new())
    }

    fn partition() -> Partition {
        Partition::from_number(7).expect("there are 1,024")
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_while_it_is_used_and_given_back_after() {
        let store = store();
        let keepers = [keeper(&store, "a"), keeper(&store, "b")];
        let held = keepers[0].acquire(partition()).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        let running = Arc::clone(&keepers[0]);
        tasks.spawn(async move { running.run().await });

        tokio::time::sleep(Duration::from_secs(3600)).await;
        let refused = keepers[1].acquire(partition()).await.err();
        assert!(matches!(refused, Some(StoreError::Held { .. })));
        assert!(!held.ended().is_cancelled());

        drop(held);
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(keepers[1].acquire(partition()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_loses_a_lease_hears_of_it() {
        let store = store();
        let keepers = [keeper(&store, "a"), keeper(&store, "b")];
        let held = keepers[0].acquire(partition()).await.unwrap();
        // The node was asleep for longer than its lease.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let taken = keepers[1].acquire(partition()).await.unwrap();
        keepers[0].renew_due().await;
        assert!(held.ended().is_cancelled());
        assert!(!taken.ended().is_cancelled());
        assert!(taken.lease().epoch > held.lease().epoch);
    }
}
