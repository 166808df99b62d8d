//! What devices send to the hub.
//!
//! ```text
//!             submit            take             settle
//!   (front) ---------> waiting -------> taken ----------> settled     (a durable one that has failed for good:
//!                         ^                |                           a dead letter, which may be replayed)
//!                         +----------------+  the reader is dropped, or its lease is stale,
//!                                             or a durable one has failed, though not for good
//! ```
//!
//! A device has three lanes, taken in the order of [`Lane`]; inside one, entries are taken in the order of submission.
//!
//! What is [durable](Survival::Durable), or has a [fingerprint](Submission::fingerprint), leaves a [`Receipt`](crate::Receipt),
//! which is the record of its idempotency key at the same time.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use async_trait::async_trait;
use iothub::{
    HubError, Identity, MethodResponse, Telemetry, Timestamp,
    twin::{self, ReportedPatch, Twin, TwinVersion},
};

use crate::{
    Fingerprint, MethodRequestId, Page, Partition, PersistError, ReplayError, SessionLease, Stock,
    StoreError, SubmitError, Ticket,
};

/// Takes entries from devices, gives them to the sessions, carries outcomes back.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Whether [durable](Survival::Durable) submissions are taken. If not, each is refused with
    /// [`StoreError::Volatile`].
    fn is_durable(&self) -> bool;

    /// Puts one entry into its device's lane. Submitting the same id again gives a ticket of the same entry, also for
    /// a while after it is settled (a twin that has been read is then read again). If it left a receipt, the while is
    /// [`Receipt::KEPT`](crate::Receipt::KEPT). But an ephemeral one that has failed, though not
    /// [for good](Failure::is_final), leaves nothing, so it may be submitted again under its id. An answer to a direct
    /// method may not: whatever has become of it, it is never sent twice.
    ///
    /// A durable entry is on disk when this returns, and no reader is given it before.
    ///
    /// The bounds of a device are not for [`Lane::Answers`], neither counted nor kept: whoever answers a direct method has
    /// claimed it, so nobody else can, and the methods that wait are bounded.
    ///
    /// # Errors
    ///
    /// A bound is reached, the id is that of another submission, or the store failed.
    async fn submit(&self, submission: Submission) -> Result<Ticket<Outcome>, SubmitError>;

    /// Turns an [ephemeral](Survival::Ephemeral) entry into a durable one: it returns when the entry is on disk. From then
    /// on it has no deadline. Persisting again, or what is settled, is harmless; the tickets of what is settled are resolved
    /// when this returns, so whoever waits for the entry knows which of both it was.
    ///
    /// # Errors
    ///
    /// [`StoreError::Volatile`] if the engine keeps nothing; [`PersistError::Unknown`] if the entry is not there, and
    /// neither is its outcome.
    async fn persist(&self, identity: &Identity, id: SubmissionId) -> Result<(), PersistError>;

    /// Takes an entry back that no session has taken, and settles it with [`Failure::NoSession`]: whoever waits for it
    /// gives up, and is to know whether anything was sent. False if a session has it or had it, if it has another outcome,
    /// if it is durable, or unknown. Taking back twice is harmless, and true again.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn take_back(&self, identity: &Identity, id: SubmissionId) -> Result<bool, StoreError>;

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

    /// Durable entries of a partition's devices that have [failed for good](Failure::is_final), for the operator; the
    /// newest of each device are kept, within a bound.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn dead_letters(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<OutboxDeadLetter>, StoreError>;

    /// A dead letter, and what it says unless that is damaged; `None` if there is no such dead letter.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn dead_letter(
        &self,
        identity: &Identity,
        id: EntryId,
    ) -> Result<Option<(OutboxDeadLetter, Option<Work>)>, StoreError>;

    /// Puts a dead letter at the end of its lane, as a durable entry of the same submission. Of several calls one succeeds.
    ///
    /// # Errors
    ///
    /// There is no such dead letter, the device's outbox is full, or the store failed.
    async fn replay(&self, identity: &Identity, id: EntryId) -> Result<(), ReplayError>;

    /// Forgets a dead letter; when this returns, a restart does not bring it back. False if there is none, for example
    /// because it was discarded before. Its receipt stays what it is.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn discard(&self, identity: &Identity, id: EntryId) -> Result<bool, StoreError>;

    /// What the devices of a partition have here, all together. Answers to direct methods are not counted, as they are not
    /// by the bounds.
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

/// One device's lanes, as its session reads them. Dropped, it puts back what was taken and not settled.
#[async_trait]
pub trait OutboxReader: Send {
    /// Waits until lanes may have entries that have not been taken, and says which. May be over though there are none. The
    /// task that asked last is woken.
    ///
    /// A lane that gave as many entries as [`take`](Self::take) asked for counts as full, and does not end the wait,
    /// until one of its entries is settled: so whoever takes as many as it has room for does not spin while it has none.
    ///
    /// To be polled, for a session waits for many things, and registers with all of them for every message.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<LaneSet>;

    /// Takes up to `max` entries of a lane, oldest first. Entries whose deadline is over are settled and not given: with
    /// [`Failure::NoSession`], or with [`Failure::HubTimeout`] if a session has had them.
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed. After [`UnknownOutcome`](StoreError::UnknownOutcome) entries may be
    /// taken that nobody was given: open the lanes again, which puts them back.
    async fn take(&mut self, lane: Lane, max: usize) -> Result<Vec<OutboxEntry>, StoreError>;

