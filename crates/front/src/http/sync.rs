//! `POST .../sync`: everything that a device has to say, and everything that waits for it, in one request.
//!
//! ```text
//!   telemetry, reported, answers, settlements --> at once, until the deadline: hub | stored | failed, each for itself
//!   then what waits, when that is known or the deadline is over, as much of it as fits
//! ```
//!
//! With a key the results of what went up are remembered and given again; what comes down is what is true at that time.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use api::{
    Code, Delivery, ItemResult, Object,
    inbox::WaitingMessage,
    limits,
    sync::{SyncAnswer, SyncDesired, SyncMethodAnswer, SyncReported, SyncRequest, TooLarge},
    twin::Properties,
};
use futures_util::future::join_all;
use iothub::{
    Identity, MethodResponse, Telemetry,
    twin::{ReportedPatch, RuleBroken, TwinVersion},
};
use serde::Serialize;
use serde_json::{Map, Value};
use store::{
    Fingerprint, InboxEntry, InboxView, LockToken, MethodRequestId, Scope, Scopes, Settlement,
};

use super::{
    Gateway,
    answer::{self, Answer},
    batch::send_readable,
    extract::{BadRequest, DeviceRequest},
    inbox::{message_shown, settle_all, settlements, with_tokens},
    methods,
    once::Remembered,
    problem::Refusal,
    remembered::{Receipts, Runs, restore, restore_one, shorten, shorten_one},
};
use crate::{
    delivery::{Completeness, Found, Wanted},
    devices::{Devices, PartNames, Reached, Terms, WriteKey, text_of},
};

/// What goes up.
struct Up {
    telemetry: Vec<Result<Telemetry, BadRequest>>,
    reported: Option<Map<String, Value>>,
    answers: Vec<SyncMethodAnswer>,
    settlements: Vec<(LockToken, Settlement)>,
}

/// How it fared.
struct Fared {
    telemetry: Vec<ItemResult>,
    reported: Option<SyncReported>,
    answers: Vec<ItemResult>,
    settled: Vec<ItemResult>,
}

/// Does everything.
pub(super) async fn sync(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let mut terms = request.terms(&gateway.waits)?;
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
    let Object::<SyncRequest>(sync) = serde_json::from_slice(&body).map_err(BadRequest::Json)?;
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
    let up = Up {
        telemetry: (sync.telemetry.into_iter())
            .map(|item| item.try_into().map_err(BadRequest::NotBase64))
            .collect(),
        reported: sync.reported,
        answers: sync.answers,
        settlements: settlements(&sync.settle),
    };
    let (devices, of) = (gateway.devices.clone(), identity.clone());
    // Boxed: it holds all that a device can say at once.
    let up = Box::pin(async move { Ok(up.carry_out(&devices, &of, scopes, &terms, names).await) });
    let fared = gateway.keys.once(&identity, terms.key, up).await?;
    let left = deadline.saturating_duration_since(Instant::now());
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
    Ok(answer::json(&with_what_waits(
        answer,
        &found,
        sync.max_bytes,
    )))
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

impl Up {
    /// Does it all at once; what the credential has no scope for is refused.
    async fn carry_out(
        self,
        devices: &Arc<Devices>,
        identity: &Identity,
        scopes: Scopes,
        terms: &Terms,
        names: PartNames,
    ) -> Fared {
        let telemetry = async {
            if !scopes.contain(Scope::Telemetry) {
                return forbidden(self.telemetry.len());
            }
            send_readable(devices, identity, self.telemetry, terms, names).await
        };
        let reported = async {
            match self.reported {
                Some(_) if !scopes.contain(Scope::Twin) => {
                    Some(of_reported(forbidden_item(), None))
                }
                Some(patch) => Some(patch_reported(devices, identity, patch, terms).await),
                None => None,
            }
        };
        let answers = async {
            if !scopes.contain(Scope::Methods) {
                return forbidden(self.answers.len());
            }
            let answers = self.answers.into_iter();
            join_all(answers.map(|answer| answer_method(devices, identity, answer, terms.wait)))
                .await
        };
        let settled = async {
            if !scopes.contain(Scope::Messages) {
                return forbidden(self.settlements.len());
            }
            if self.settlements.is_empty() {
                return Vec::new();
            }
            settle_all(devices, identity, &self.settlements, terms.wait).await
        };
        let (telemetry, reported, answers, settled) =
            tokio::join!(telemetry, reported, answers, settled);
        Fared {
            telemetry,
            reported,
            answers,
            settled,
        }
    }
}

fn forbidden(items: usize) -> Vec<ItemResult> {
    vec![forbidden_item(); items]
}

fn forbidden_item() -> ItemResult {
    let detail = "the token does not have the scope that this needs";
    ItemResult::failed(Code::Forbidden, detail, None)
}

/// Merging a patch twice does no harm, so it has no name of its own under the key.
async fn patch_reported(
    devices: &Devices,
    identity: &Identity,
    patch: Map<String, Value>,
    terms: &Terms,
) -> SyncReported {
    let terms = Terms {
        key: None,
        ..*terms
    };
    let patch = match ReportedPatch::new(patch) {
        Ok(patch) => patch,
        Err(broken) => return of_reported(refused_rule(broken).into_item(), None),
    };
    match devices.patch_reported(identity, patch, &terms).await {
        Ok(Reached::Hub(version)) => of_reported(
            ItemResult::delivered(Delivery::Hub),
            version.map(|version| version.0),
        ),
        Ok(Reached::Stored(receipt)) => of_reported(ItemResult::stored(text_of(receipt)), None),
        Err(error) => of_reported(Refusal::from(error).into_item(), None),
    }
}

fn refused_rule(broken: RuleBroken) -> Refusal {
    Refusal::from(iothub::twin::ParseTwinError::Rule(broken))
}

const fn of_reported(result: ItemResult, version: Option<u64>) -> SyncReported {
    SyncReported { version, result }
}

async fn answer_method(
    devices: &Arc<Devices>,
    identity: &Identity,
    answer: SyncMethodAnswer,
    wait: Duration,
) -> ItemResult {
    let request: MethodRequestId = match answer.request_id.parse() {
        Ok(request) => request,
        Err(error) => {
            let error: store::ParseMethodRequestIdError = error;
            return ItemResult::failed(Code::NotFound, error.to_string(), None);
        }
    };
    let response: MethodResponse = answer.into_answer().into();
    let answered = devices.answer_method(identity, request, response, wait);
    match answered.await {
        Ok(()) => ItemResult::delivered(Delivery::Hub),
        Err(error) => Refusal::from(error).into_item(),
    }
}

/// Adds what waits: methods, which have the shortest time, then desired properties, then messages in their order. Of these
/// there is one at least; for the others there is what the answer may still have.
fn with_what_waits(mut answer: SyncAnswer, found: &Found<InboxView>, max_bytes: u32) -> SyncAnswer {
    let mut room = usize::try_from(max_bytes)
        .unwrap_or(usize::MAX)
        .saturating_sub(size(&answer) + HINT_BYTES);
    let view = &found.found;
    if let Some(desired) = &view.desired {
        // There is room for this if for nothing else.
        let too_large = |bytes| TooLarge {
            version: desired.section.version.0,
            bytes,
        };
        room = room.saturating_sub(size(&too_large(u64::MAX)));
        let whole = Properties::from(&*desired.section);
        let bytes = size(&whole);
        answer.desired = Some(if take(&mut room, bytes) {
            SyncDesired::Whole(whole)
        } else {
            SyncDesired::TooLarge(too_large(u64::try_from(bytes).unwrap_or(u64::MAX)))
        });
    }
    let mut messages = Vec::new();
    for entry in &view.entries {
        match entry {
            InboxEntry::Method(method) => {
                let method = methods::shown(method);
                if take(&mut room, size(&method) + 1) {
                    answer.methods.push(method);
                } else {
                    answer.more = true;
                }
            }
            InboxEntry::Message(message) => messages.push(message),
        }
    }
    for message in messages {
        let message: WaitingMessage = message_shown(message);
        let fits = take(&mut room, size(&message) + 1);
        if !fits && !answer.messages.is_empty() {
            answer.more = true;
            break;
        }
        answer.messages.push(message);
    }
    answer.next_sync_after_s = next_sync(&answer);
    answer
}

/// Takes bytes from what is left, if there are as many.
fn take(room: &mut usize, bytes: usize) -> bool {
    let left = room.checked_sub(bytes);
    *room = left.unwrap_or(*room);
    left.is_some()
}

/// Bytes as JSON.
fn size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |text| text.len())
}

