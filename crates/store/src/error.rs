//! Why a call of the contract failed.

use std::time::Duration;

use crate::leases::NodeId;

/// Why a call could not be carried out, whatever the call is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The reply was lost: it may have happened. Safe to repeat with the same id.
    #[error("the outcome is not known")]
    UnknownOutcome,
    /// The store cannot be reached, or stops; it did not happen.
    #[error("the store is not available")]
    Unavailable,
    /// The session lease is no longer this node's; it did not happen, and the session must be given up.
    #[error("the session lease is stale")]
    Stale,
    /// Another node holds the session lease.
    #[error("{by} holds the session lease")]
    Held {
        /// Who.
        by: NodeId,
        /// How long at least.
        for_at_least: Duration,
    },
    /// The engine keeps nothing across a restart, so it cannot make this promise.
    #[error("this store does not survive a restart")]
    Volatile,
    /// There is no room on the disk, or the store has as many bytes there as it may have; it did not happen.
    #[error("the store has no room on its disk")]
    StorageFull,
}

/// Why a message could not be put into the outbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The device has as many entries, or as many bytes, waiting as it may have, answers to direct methods aside.
    #[error("the outbox of the device is full ({entries} entries, {bytes} bytes)")]
    DeviceFull {
        /// Entries of the device that wait.
        entries: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The gateway has as many bytes waiting, or remembers as many writes, as it may have.
    #[error("the outbox is full")]
    Full,
    /// The id is that of another submission: its fingerprint differs.
    #[error("the key was used for another request")]
    KeyReused,
    /// As many keys of the device are remembered as may be.
    #[error("the device has used {limit} keys, as many as are remembered: wait until one ends")]
    TooManyKeys {
        /// How many that is.
        limit: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an entry of the outbox could not be made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PersistError {
    /// No entry has this id: it was never submitted, or what became of it is forgotten.
    #[error("no such entry")]
    Unknown,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a key could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key was used for another request: its fingerprint differs.
    #[error("the key was used for another request")]
    Reused,
    /// As many keys of the device are remembered as may be.
    #[error("the device has used {limit} keys, as many as are remembered: wait until one ends")]
    TooMany {
        /// How many that is.
        limit: usize,
    },
    /// The gateway remembers as many keys as it may.
    #[error("as many keys are remembered as may be")]
    Full,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a dead letter could not be sent on its way again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// There is no such dead letter, or no longer.
    #[error("no such dead letter")]
    Unknown,
    /// What it said was not kept, or is damaged.
    #[error("what the dead letter said is not kept")]
    NotKept,
    /// The device has as many entries waiting as it may have.
    #[error("the device has as many entries waiting as it may have")]
    Full,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an arrival could not be put into the inbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The device has as many entries of this kind, or the gateway as many bytes of all devices, as it may have.
    #[error("the inbox of the device is full")]
    Full,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a token could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutTokenError {
    /// The device or module has as many tokens as it may have.
    #[error(
        "there are {limit} tokens, as many as one device or module may have: revoke one, or wait until one ends"
    )]
    TooMany {
        /// How many that is.
        limit: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an inbox entry could not be settled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// The token names nothing that the device has or had.
    #[error("no such entry")]
    Unknown,
    /// The token's entry was settled, expired or withdrawn, or its delivery lease ended.
    #[error("the entry is settled, expired or withdrawn, or its lock is lost")]
    Lost,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
