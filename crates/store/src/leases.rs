//! Who owns which part of the devices.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{Partition, StoreError};

/// One gateway process.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A node of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node's time-bound right to own the sessions of a partition's devices. The proof that every call of `upstream`
/// carries: its epoch grows each time the partition changes hands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionLease {
    /// What is owned.
    pub partition: Partition,
    /// By whom.
    pub node: NodeId,
    /// The how-manieth owner.
    pub epoch: u64,
}

/// Gives and takes session leases.
///
/// A lease stands until another node takes the partition, which it can when the lease's time is over or it is given
/// back.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Acquires a partition for a node, or gives the lease that the node holds already, prolonged.
    ///
    /// # Errors
    ///
    /// [`StoreError::Held`] while another node holds it.
    async fn acquire(
        &self,
        node: &NodeId,
        partition: Partition,
    ) -> Result<SessionLease, StoreError>;

    /// Prolongs a lease, and says how long it now lasts. Call again before half of that is over.
    ///
    /// # Errors
    ///
    /// [`StoreError::Stale`] if another node has taken the partition.
    async fn renew(&self, lease: &SessionLease) -> Result<Duration, StoreError>;

    /// Gives a partition back. Giving back what is no longer held is harmless.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn release(&self, lease: &SessionLease) -> Result<(), StoreError>;

    /// Who owns a partition.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn owner(&self, partition: Partition) -> Result<Option<NodeId>, StoreError>;
}
