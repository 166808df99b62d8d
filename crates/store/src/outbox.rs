//! What devices send to the hub.
//!
//! ```text
//!             submit            take             settle
//!   (front) ---------> waiting -------> taken ----------> settled
//!                         ^                |
//!                         +----------------+  the reader is dropped, or its lease is stale
//! ```
//!
//! A device has three lanes, taken in the order of [`Lane`]; inside one, entries are taken in the order of submission.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use iothub::{
    HubError, Identity, MethodResponse, Telemetry, Timestamp,
    twin::{self, ReportedPatch, Twin, TwinVersion},
};

use crate::{MethodRequestId, Page, Partition, SessionLease, StoreError, SubmitError, Ticket};

/// Takes entries from devices, gives them to the sessions, carries outcomes back.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Puts one entry into its device's lane. Submitting the same id again gives a ticket of the same entry, also for
    /// a while after it is settled (a twin that has been read is then read again).
    ///
    /// The bounds of a device are not for [`Lane::Answers`], neither counted nor kept: whoever answers a direct method has
    /// claimed it, so nobody else can, and the methods that wait are bounded.
    ///
    /// # Errors
    ///
    /// A bound is reached, or the store failed.
    async fn submit(&self, submission: Submission) -> Result<Ticket<Outcome>, SubmitError>;

    /// Turns an [ephemeral](Survival::Ephemeral) entry into a durable one: it returns when the entry is on disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::Volatile`] if the engine keeps nothing.
    async fn persist(&self, identity: &Identity, id: SubmissionId) -> Result<(), StoreError>;

    /// Opens a device's lanes for the node that owns its session. One reader at a time: opening again ends the older
    /// one, whose calls then fail with [`StoreError::Stale`].
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed.
    async fn open(
        &self,
        lease: &SessionLease,
        identity: &Identity,
    ) -> Result<Box<dyn OutboxReader>, StoreError>;

    /// Devices of a partition that have entries waiting.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn backlog(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<Identity>, StoreError>;
}

/// One device's lanes, as its session reads them. Dropped, it puts back what was taken and not settled.
#[async_trait]
pub trait OutboxReader: Send {
    /// Waits until a lane may have entries that have not been taken. May return though there are none.
    ///
    /// A lane that gave as many entries as [`take`](Self::take) asked for counts as full, and does not end the wait,
    /// until one of its entries is settled: so whoever takes as many as it has room for does not spin while it has none.
    async fn ready(&mut self);

    /// Takes up to `max` entries of a lane, oldest first. Entries whose deadline is over are settled with
    /// [`Failure::HubTimeout`] and not given.
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed. After [`UnknownOutcome`](StoreError::UnknownOutcome) entries may be
    /// taken that nobody was given: open the lanes again, which puts them back.
    async fn take(&mut self, lane: Lane, max: usize) -> Result<Vec<OutboxEntry>, StoreError>;

    /// Says what became of an entry that this reader took. Settling twice is harmless; the first outcome stands.
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed.
    async fn settle(&mut self, id: EntryId, outcome: Outcome) -> Result<(), StoreError>;
}

/// The lanes of a device, in the order in which they are served: a backlog of one never delays the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Answers to direct methods.
    Answers,
    /// Twin reads and reported patches.
    Twin,
    /// Telemetry.
    Telemetry,
}

impl Lane {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Answers, Self::Twin, Self::Telemetry];
}

/// What a submitter names a submission, so that submitting again does nothing twice. Random, or derived from an
/// idempotency key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubmissionId(pub u128);

/// What the engine names an entry: ordered inside one lane of one device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryId(pub u64);

/// One thing for the hub.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The submitter's name for it.
    pub id: SubmissionId,
    /// Whose it is.
    pub identity: Identity,
    /// What is to be done.
    pub work: Work,
    /// What a restart does to it.
    pub survival: Survival,
}

/// What is to be done at the hub.
#[derive(Clone, Debug)]
pub enum Work {
    /// Send a telemetry message.
    Telemetry(Telemetry),
    /// Read the twin.
    TwinRead,
    /// Merge a patch into the reported properties.
    ReportedPatch(ReportedPatch),
    /// Answer a direct method. Never durable: it dies with the connection that the request came on.
    MethodAnswer {
        /// The request.
        request: MethodRequestId,
        /// The device's answer.
        response: MethodResponse,
    },
}

impl Work {
    /// The lane that carries it.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Self::MethodAnswer { .. } => Lane::Answers,
            Self::TwinRead | Self::ReportedPatch(_) => Lane::Twin,
            Self::Telemetry(_) => Lane::Telemetry,
        }
    }

    /// Bytes that it counts in the bounds of an outbox: what it carries, and a constant for keeping it, so that
    /// entries that carry nothing are bounded too.
    #[must_use]
    pub fn size(&self) -> usize {
        let carried = match self {
            Self::MethodAnswer { response, .. } => response.payload.len(),
            Self::TwinRead => 0,
            Self::ReportedPatch(patch) => twin::section_size(patch.as_map()),
            Self::Telemetry(telemetry) => telemetry.size(),
        };
        ENTRY_BYTES + carried
    }
}

/// What a restart of the gateway does to an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival {
    /// It is on disk before the submission returns, and is delivered at least once.
    Durable,
    /// It is forgotten. It is also given up at its deadline.
    Ephemeral {
        /// When nobody wants the outcome any more.
        deadline: Instant,
    },
}

/// An entry as the session gets it.
#[derive(Clone, Debug)]
pub struct OutboxEntry {
    /// The engine's name for it.
    pub id: EntryId,
    /// What is to be done.
    pub work: Work,
    /// What a restart does to it.
    pub survival: Survival,
    /// When it was submitted.
    pub accepted_at: Timestamp,
}

/// What became of an entry.
pub type Outcome = Result<Done, Failure>;

/// The hub has done it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// The hub acknowledged the message, or the method answer (PUBACK).
    Acknowledged,
    /// The twin, as the hub answered.
    TwinRead(Arc<Twin>),
    /// The hub merged the patch.
    ReportedPatched {
        /// The new version, if the hub named one.
        version: Option<TwinVersion>,
    },
}

/// The hub has not done it, as far as is known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The hub answered with an error.
    #[error("the hub answered with status {status}")]
    HubError {
        /// HTTP's meaning.
        status: u16,
        /// What the hub said, if that could be read.
        error: Option<HubError>,
    },
    /// The hub refuses the credential that the gateway holds for the device.
    #[error("the hub refuses the credential of the device")]
    CredentialRefused,
    /// There is no connection to the hub, and there was none in time.
    #[error("the hub cannot be reached")]
    HubUnavailable,
    /// It was handed to the hub, or waited for its turn, and no answer came before the deadline. It may still happen.
    #[error("the hub did not answer in time")]
    HubTimeout,
    /// The connection that a direct method came on has ended.
    #[error("the connection of the direct method has ended")]
    MethodGone,
    /// The message does not fit into an MQTT packet as the hub takes it.
    #[error("the message does not fit into an MQTT topic")]
    DoesNotFit,
    /// The node gives up the session, or stops; nothing was sent.
    #[error("the gateway stops")]
    Stopping,
}

/// About what an entry takes beside what it carries.
const ENTRY_BYTES: usize = 512;
