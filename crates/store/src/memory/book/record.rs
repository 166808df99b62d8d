//! What the book says of one write.

use iothub::{HubError, Timestamp};

use super::super::location::Location;
use crate::{
    Answer, EntryId, Failure, Fingerprint, KeyId, KeyState, Lane, Outcome, Receipt, ReceiptState,
    SubmissionId,
};

/// What a record is about. Bytes, so that a million of them take no more than they say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::memory) struct Name {
    kind: Kind,
    id: [u8; 16],
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A submission: the record is its receipt.
    Submission,
    /// A request of another kind that has a key.
    Key,
}

/// One record.
pub(in crate::memory) struct Record {
    pub(in crate::memory) began_at: Timestamp,
    pub(in crate::memory) fingerprint: Option<Fingerprint>,
    pub(in crate::memory) progress: Progress,
    /// Where it is on the disk; an open submission's is with its entry.
    pub(in crate::memory) stored: Option<Location>,
}

/// How far a record's request is.
pub(in crate::memory) enum Progress {
    /// It has no end.
    Open,
    /// So much is noted of a request of another kind.
    Noted(Answer),
    /// A submission is settled.
    Settled(Box<Outcome>, Timestamp),
    /// A request of another kind is answered.
    Answered(Answer),
}

/// A durable entry that has failed for good.
#[derive(Clone)]
pub(in crate::memory) struct Dead {
    pub(in crate::memory) id: EntryId,
    pub(in crate::memory) submission: SubmissionId,
    pub(in crate::memory) lane: Lane,
    pub(in crate::memory) size: usize,
    pub(in crate::memory) accepted_at: Timestamp,
    /// How often it was taken, if it has failed since the engine was opened.
    pub(in crate::memory) attempts: Option<u32>,
    pub(in crate::memory) failure: Failure,
    pub(in crate::memory) at: Timestamp,
    pub(in crate::memory) stored: Location,
}

impl Name {
    pub(in crate::memory) const fn submission(id: SubmissionId) -> Self {
        Self {
            kind: Kind::Submission,
            id: id.0.to_be_bytes(),
        }
    }

    pub(in crate::memory) const fn key(id: KeyId) -> Self {
        Self {
            kind: Kind::Key,
            id: id.0.to_be_bytes(),
        }
    }

    /// What it is the name of, as a number: a [`SubmissionId`] or a [`KeyId`].
    pub(in crate::memory) const fn number(self) -> u128 {
        u128::from_be_bytes(self.id)
    }

    /// Whether it is that of a submission.
    pub(super) const fn is_submission(self) -> bool {
        matches!(self.kind, Kind::Submission)
    }

    /// What has the same number.
    pub(super) const fn of_other_kind(self) -> Self {
        let kind = match self.kind {
            Kind::Submission => Kind::Key,
            Kind::Key => Kind::Submission,
        };
        Self { kind, ..self }
    }
}

impl Record {
    pub(in crate::memory) const fn is_open(&self) -> bool {
        matches!(self.progress, Progress::Open | Progress::Noted(_))
    }

    /// What is known of the key that the record is about, to whoever asks again.
    pub(in crate::memory) fn key_state(&self) -> KeyState {
        match &self.progress {
            Progress::Open | Progress::Settled(..) => KeyState::Open(None),
            Progress::Noted(note) => KeyState::Open(Some(note.clone())),
            Progress::Answered(answer) => KeyState::Answered(answer.clone()),
        }
    }

    /// The receipt of a submission; `while_open` says how far an open one is.
    pub(in crate::memory) fn to_receipt(
        &self,
        id: SubmissionId,
        while_open: impl FnOnce() -> ReceiptState,
    ) -> Receipt {
        let state = match &self.progress {
            Progress::Open | Progress::Noted(_) | Progress::Answered(_) => while_open(),
            Progress::Settled(outcome, at) => match outcome.as_ref() {
                Ok(_) => ReceiptState::Acknowledged { at: *at },
                Err(failure) => ReceiptState::Refused {
                    failure: failure.clone(),
                    at: *at,
                },
            },
        };
        Receipt {
            id,
            accepted_at: self.began_at,
            state,
        }
    }
}

/// The progress of a submission that is settled.
pub(super) fn settled(outcome: &Outcome, at: Timestamp) -> Progress {
    let mut outcome = Box::new(outcome.clone());
    if let Err(Failure::HubError {
        error: Some(error), ..
    }) = outcome.as_mut()
    {
        shorten(error);
    }
    Progress::Settled(outcome, at)
}

/// Cuts what the hub said, so that a record has a bound.
fn shorten(error: &mut HubError) {
    error.tracking_id = cut(&error.tracking_id, 48);
    error.message = cut(&error.message, 64);
    error.timestamp_utc = cut(&error.timestamp_utc, 28);
    error.info = serde_json::Value::Null;
}

/// The text's first bytes, whole characters only.
fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hub_said_is_cut_between_characters() {
        let mut error = HubError {
            error_code: 400,
            tracking_id: String::new(),
            message: "é".repeat(100),
            timestamp_utc: String::new(),
            info: serde_json::json!({"a": 1}),
        };
        shorten(&mut error);
        assert_eq!(error.message, "é".repeat(32));
        assert_eq!(error.info, serde_json::Value::Null);
    }
}
