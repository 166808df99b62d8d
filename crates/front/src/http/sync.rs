//! `POST .../sync`: everything that a device has to say, and everything that waits for it, in one request.
//!
//! ```text
//!   telemetry, reported, answers, settlements --> at once, until the deadline: hub | stored | failed, each for itself
//!   then what waits, when that is known or the deadline is over, as much of it as fits
//! ```
//!
//! With a key the results of what went up are remembered, item by item: what is final is given again, what may fare better is
//! tried again. What comes down is what is true at that time.

mod down;
mod up;

use std::time::{Duration, Instant, SystemTime};

use api::{Object, limits, sync::SyncAnswer, sync::SyncRequest};
use iothub::{Identity, twin::TwinVersion};
use store::{Fingerprint, Scope};

use self::{
    down::with_what_waits,
    up::{Fared, Up},
};
use super::{
    Gateway,
    answer::{self, Answer},
    extract::{BadRequest, DeviceRequest},
    inbox::with_tokens,
    problem::Refusal,
};
use crate::{
    delivery::{Completeness, Wanted},
    devices::{PartNames, Terms},
};

/// Does everything.
pub(super) async fn sync(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let mut terms = gateway.terms(&request).await?;
    let wait = request.prefer()?;
    terms.wait = wait.wait_or(limits::SYNC_WAIT, limits::SYNC_WAIT_MOST);
    let (identity, scopes) = (request.identity().clone(), request.grant.scopes);
    let body = gateway
        .bodies
        .read(request.body, limits::BATCH_BYTES)
        .await?;
    let deadline = Instant::now() + terms.wait;
    terms.key = request.key.map(|key| key.with_body(&body));
    let names = terms.part_names(Fingerprint::of(&[&body]));
    let Object::<SyncRequest>(mut sync) =
        serde_json::from_slice(&body).map_err(BadRequest::Json)?;
    check(&sync)?;

    let has = sync
        .desired_version
        .filter(|_| scopes.contain(Scope::Twin))
        .map(|has| move |version: TwinVersion| version.0 == has);
    let wanted = Wanted {
        messages: scopes.contain(Scope::Messages),
        methods: scopes.contain(Scope::Methods),
        desired: has.as_ref().map(|has| has as _),
    };
    // Whatever goes up, the session is opened for what comes down too.
    let _demand = gateway.delivery.demand(&identity, &wanted).await?;
    let up = Up::of(&mut sync, scopes);
    let fared = carry_out(gateway, &identity, up, terms, names).await?;
    let fared = fared.shown_to(scopes);
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    let found = gateway.delivery.known(&identity, &wanted, left).await?;

    let answer = SyncAnswer {
        request_id: sync.request_id,
        telemetry: fared.telemetry,
        reported: fared.reported,
        answers: fared.answers,
        settled: with_tokens(sync.settle, fared.settled),
        messages: Vec::new(),
        methods: Vec::new(),
        desired: None,
        complete: found.completeness == Completeness::Complete,
        more: false,
        server_time: SystemTime::now().into(),
        next_sync_after_s: 0,
    };
    let answer = with_what_waits(answer, found.found, sync.max_bytes);
    Ok(answer::json(&answer))
}

/// Carries out what goes up, once for the key of the request.
async fn carry_out(
    gateway: &Gateway,
    identity: &Identity,
    up: Up,
    terms: Terms,
    names: PartNames,
) -> Result<Fared, Refusal> {
    let (devices, of) = (gateway.devices.clone(), identity.clone());
    let request = move |known| {
        // Boxed: it holds all that a device can say at once.
        Box::pin(async move { Ok(up.carry_out(&devices, &of, &terms, names, known).await) })
    };
    gateway.keys.once(identity, terms.key, request).await
}

/// Checks what has a number.
fn check(sync: &SyncRequest) -> Result<(), BadRequest> {
    for (what, items, most) in [
        ("messages", sync.telemetry.len(), limits::BATCH_MESSAGES),
        ("settlements", sync.settle.len(), limits::SETTLEMENTS),
        ("answers", sync.answers.len(), limits::SYNC_ANSWERS),
    ] {
        if items > most {
            return Err(BadRequest::TooMany { what, items, most });
        }
    }
    if sync.max_bytes < limits::SYNC_BYTES_LEAST {
        return Err(BadRequest::MaxBytes);
    }
    let name = sync.request_id.as_deref().unwrap_or_default();
    if name.chars().count() > limits::SYNC_NAME_LENGTH {
        return Err(BadRequest::SyncName);
    }
    Ok(())
}
