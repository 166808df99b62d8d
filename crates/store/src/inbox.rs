//! What the hub sends to devices.
//!
//! Three kinds of entries:
//!
//! - **queue**: cloud-to-device messages, in the hub's order. Shown until settled, expired or withdrawn.
//! - **call**: direct methods, each with a deadline; withdrawn with the connection they came on; never durable.
//! - **cell**: the desired properties, the newest whole document only.
//!
//! ```text
//!            append              settle(complete | reject)             conclude
//!   (hub) ----------> offered -----------------------------> settled ----------> gone
//!                     ^    |  settle(abandon): count + 1
//!                     +----+
//!                     offered or settled --withdraw, expiry--> gone (tokens are lost)
//! ```
//!
//! Reading never consumes. [`Inbox::receive`], which IoT Hub's own `GET .../devicebound` needs, hides an entry from
//! other calls of `receive` for a while, and from nobody else.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use iothub::{CloudMessage, Identity, MethodRequest, Timestamp, twin::Section};

use crate::{
    AppendError, ConnectionEpoch, MethodRequestId, Page, Partition, ReplayError, SessionLease,
    SettleError, Stock, StoreError, Ticket,
};

/// Takes what the hub sent, shows it to devices, carries their settlements back.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Puts an arrival in. A message that is not tied to its connection is on disk when this returns, if the engine can do
    /// that, so that the hub may be told. Appending the same id again gives a ticket of the same entry, also for a while after it is
    /// settled.
    ///
    /// If the hub was not told, or did not hear it, it delivers such a message again, on another connection and so under
    /// another id. That is the same entry too, if it has the message id and all the rest of one of which it is not
    /// [known](Self::conclude) that the hub was told: that its process has ended since then, for example. A message without
    /// a message id cannot be told from another that says the same, and is another.
    ///
    /// The ticket resolves when the device has settled the message ([`Settlement::Complete`], [`Settlement::Reject`]);
    /// with `Reject` when it is given up (abandoned too often, or expired and not tied); with
    /// `Complete` when the method is claimed. It is lost when the entry is withdrawn, or the method's deadline is over.
    ///
    /// # Errors
    ///
    /// The lease is stale, a bound is reached, or the store failed.
    async fn append(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        id: ArrivalId,
        arrival: Arrival,
    ) -> Result<Ticket<Settlement>, AppendError> {
        let tickets = self.append_all(lease, identity, vec![(id, arrival)]).await;
        // There is one for the first, or an error.
        tickets?.pop().ok_or(AppendError::Full)
    }

    /// Puts arrivals in, in their order, each as [`append`](Self::append) does; what has to be on disk is flushed together.
    /// As many as there is room for: these are the first ones, and their tickets are the answer.
    ///
    /// # Errors
    ///
    /// The first of them could not be put in.
    async fn append_all(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        arrivals: Vec<(ArrivalId, Arrival)>,
    ) -> Result<Vec<Ticket<Settlement>>, AppendError>;

    /// Sets the cell of the desired properties, or empties it (`None`: what is known is stale).
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed.
    async fn set_desired(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        desired: Option<Desired>,
    ) -> Result<(), StoreError>;

    /// Withdraws everything that came on this connection or an earlier one and is tied to it: methods, tied messages
    /// (their tokens are lost, whoever has settled one hears [`Conclusion::Lost`]), and the desired properties that
    /// were followed on it. What is appended for such a connection afterwards is gone at once.
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed.
    async fn withdraw(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        connection: ConnectionEpoch,
    ) -> Result<(), StoreError>;

    /// Says what became of the settlement of a tied message at the hub, which resolves the settler's ticket. The
    /// message keeps its place in the bound until then. Harmless if repeated; the first conclusion stands.
    ///
    /// Of a message that is not tied it says that the hub has been told ([`Conclusion::Hub`]), so it will not come again.
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed.
    async fn conclude(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        id: ArrivalId,
        conclusion: Conclusion,
    ) -> Result<(), StoreError>;

    /// Everything unsettled that is not expired, in order. Does not consume.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn read(&self, identity: &Identity) -> Result<InboxView, StoreError>;

    /// The next message without a delivery lease, under a new one.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn receive(
        &self,
        identity: &Identity,
        lock: Duration,
    ) -> Result<Option<DeliveryLease>, StoreError>;

    /// Settles a message: by its entry's token, or by that of a delivery lease that stands. The ticket resolves when
    /// it is known what became of it; for [`Settlement::Abandon`], and for a message that is not tied, at once with
    /// [`Conclusion::Gateway`].
    ///
    /// The same settlement with the same token again is the same settlement. Only an abandon by the entry's own token,
    /// which stays valid, counts each time.
    ///
    /// # Errors
    ///
    /// The token names nothing, or no longer; the store failed.
    async fn settle(
        &self,
        identity: &Identity,
        token: &LockToken,
        settlement: Settlement,
    ) -> Result<Ticket<Conclusion>, SettleError>;

    /// Takes a direct method out, to be answered through the outbox. Of several calls only one succeeds.
    ///
    /// # Errors
    ///
    /// [`SettleError::Lost`] if no such method waits: it is over, answered, or its connection has ended, however long ago.
    /// Never [`SettleError::Unknown`]: only this gateway makes ids of the right form, so a text of another form is what
    /// names no method, and that shows when it is [read](MethodRequestId).
    async fn claim_method(
        &self,
        identity: &Identity,
        request: &MethodRequestId,
    ) -> Result<(), SettleError>;

    /// Dead letters of a partition's devices, for the operator; the newest of each device are kept, within a bound and for
    /// [`DeadLetter::KEPT`].
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn dead_letters(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<DeadLetter>, StoreError>;

    /// A dead letter, and what it said if the engine has kept that; `None` if there is no such dead letter.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn dead_letter(
        &self,
        identity: &Identity,
        sequence: u64,
    ) -> Result<Option<(DeadLetter, Option<Arc<CloudMessage>>)>, StoreError>;

    /// Offers a dead letter again: as a new message at the end, untied, with a delivery count of zero, that does not expire.
    /// Of several calls one succeeds.
    ///
    /// # Errors
    ///
    /// There is no such dead letter, what it said is not kept, the inbox is full, or the store failed.
    async fn replay(&self, identity: &Identity, sequence: u64) -> Result<(), ReplayError>;

    /// Forgets a dead letter; when this returns, a restart does not bring it back. False if there is none, for example
    /// because it was discarded before.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn discard(&self, identity: &Identity, sequence: u64) -> Result<bool, StoreError>;

    /// What the devices of a partition have here, all together. Direct methods are not counted.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn stock(&self, partition: Partition) -> Result<Stock, StoreError>;

    /// What a device has here.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn stock_of(&self, identity: &Identity) -> Result<Stock, StoreError>;
}