    /// Says what became of an entry that this reader took. Settling twice is harmless; the first outcome stands.
    ///
    /// A durable entry is settled by what the hub has done and by a [final](Failure::is_final) failure, which makes it a
    /// dead letter. Any other failure puts it back in its place, to be taken again.
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed.
    async fn settle(&mut self, id: EntryId, outcome: Outcome) -> Result<(), StoreError>;

    /// Settles an entry that this reader took with a failure, unless it is durable meanwhile or on its way to the disk: then
    /// it stays taken, and is from here on what a durable entry is. Whoever has taken an ephemeral entry gives it up so, for
    /// putting it back would send it behind those that were taken after it, or twice.
    ///
    /// # Errors
    ///
    /// The lease is stale, or the store failed.
    async fn give_up(&mut self, id: EntryId, failure: Failure) -> Result<GivenUp, StoreError>;
}

/// What giving an entry up did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GivenUp {
    /// It is settled, or was before.
    Settled,
    /// It is durable: it is still taken.
    Kept,
}

impl dyn OutboxReader {
    /// [`poll_ready`](OutboxReader::poll_ready), for those who wait for nothing else.
    pub async fn ready(&mut self) -> LaneSet {
        poll_fn(|cx| self.poll_ready(cx)).await
    }
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

/// Some of the lanes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LaneSet {
    answers: bool,
    twin: bool,
    telemetry: bool,
}

impl LaneSet {
    /// All of them.
    pub const ALL: Self = Self {
        answers: true,
        twin: true,
        telemetry: true,
    };

    /// Whether a lane is among them.
    #[must_use]
    pub const fn has(self, lane: Lane) -> bool {
        match lane {
            Lane::Answers => self.answers,
            Lane::Twin => self.twin,
            Lane::Telemetry => self.telemetry,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl FromIterator<Lane> for LaneSet {
    fn from_iter<I: IntoIterator<Item = Lane>>(lanes: I) -> Self {
        let mut set = Self::default();
        for lane in lanes {
            match lane {
                Lane::Answers => set.answers = true,
                Lane::Twin => set.twin = true,
                Lane::Telemetry => set.telemetry = true,
            }
        }
        set
    }
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
    /// What is to be done; shared with whoever may have to submit it again.
    pub work: Arc<Work>,
    /// What a restart does to it.
    pub survival: Survival,
    /// Of what it was made, if its id comes from an idempotency key: another one under the same id is refused, and what
    /// becomes of it is remembered like what becomes of a durable one.
    pub fingerprint: Option<Fingerprint>,
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
    /// What is to be done; shared with the outbox, which may have to give it again.
    pub work: Arc<Work>,
    /// What a restart does to it.
    pub survival: Survival,
    /// When it was submitted.
    pub accepted_at: Timestamp,
    /// How often it has been taken before, since the engine was opened. An entry that has been in flight at several losses
    /// of the connection may be what the hub closes it for.
    pub attempts: u32,
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
        /// What the hub said, if that could be read. Boxed, because every entry has an outcome, and hardly any this one.
        error: Option<Box<HubError>>,
    },
    /// The hub refuses the credential that the gateway holds for the device.
    #[error("the hub refuses the credential of the device")]
    CredentialRefused,
    /// There is no connection to the hub, and there was none in time.
    #[error("the hub cannot be reached")]
    HubUnavailable,
    /// It was handed to the hub, and no answer came before the deadline. It may still happen.
    #[error("the hub did not answer in time")]
    HubTimeout,
    /// No session took it before the deadline: there are as many as there may be, or its own has no room. Nothing was sent.
    #[error("no session with the hub was free for it in time; nothing was sent")]
    NoSession,
    /// The connection that a direct method came on has ended.
    #[error("the connection of the direct method has ended")]
    MethodGone,
    /// The message does not fit into an MQTT packet as the hub takes it.
    #[error("the message does not fit into an MQTT topic")]
    DoesNotFit,
    /// The node gives up the session, or stops; nothing was sent.
    #[error("the gateway stops")]
    Stopping,
    /// The hub closes the connection whenever it is sent, also when it is sent alone.
    #[error("the hub closes the connection when it is sent")]
    HubClosedOnPublish,
    /// The record on the disk is damaged; it is not sent.
    #[error("the stored message is damaged")]
    Damaged,
}

impl Failure {
    /// Whether trying again cannot help, so that a durable entry that failed so is a dead letter.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            // The hub's words for "not now": throttled, timed out, too early, and its own troubles. Its refusal of the
            // credential is none of the message.
            Self::HubError { status, .. } => {
                !matches!(*status, 401 | 403 | 408 | 425 | 429 | 500..)
            }
            Self::CredentialRefused
            | Self::HubUnavailable
            | Self::HubTimeout
            | Self::NoSession
            | Self::Stopping => false,
            Self::MethodGone | Self::DoesNotFit | Self::HubClosedOnPublish | Self::Damaged => true,
        }
    }
}

/// A durable entry that will not reach the hub unless it is [replayed](Outbox::replay).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxDeadLetter {
    /// Whose it was.
    pub identity: Identity,
    /// Its name while it waited.
    pub id: EntryId,
    /// The submitter's name for it.
    pub submission: SubmissionId,
    /// The lane that carried it.
    pub lane: Lane,
    /// Bytes that it counts in the bounds of an outbox.
    pub bytes: usize,
    /// When it was submitted.
    pub accepted_at: Timestamp,
    /// How often a session had taken it; not known of one that has failed before the engine was opened.
    pub attempts: Option<u32>,
    /// Why.
    pub failure: Failure,
    /// Since when.
    pub at: Timestamp,
}

/// About what an entry takes beside what it carries.
const ENTRY_BYTES: usize = 512;
