//! What is remembered of a device's writes: receipts, and the records of idempotency keys.
//!
//! ```text
//!   submission with a fingerprint, or durable:   stored <-> sent --> acknowledged | refused
//!   any other request with a key:                open --note_key----> open, and what is noted
//!                                                open --answer_key--> answered
//!                                                open --forget_key--> (nothing)
//! ```
//!
//! Both are kept for [`Receipt::KEPT`], both are at most 256 bytes on disk, and a device has as many of them at most
//! as the engine's configuration says.
//!
//! # By which clock
//!
//! While an engine runs, a record ages by the clock that nobody sets: however the wall clock is moved, it is kept for its time.
//! Across a restart there is no such clock. What is there when an engine starts has the age that the wall clock gives it,
//! none if that says it is of the future; so a clock set forward between two runs by more than the time makes the second
//! run forget, and one set back makes it remember for longer, by the same time at most.

use std::time::Duration;

use iothub::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::{Failure, SubmissionId};

/// Of what a request was made: a hash of method, path, query and body, or of whatever else must be the same when a key is
/// used again. It tells a repetition from a mistake; it is no secret and no proof.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint([u8; 16]);

/// What a device's idempotency key is called here: a hash of all that the record belongs to. A submission with a
/// fingerprint is called so too, so a key is that of one request, whatever becomes of it: a key whose number is that of
/// such a submission is that of another request, and the other way round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyId(pub u128);

/// What is known of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyState {
    /// It was not known: it has begun with this call.
    Begun,
    /// It has begun before and has no answer: another request is under way, one ended before all was done, or the reply of
    /// the call that began it was lost. With what was noted last, if anything was.
    Open(Option<Answer>),
    /// It has an answer.
    Answered(Answer),
}

/// What the first request with a key was answered, or how far it has come, in the words of whoever answered. Never a secret:
/// it is on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer(Box<[u8]>);

/// An answer that is too long to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an answer of {bytes} bytes is not remembered, {max} are the most", max = Answer::MAX_BYTES)]
pub struct AnswerTooLong {
    /// How long it is.
    pub bytes: usize,
}

/// What is known of a submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The submitter's name for it.
    pub id: SubmissionId,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// How far it is.
    pub state: ReceiptState,
}

/// How far a submission is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReceiptState {
    /// It waits for a session.
    Stored,
    /// It waits, and the hub refuses the credential of the device.
    WaitingForCredential,
    /// A session has taken it, and the hub, which does not refuse the credential, has not answered.
    Sent,
    /// The hub has done it.
    Acknowledged {
        /// When that was known.
        at: Timestamp,
    },
    /// The hub will not do it.
    Refused {
        /// Why.
        failure: Failure,
        /// When that was known.
        at: Timestamp,
    },
}

impl Fingerprint {
    /// The fingerprint of these parts, in this order; where one ends and the next begins is part of it.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        Self::from_bytes(hash_of(parts))
    }

    /// The fingerprint with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl KeyId {
    /// The id of these parts, in this order; where one ends and the next begins is part of it.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(u128::from_be_bytes(hash_of(parts)))
    }
}

impl SubmissionId {
    /// The id of these parts, in this order; where one ends and the next begins is part of it.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(u128::from_be_bytes(hash_of(parts)))
    }
}

impl Answer {
    /// The longest one, so that a record is 256 bytes at most: the longest names of hub, device and module are not part of
    /// that, they are how a record is found.
    pub const MAX_BYTES: usize = 160;

    /// An answer of these bytes.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub fn new(bytes: &[u8]) -> Result<Self, AnswerTooLong> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(AnswerTooLong { bytes: bytes.len() });
        }
        Ok(Self(bytes.into()))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Receipt {
    /// How long a receipt and the record of a key are kept, from the moment of acceptance on, by
    /// [the clock that nobody sets](self#by-which-clock).
    pub const KEPT: Duration = Duration::from_secs(8 * 24 * 3600);
}

fn hash_of(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let (half, _) = digest
        .split_first_chunk()
        .expect("a digest of 32 bytes has 16");
    *half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_parts_end_is_part_of_a_fingerprint() {
        let one = Fingerprint::of(&[b"ab", b"c"]);
        assert_eq!(one, Fingerprint::of(&[b"ab", b"c"]));
        assert_ne!(one, Fingerprint::of(&[b"a", b"bc"]));
        assert_ne!(one, Fingerprint::of(&[b"abc"]));
        assert_ne!(SubmissionId::of(&[b"a"]), SubmissionId::of(&[b"a", b""]));
    }

    #[test]
    fn an_answer_is_bounded() {
        for (bytes, fits) in [
            (Answer::MAX_BYTES - 1, true),
            (Answer::MAX_BYTES, true),
            (Answer::MAX_BYTES + 1, false),
        ] {
            let answer = Answer::new(&vec![1; bytes]);
            assert_eq!(answer.is_ok(), fits, "{bytes}");
        }
    }
}
