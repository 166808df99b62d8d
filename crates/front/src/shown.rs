//! Dead letters in the words of the admin API, for whoever shows or exports them.

use api::admin::{Address, Content, Dead, Kept, Kind, Side};
use store::{DeadLetter, Failure, Lane, OutboxDeadLetter, SubmissionId, Work};

use crate::{devices, http::Refusal};

/// A dead letter of the outbox.
#[must_use]
pub fn unsent(letter: &OutboxDeadLetter) -> Kept {
    Kept {
        of: Address::from(&letter.identity),
        side: Side::Outbox,
        id: letter.id.0,
        kind: kind_of(letter.lane),
        received_at: letter.accepted_at,
        expires_at: None,
        attempts: letter.attempts,
        delivery_count: None,
        message_id: None,
        receipt: Some(receipt(letter.submission)),
        bytes: letter.bytes as u64,
        dead: Some(Dead {
            reason: reason(&letter.failure).to_owned(),
            detail: Some(Refusal::from(letter.failure.clone()).detail().to_owned()),
            at: letter.at,
        }),
        content: None,
    }
}

/// A dead letter of the inbox.
#[must_use]
pub fn unread(letter: &DeadLetter) -> Kept {
    Kept {
        of: Address::from(&letter.identity),
        side: Side::Inbox,
        id: letter.sequence,
        kind: Kind::Message,
        received_at: letter.arrived_at,
        expires_at: None,
        attempts: None,
        delivery_count: Some(letter.delivery_count),
        message_id: letter.message_id.clone(),
        receipt: None,
        bytes: letter.bytes as u64,
        dead: Some(Dead {
            reason: letter.reason.to_owned(),
            detail: None,
            at: letter.at,
        }),
        content: None,
    }
}

/// What is to be done at the hub; `None` of what is never kept.
#[must_use]
pub fn work(work: &Work) -> Option<Content> {
    match work {
        Work::Telemetry(telemetry) => Some(Content::from(telemetry)),
        Work::ReportedPatch(patch) => Some(Content::of_patch(&patch.to_json())),
        Work::TwinRead | Work::MethodAnswer { .. } => None,
    }
}

/// What a lane carries that is kept: of the twin's the patches, and no answers, which die with their connection.
#[must_use]
pub const fn kind_of(lane: Lane) -> Kind {
    match lane {
        Lane::Telemetry => Kind::Telemetry,
        Lane::Twin | Lane::Answers => Kind::Reported,
    }
}

/// The receipt of a submission, as its device has it.
#[must_use]
pub fn receipt(submission: SubmissionId) -> String {
    devices::text_of(submission)
}

const fn reason(failure: &Failure) -> &'static str {
    match failure {
        Failure::HubError { .. } => "hub_error",
        Failure::CredentialRefused => "credential_refused",
        Failure::HubUnavailable => "hub_unavailable",
        Failure::HubTimeout => "hub_timeout",
        Failure::NoSession => "no_session",
        Failure::MethodGone => "method_gone",
        Failure::DoesNotFit => "does_not_fit",
        Failure::Stopping => "stopping",
        Failure::HubClosedOnPublish => "hub_closed_on_publish",
        Failure::Damaged => "damaged",
    }
}
