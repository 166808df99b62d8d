//! The inbox: everything that waits in one list, and many settlements in one request.

use std::time::Duration;

use api::{
    ItemResult, Object, etag,
    inbox::{
        ChangedDesired, Entry, Inbox, Outcome, Settle, SettleAnswer, SettleResult, WaitingMessage,
    },
    limits,
};
use http::StatusCode;
use iothub::{Identity, twin::TwinVersion};
use store::{InboxEntry, InboxView, LockToken, MessageEntry, Scope, Settlement};

use super::{
    Gateway,
    answer::{self, Answer},
    extract::{BadRequest, DeviceRequest},
    methods,
    problem::Refusal,
    remembered::Pending,
};
use crate::{
    delivery::{Completeness, Wanted},
    devices::Devices,
};

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
    let body = gateway
        .bodies
        .read(request.body, gateway.limits.json_bytes)
        .await?;
    let key = request.key.map(|key| key.with_body(&body));
    let list: Vec<Object<Settle>> = serde_json::from_slice(&body).map_err(BadRequest::Json)?;
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
    let list: Vec<Settle> = list.into_iter().map(|Object(settle)| settle).collect();
    let settlements = settlements(&list);
    let (devices, of) = (gateway.devices.clone(), identity.clone());
    let settled = move |known| async move {
        let settlements = Pending::of(settlements, known);
        Ok(settle_all(&devices, &of, settlements, wait).await)
    };
    let results = gateway.keys.once(&identity, key, settled).await?;
    Ok(answer::json(&SettleAnswer {
        results: with_tokens(list, results),
    }))
}

/// What is asked of which message.
pub(super) fn settlements(list: &[Settle]) -> Vec<(LockToken, Settlement)> {
    let settlements = list.iter().map(|settle| {
        (
            LockToken::from_text(&settle.token),
            settlement(settle.outcome),
        )
    });
    settlements.collect()
}

/// Settles all that are open, and says how each went.
pub(super) async fn settle_all(
    devices: &Devices,
    identity: &Identity,
    mut settlements: Pending<(LockToken, Settlement)>,
    wait: Duration,
) -> Vec<ItemResult> {
    let open = std::mem::take(&mut settlements.open).into_iter();
    let open: Vec<_> = open.map(|(_, settlement)| settlement).collect();
    let results = devices.settle_all(identity, &open, wait).await;
    let results = results.into_iter().map(|result| match result {
        Ok(settled) => ItemResult::delivered(answer::delivery_of(settled)),
        Err(error) => Refusal::from(error).into_item(),
    });
    settlements.into_results(results)
}

/// The results with the tokens of what they are about.
pub(super) fn with_tokens(list: Vec<Settle>, results: Vec<ItemResult>) -> Vec<SettleResult> {
    let results = list.into_iter().zip(results);
    let results = results.map(|(settle, result)| SettleResult {
        token: settle.token,
        result,
    });
    results.collect()
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

/// A message as devices see it.
pub(super) fn message_shown(entry: &MessageEntry) -> WaitingMessage {
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
