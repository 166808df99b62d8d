//! The contract between the two halves of the gateway.
//!
//! `front` (devices) and `upstream` (the hub) never meet. What crosses between them crosses here:
//!
//! - [`Outbox`]: what devices send to the hub. `front` submits, `upstream` reads and settles.
//! - [`Inbox`]: what the hub sends to devices. `upstream` appends, `front` reads and settles.
//! - [`Registry`]: devices, the tokens that speak for them, and what is remembered of their writes: receipts and
//!   idempotency keys.
//! - [`Leases`]: which node owns which part of the devices.
//! - [`Signals`]: what is neither entry nor record and never on disk: demand from the front, status from upstream. The
//!   third of its kind has a seat of its own: the [`Judge`] of devices' own tokens.
//!
//! ```text
//!   front --submit--> Outbox --take--> upstream        Ticket<Outcome>    comes back
//!   front <--read---- Inbox <-append-- upstream        Ticket<Settlement> comes back
//! ```
//!
//! # Rules of the contract
//!
//! They are what a cluster can keep too, and the suite `conformance` (feature `test-util`) holds every engine to them:
//!
//! 1. One submission is one record; no call spans two records atomically.
//! 2. Ids are opaque, and ordered inside one lane of one device only.
//! 3. The unit of ownership is a [`Partition`]. Every call of `upstream` carries a [`SessionLease`]; a stale one is
//!    refused with [`Stale`](StoreError::Stale) and changes nothing.
//! 4. Wake-ups may be missing or spurious: whoever is woken looks again, whoever waits also has a deadline.
//! 5. Submit, append and settle are idempotent by id.
//! 6. Everything is async and may fail with [`UnknownOutcome`](StoreError::UnknownOutcome): it may have happened.
//!    Calling again with the same id is then safe.
//! 7. There is no list of everything, only pages within a partition.
//!
//! Engines: [`memory`], and [`embedded`], which adds a disk to it.

mod address;
mod clock;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
pub mod embedded;
mod error;
mod inbox;
mod judge;
mod leases;
mod log;
pub mod memory;
pub mod metrics;
mod outbox;
mod receipt;
mod registry;
mod scopes;
mod sealed;
mod signals;
mod stock;
mod ticket;

use std::sync::Arc;

pub use address::{ConnectionEpoch, MethodRequestId, Page, ParseMethodRequestIdError, Partition};
pub use clock::{Clock, SystemClock};
pub use error::{
    AppendError, KeyError, PersistError, PutTokenError, ReplayError, SettleError, StoreError,
    SubmitError,
};
pub use inbox::{
    Arrival, ArrivalId, Conclusion, DeadLetter, DeliveryLease, Desired, Inbox, InboxEntry,
    InboxView, LockToken, MessageEntry, MethodEntry, Settlement,
};
pub use judge::{Judge, JudgeSeat, Verdict};
pub use leases::{Leases, NodeId, SessionLease};
pub use outbox::{
    Done, EntryId, Failure, GivenUp, Lane, LaneSet, Outbox, OutboxDeadLetter, OutboxEntry,
    OutboxReader, Outcome, Submission, SubmissionId, Survival, Work,
};
pub use receipt::{Answer, AnswerTooLong, Fingerprint, KeyId, KeyState, Receipt, ReceiptState};
pub use registry::{
    Custody, DeviceRecord, InvalidTokenHash, MethodPolicy, Registry, TokenHash, TokenId,
    TokenOrigin, TokenRecord,
};
pub use scopes::{Scope, Scopes};
pub use sealed::{SealedCredential, SealedTooLong};
pub use signals::{
    Demand, Need, Needs, NeedsNow, NeedsWatch, SessionState, Signals, Status, Watch,
};
pub use stock::Stock;
pub use ticket::{Resolver, Ticket, TicketLost, ticket};

/// One engine's five parts, as the binary hands them to both halves.
#[derive(Clone)]
pub struct Store {
    /// What devices send to the hub.
    pub outbox: Arc<dyn Outbox>,
    /// What the hub sends to devices.
    pub inbox: Arc<dyn Inbox>,
    /// Devices, tokens, receipts, keys and sealed credentials.
    pub registry: Arc<dyn Registry>,
    /// Who owns which part of the devices.
    pub leases: Arc<dyn Leases>,
    /// Demand and status.
    pub signals: Arc<dyn Signals>,
    /// Whether a device's own token is good.
    pub judge: JudgeSeat,
}