/// When another sync is worth while: at once for what did not fit; when what failed may be tried again; soon, if it is not
/// known what waits; otherwise when the system lets an app run again.
fn next_sync(answer: &SyncAnswer) -> u32 {
    if answer.more {
        return 0;
    }
    let settled = answer.settled.iter().map(|settled| &settled.result);
    let reported = answer.reported.iter().map(|reported| &reported.result);
    let results = answer.telemetry.iter().chain(&answer.answers);
    let results = results.chain(settled).chain(reported);
    let again = results.filter_map(|result| result.retry_after_s).max();
    let known = (!answer.complete).then_some(limits::SYNC_SOON_S);
    again
        .into_iter()
        .chain(known)
        .min()
        .map_or(limits::SYNC_USUAL_S, |after| {
            after.min(limits::SYNC_USUAL_S)
        })
}

impl Remembered for Fared {
    type Short = (
        Runs,
        Option<(String, Option<String>, Option<u64>)>,
        Runs,
        Runs,
    );

    fn shorten(&self, key: &WriteKey) -> Option<Self::Short> {
        let receipts = Receipts::of(key);
        let reported = match &self.reported {
            None => None,
            Some(reported) => {
                let word = shorten_one(&reported.result)?.to_owned();
                Some((word, reported.result.receipt.clone(), reported.version))
            }
        };
        Some((
            shorten(&self.telemetry, &receipts)?,
            reported,
            shorten(&self.answers, &receipts)?,
            shorten(&self.settled, &receipts)?,
        ))
    }

    fn restore(
        (telemetry, reported, answers, settled): Self::Short,
        key: &WriteKey,
    ) -> Option<Self> {
        let receipts = Receipts::of(key);
        Some(Self {
            telemetry: restore(&telemetry, &receipts)?,
            reported: match reported {
                None => None,
                Some((word, receipt, version)) => {
                    Some(of_reported(restore_one(&word, receipt)?, version))
                }
            },
            answers: restore(&answers, &receipts)?,
            settled: restore(&settled, &receipts)?,
        })
    }
}

/// What the hints at the end of an answer may grow by.
const HINT_BYTES: usize = 8;
