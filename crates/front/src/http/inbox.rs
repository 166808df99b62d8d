//! The inbox: everything that waits in one list, and many settlements in one request.

use api::{
    ItemResult, Object, etag,
    inbox::{
        ChangedDesired, Entry, Inbox, Outcome, Settle, SettleAnswer, SettleResult, WaitingMessage,
    },
    limits,
};
use http::StatusCode;
use iothub::twin::TwinVersion;
use store::{InboxEntry, InboxView, LockToken, MessageEntry, Scope, Settlement};

use super::{
    Gateway,
    answer::{self, Answer},
    extract::{BadRequest, DeviceRequest},
    methods,
    problem::Refusal,
};
use crate::delivery::{Completeness, Wanted};

/// `GET .../inbox`. Desired properties are among the entries only if the device says which version it has, with
/// `If-None-Match` as for the desired properties alone. What the credential has no scope for is not there.
pub(super) async fn read(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let wait = request.poll_wait(&gateway.waits)?;
    let held = request.held_tags()?;
    let scopes = request.grant.scopes;
    let has = held
        .filter(|_| scopes.contain(Scope::Twin))
        .map(|held| move |version: TwinVersion| held.have(&etag::of_desired(version)));
    let wanted = Wanted {
        messages: scopes.contain(Scope::Messages),
        methods: scopes.contain(Scope::Methods),
        desired: has.as_ref().map(|has| has as _),
    };
    let found = gateway
        .delivery
        .inbox(request.identity(), wanted, wait)
        .await?;
    let entries = entries(&found.found);
    if entries.is_empty() {
        return Ok(answer::inbox(
            answer::empty(StatusCode::NO_CONTENT),
            found.completeness,
        ));
    }
    let body = Inbox {
        entries,
        complete: found.completeness == Completeness::Complete,
    };
    Ok(answer::inbox(answer::json(&body), found.completeness))
}

/// `POST .../inbox/settle`.
pub(super) async fn settle(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let wait = request.write_wait(&gateway.waits)?;
    let identity = request.identity().clone();
    let list: Vec<Object<Settle>> = gateway
        .bodies
        .json(request.body, gateway.limits.json_bytes)
        .await?;
    if list.is_empty() {
        return Err(BadRequest::Empty("settlements").into());
    }
    if list.len() > limits::SETTLEMENTS {
        return Err(BadRequest::TooMany {
            what: "settlements",
            items: list.len(),
            most: limits::SETTLEMENTS,
        }
        .into());
    }
    let settlements: Vec<_> = list
        .iter()
        .map(|Object(settle)| {
            (
                LockToken::from_text(&settle.token),
                settlement(settle.outcome),
            )
        })
        .collect();
    let results = gateway
        .devices
        .settle_all(&identity, &settlements, wait)
        .await?;
    let results = list
        .into_iter()
        .zip(results)
        .map(|(Object(settle), result)| SettleResult {
            token: settle.token,
            result: match result {
                Ok(settled) => ItemResult::delivered(answer::delivery_of(settled)),
                Err(error) => Refusal::from(error).into_item(),
            },
        });
    Ok(answer::json(&SettleAnswer {
        results: results.collect(),
    }))
}

fn entries(view: &InboxView) -> Vec<Entry> {
    let waiting = view.entries.iter().map(|entry| match entry {
        InboxEntry::Message(message) => Entry::Message(message_shown(message)),
        InboxEntry::Method(method) => Entry::Method(methods::shown(method)),
    });
    let desired = view.desired.iter().map(|desired| {
        Entry::Desired(ChangedDesired {
            version: desired.section.version.0,
            properties: (&*desired.section).into(),
        })
    });
    waiting.chain(desired).collect()
}

fn message_shown(entry: &MessageEntry) -> WaitingMessage {
    let shown = WaitingMessage::new(
        entry.token.as_str(),
        &entry.message,
        entry.delivery_count,
        entry.arrived_at,
        entry.expires_at,
    );
    WaitingMessage {
        sequence: Some(entry.sequence),
        ..shown
    }
}

const fn settlement(outcome: Outcome) -> Settlement {
    match outcome {
        Outcome::Complete => Settlement::Complete,
        Outcome::Abandon => Settlement::Abandon,
        Outcome::Reject => Settlement::Reject,
    }
}
