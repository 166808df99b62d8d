//! Who owns which partition.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::{RwLock, RwLockReadGuard};

use super::Memory;
use crate::{Leases, NodeId, Partition, SessionLease, StoreError};

/// The owner of each partition.
pub(super) struct Tenures {
    tenures: Box<[RwLock<Tenure>]>,
    duration: Duration,
}

/// One partition's owner. A tenure whose time is over goes on until another node takes the partition.
#[derive(Clone, Default)]
struct Tenure {
    /// Grows with each owner; 0 before the first.
    epoch: u64,
    holder: Option<Holder>,
}

#[derive(Clone)]
struct Holder {
    node: NodeId,
    until: Instant,
}

/// Proof that a lease stands: while it lives, the partition does not change hands.
pub(super) struct Standing<'a>(
    #[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'a, Tenure>,
);

impl Tenures {
    pub(super) fn new(duration: Duration) -> Self {
        Self {
            tenures: (0..Partition::COUNT).map(|_| RwLock::default()).collect(),
            duration,
        }
    }

    /// Checks that a lease is of this partition and stands.
    pub(super) fn standing(
        &self,
        lease: &SessionLease,
        partition: Partition,
    ) -> Result<Standing<'_>, StoreError> {
        let tenure = self.tenure(partition).read();
        if lease.partition == partition && tenure.is_held_under(lease) {
            Ok(Standing(tenure))
        } else {
            Err(StoreError::Stale)
        }
    }

    /// How long a lease lasts.
    pub(super) const fn duration(&self) -> Duration {
        self.duration
    }

    /// Whether the partition is this node's, or nobody's.
    pub(super) fn is_free_for(&self, node: &NodeId, partition: Partition, now: Instant) -> bool {
        let tenure = self.tenure(partition).read();
        tenure
            .holder_at(now)
            .is_none_or(|holder| holder.node == *node)
    }

    /// Gives the lease to a node; true if the partition has changed hands for it.
    fn acquire(
        &self,
        node: &NodeId,
        partition: Partition,
        now: Instant,
    ) -> Result<(SessionLease, bool), StoreError> {
        let mut tenure = self.tenure(partition).write();
        if let Some(holder) = tenure.holder_at(now).filter(|holder| holder.node != *node) {
            return Err(StoreError::Held {
                by: holder.node.clone(),
                for_at_least: holder.until - now,
            });
        }
        let is_change = tenure
            .holder
            .as_ref()
            .is_none_or(|holder| holder.node != *node);
        if is_change {
            tenure.epoch += 1;
        }
        tenure.holder = Some(Holder {
            node: node.clone(),
            until: now + self.duration,
        });
        let lease = SessionLease {
            partition,
            node: node.clone(),
            epoch: tenure.epoch,
        };
        Ok((lease, is_change))
    }

    fn tenure(&self, partition: Partition) -> &RwLock<Tenure> {
        &self.tenures[usize::from(partition.number())]
    }
}

impl Tenure {
    fn is_held_under(&self, lease: &SessionLease) -> bool {
        self.holder.is_some() && self.epoch == lease.epoch
    }

    fn holder_at(&self, now: Instant) -> Option<&Holder> {
        self.holder.as_ref().filter(|holder| now < holder.until)
    }
}

#[async_trait]
impl Leases for Memory {
    async fn acquire(
        &self,
        node: &NodeId,
        partition: Partition,
    ) -> Result<SessionLease, StoreError> {
        let now = self.0.clock.instant();
        let (lease, is_change) = self.0.tenures.acquire(node, partition, now)?;
        if is_change {
            self.0.hand_over(partition, node, now);
        }
        Ok(lease)
    }

    async fn renew(&self, lease: &SessionLease) -> Result<Duration, StoreError> {
        let now = self.0.clock.instant();
        let tenures = &self.0.tenures;
        let mut tenure = tenures.tenure(lease.partition).write();
        if !tenure.is_held_under(lease) {
            return Err(StoreError::Stale);
        }
        tenure.holder = Some(Holder {
            node: lease.node.clone(),
            until: now + tenures.duration,
        });
        Ok(tenures.duration)
    }

    async fn release(&self, lease: &SessionLease) -> Result<(), StoreError> {
        let mut tenure = self.0.tenures.tenure(lease.partition).write();
        if tenure.is_held_under(lease) {
            tenure.holder = None;
            drop(tenure);
            // Other nodes may take what was this one's.
            self.0.wanted.wake();
        }
        Ok(())
    }

    async fn owner(&self, partition: Partition) -> Result<Option<NodeId>, StoreError> {
        let tenure = self.0.tenures.tenure(partition).read();
        let holder = tenure.holder_at(self.0.clock.instant());
        Ok(holder.map(|holder| holder.node.clone()))
    }
}