/// What `upstream` names an arrival, so that appending again does nothing twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ArrivalId {
    /// The connection that it came on.
    pub connection: ConnectionEpoch,
    /// Counted per connection.
    pub number: u64,
}

/// What came from the hub.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A cloud-to-device message.
    Message {
        /// The message.
        message: Arc<CloudMessage>,
        /// From when on it is shown to nobody. What is left of its life passes by the monotonic clock: a wall clock that is
        /// set meanwhile ends no message. After a restart the wall clock says again what is left.
        expires_at: Option<Timestamp>,
        /// Whether it is withdrawn with its connection: the hub then has it still (custody `hub`).
        is_tied: bool,
    },
    /// A direct method; always tied to its connection.
    Method {
        /// Its name for devices.
        id: MethodRequestId,
        /// What the caller wants.
        request: MethodRequest,
        /// When it is too late to answer.
        deadline: Instant,
        /// The same moment, for people and devices.
        deadline_at: Timestamp,
    },
}

/// What a device can say of a message, and what `upstream` hears of it (never `Abandon`, which stays in the inbox).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Settlement {
    /// Done with it.
    Complete,
    /// Offer it again; its delivery count grows.
    Abandon,
    /// A dead letter.
    Reject,
}

/// What became of a settlement at the hub.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Conclusion {
    /// The hub has been told (PUBACK).
    Hub,
    /// It is settled here; the hub is told after the messages before it are settled, or has been told before.
    Gateway,
    /// The connection ended first: the hub offers the message again.
    Lost,
}

