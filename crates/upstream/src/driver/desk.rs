//! The store as one device's session sees it.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use iothub::Identity;
use store::{
    AppendError, Arrival, ArrivalId, Conclusion, ConnectionEpoch, Desired, EntryId, Failure,
    GivenUp, Lane, LaneSet, NeedsWatch, OutboxEntry, OutboxReader, Outcome, Settlement, Status,
    Store, StoreError, Ticket,
};

use super::desired::Cell;
use crate::leases::HeldLease;

/// Inbox and status of one device, under one session lease. What may have happened is tried again, which the contract
/// makes harmless; an error means that the session must be given up.
pub(super) struct Desk {
    store: Store,
    identity: Identity,
    lease: HeldLease,
}

/// The outbox of the device, likewise.
pub(super) struct Lanes(Box<dyn OutboxReader>);

/// Calls again, a few times, as long as the outcome is not known or the store is not there.
macro_rules! insist {
    ($call:expr, $error:pat) => {{
        let mut waits = WAITS.iter();
        loop {
            match $call.await {
                Err($error) => match waits.next() {
                    Some(wait) => tokio::time::sleep(*wait).await,
                    None => break Err(StoreError::Unavailable.into()),
                },
                result => break result,
            }
        }
    }};
    ($call:expr) => {
        insist!($call, StoreError::UnknownOutcome | StoreError::Unavailable)
    };
}

impl Desk {
    pub(super) const fn new(store: Store, identity: Identity, lease: HeldLease) -> Self {
        Self {
            store,
            identity,
            lease,
        }
    }

    /// Follows the needs of the device.
    pub(super) async fn attend(&self) -> Result<Box<dyn NeedsWatch>, StoreError> {
        let (signals, lease) = (&self.store.signals, self.lease.lease());
        insist!(signals.attend(lease, &self.identity))
    }

    /// Opens the outbox of the device.
    pub(super) async fn open_lanes(&self) -> Result<Lanes, StoreError> {
        let (outbox, lease) = (&self.store.outbox, self.lease.lease());
        Ok(Lanes(insist!(outbox.open(lease, &self.identity))?))
    }

    /// Puts arrivals into the inbox: the first ones, as many as there is room for, in the inbox and on its disk.
    pub(super) async fn append(
        &self,
        arrivals: &[(ArrivalId, Arrival)],
    ) -> Result<Vec<Ticket<Settlement>>, StoreError> {
        let lease = self.lease.lease();
        let inbox = &self.store.inbox;
        let appended: Result<_, AppendError> = insist!(
            inbox.append_all(lease, &self.identity, arrivals.to_vec()),
            AppendError::Store(StoreError::UnknownOutcome | StoreError::Unavailable)
        );
        match appended {
            Ok(tickets) => Ok(tickets),
            Err(AppendError::Full | AppendError::Store(StoreError::StorageFull)) => Ok(Vec::new()),
            Err(AppendError::Store(error)) => Err(error),
        }
    }

    /// Changes the cell of the desired properties.
    pub(super) async fn show_desired(
        &self,
        cell: Cell,
        connection: Option<ConnectionEpoch>,
    ) -> Result<(), StoreError> {
        let desired = match (cell, connection) {
            (Cell::Unchanged, _) => return Ok(()),
            (Cell::Set(section), Some(connection)) => Some(Desired {
                section,
                connection,
            }),
            (Cell::Set(_), None) | (Cell::Cleared, _) => None,
        };
        let (inbox, lease) = (&self.store.inbox, self.lease.lease());
        insist!(inbox.set_desired(lease, &self.identity, desired.clone()))
    }

    pub(super) async fn withdraw(&self, connection: ConnectionEpoch) -> Result<(), StoreError> {
        let (inbox, lease) = (&self.store.inbox, self.lease.lease());
        insist!(inbox.withdraw(lease, &self.identity, connection))
    }

    pub(super) async fn conclude(
        &self,
        id: ArrivalId,
        conclusion: Conclusion,
    ) -> Result<(), StoreError> {
        let (inbox, lease) = (&self.store.inbox, self.lease.lease());
        insist!(inbox.conclude(lease, &self.identity, id, conclusion))
    }

    pub(super) async fn set_status(&self, status: &Status) -> Result<(), StoreError> {
        let (signals, lease) = (&self.store.signals, self.lease.lease());
        insist!(signals.set_status(lease, &self.identity, status.clone()))
    }
}

impl Lanes {
    /// Waits until entries may be there, and says in which lanes.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<LaneSet> {
        self.0.poll_ready(cx)
    }

    pub(super) async fn take(
        &mut self,
        lane: Lane,
        max: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        insist!(self.0.take(lane, max))
    }

    pub(super) async fn settle(&mut self, id: EntryId, outcome: Outcome) -> Result<(), StoreError> {
        insist!(self.0.settle(id, outcome.clone()))
    }

    pub(super) async fn give_up(
        &mut self,
        id: EntryId,
        failure: Failure,
    ) -> Result<GivenUp, StoreError> {
        insist!(self.0.give_up(id, failure.clone()))
    }
}

/// Waits between calls; the session does nothing else meanwhile, so they are short.
const WAITS: [Duration; 3] = [
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
];
