//! What crosses between the halves without being an entry or a record, and is never on disk.
//!
//! - **Demand**, from the front: while a [`Demand`] lives, somebody needs the device's session. An engine that spans
//!   nodes makes of it a time-bound message that it renews; nobody else has to think of that.
//! - **Status**, from upstream: what the session is doing.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::Instant,
};

use async_trait::async_trait;
use iothub::{Identity, Timestamp};

use crate::{ConnectionEpoch, NodeId, Page, Partition, SessionLease, StoreError};

/// Carries demand one way and status the other.
#[async_trait]
pub trait Signals: Send + Sync {
    /// Says that a device's session is needed, until the answer is dropped.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn demand(&self, identity: &Identity, needs: Needs) -> Result<Demand, StoreError>;

    /// The next device that has a need, or entries in its outbox, and no session that reads them. For the node whose
    /// part of the devices it belongs to.
    ///
    /// The same device comes again when what [`Signals::attend`] gave is dropped, when its partition changes hands, or
    /// at the next demand or entry if nobody has attended it for as long as a session lease lasts.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn next_wanted(&self, node: &NodeId) -> Result<Identity, StoreError>;

    /// Follows a device's needs for its session; as long as the answer lives, and the lease stands, the device is not
    /// wanted again. Attending again ends what the older attendance says about that.
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed.
    async fn attend(
        &self,
        lease: &SessionLease,
        identity: &Identity,
    ) -> Result<Box<dyn NeedsWatch>, StoreError>;

    /// Says what a session is doing.
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed.
    async fn set_status(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        status: Status,
    ) -> Result<(), StoreError>;

    /// What a session was last said to be doing.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn status(&self, identity: &Identity) -> Result<Status, StoreError>;

    /// Sessions of a partition that are not closed, for the operator.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn statuses(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<(Identity, Status)>, StoreError>;

    /// Wakes whenever something changes for a device: an inbox entry, the desired properties, the status.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn watch(&self, identity: &Identity) -> Result<Box<dyn Watch>, StoreError>;
}

/// Waits for changes.
#[async_trait]
pub trait Watch: Send {
    /// Returns when something may have changed since the last call, or since the watch was made. A change between
    /// two calls is not missed.
    async fn changed(&mut self);
}

/// A device's needs, as its session follows them.
pub trait NeedsWatch: Send {
    /// Waits until the needs may have changed since the last time, or since the last look at them. The task that asked
    /// last is woken.
    ///
    /// To be polled, for a session waits for many things, and registers with all of them for every message.
    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// What is needed at this moment, and since when what is not needed has not been.
    fn current(&mut self) -> NeedsNow;
}

impl dyn NeedsWatch {
    /// [`poll_changed`](NeedsWatch::poll_changed), for those who wait for nothing else.
    pub async fn changed(&mut self) {
        poll_fn(|cx| self.poll_changed(cx)).await;
    }
}

/// What a request needs of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// It can carry a direct method down to the device and bring the answer back.
    pub methods: bool,
    /// It follows the desired properties.
    pub desired: bool,
}

/// The needs of a device at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeedsNow {
    /// Somebody needs the session at all.
    pub session: Need,
    /// Somebody can answer direct methods.
    pub methods: Need,
    /// Somebody follows the desired properties.
    pub desired: Need,
}

/// Whether something is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// It is, at this moment.
    Now,
    /// It was, until then.
    Until(Instant),
    /// It never was.
    Never,
}

/// Stands for a need as long as it lives.
#[must_use = "the need ends when this is dropped"]
pub struct Demand {
    /// What ends the need; engines know what it is.
    on_drop: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Demand {
    /// A demand that calls `on_drop` at its end.
    pub fn new(on_drop: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self {
            on_drop: Some(Box::new(on_drop)),
        }
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        if let Some(on_drop) = self.on_drop.take() {
            on_drop();
        }
    }
}

impl std::fmt::Debug for Demand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Demand")
    }
}

/// What a session is doing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// The state.
    pub state: SessionState,
    /// The connection, while there is one.
    pub connection: Option<ConnectionEpoch>,
    /// Whether the hub offers direct methods to the device: the subscription stands, the hub has acknowledged it, and one
    /// round trip has passed since, so that a method whose caller was waiting for the device has arrived.
    pub offers_methods: bool,
    /// Since when this state.
    pub since: Option<Timestamp>,
    /// Why the last connection ended, or could not be had; for people.
    pub last_error: Option<String>,
}

/// The states of a session, as the front must tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SessionState {
    /// There is none.
    #[default]
    Closed,
    /// It waits for its turn, for its back-off, or for the hub's CONNACK.
    Connecting,
    /// Connected; messages may wait in the hub that have not arrived.
    Connected,
    /// Connected; what was waiting in the hub has arrived, so "nothing waiting" may be said.
    Settled,
    /// The hub refuses the credential; it is tried again later.
    Refused,
    /// The hub cannot be reached; it is tried again later.
    Unreachable,
}