/// The token of an entry or of a delivery lease: a GUID in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LockToken(Box<str>);

impl Arrival {
    /// Whether it is withdrawn with its connection.
    #[must_use]
    pub const fn is_tied(&self) -> bool {
        match self {
            Self::Message { is_tied, .. } => *is_tied,
            Self::Method { .. } => true,
        }
    }
}

impl LockToken {
    /// The token with this text, whatever it is: one that the inbox never gave settles nothing.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.to_ascii_lowercase().into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A reader's time-bound hold on a message.
#[derive(Clone, Debug)]
pub struct DeliveryLease {
    /// Settles the message as long as the lease stands.
    pub token: LockToken,
    /// The message; its own token settles it too.
    pub entry: MessageEntry,
}

/// What is waiting for a device.
#[derive(Clone, Debug, Default)]
pub struct InboxView {
    /// Messages and methods in the order of arrival.
    pub entries: Vec<InboxEntry>,
    /// The desired properties, if they are known and not stale.
    pub desired: Option<Desired>,
}

/// One entry.
#[derive(Clone, Debug)]
pub enum InboxEntry {
    /// A cloud-to-device message.
    Message(MessageEntry),
    /// A direct method.
    Method(MethodEntry),
}

/// A cloud-to-device message that waits.
#[derive(Clone, Debug)]
pub struct MessageEntry {
    /// Settles it until it is settled, expired or withdrawn.
    pub token: LockToken,
    /// Counted per device, in the order of arrival.
    pub sequence: u64,
    /// The message.
    pub message: Arc<CloudMessage>,
    /// How often it has been abandoned.
    pub delivery_count: u32,
    /// When it came.
    pub arrived_at: Timestamp,
    /// From when on it is shown to nobody.
    pub expires_at: Option<Timestamp>,
}

/// A direct method that waits for its answer.
#[derive(Clone, Debug)]
pub struct MethodEntry {
    /// Its name for devices.
    pub id: MethodRequestId,
    /// What the caller wants.
    pub request: MethodRequest,
    /// When it came.
    pub arrived_at: Timestamp,
    /// When it is too late to answer.
    pub deadline: Instant,
    /// The same moment, for people and devices.
    pub deadline_at: Timestamp,
}

/// The desired properties.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The whole document and its version.
    pub section: Arc<Section>,
    /// The connection on which they have been followed without a gap.
    pub connection: ConnectionEpoch,
}

/// A message that no device will see again unless it is [replayed](Inbox::replay). An engine that keeps nothing across a
/// restart has not kept what it said, only what tells an operator which one it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// Whose it was.
    pub identity: Identity,
    /// [`MessageEntry::sequence`].
    pub sequence: u64,
    /// The sender's name for it.
    pub message_id: Option<String>,
    /// Bytes of its payload.
    pub bytes: usize,
    /// How often it had been abandoned.
    pub delivery_count: u32,
    /// When it came.
    pub arrived_at: Timestamp,
    /// Why, in the words of IoT Hub's feedback: `Rejected`, `Expired`, `DeliveryCountExceeded`.
    pub reason: &'static str,
    /// Since when.
    pub at: Timestamp,
}

impl DeadLetter {
    /// How long one is kept. An operator who looks into yesterday's trouble finds it; a device that has gone for good
    /// leaves nothing behind.
    pub const KEPT: Duration = Duration::from_secs(24 * 3600);
}
