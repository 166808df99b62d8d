//! What goes up with a sync, and how it fared.

use std::{iter, sync::Arc, time::Duration};

use api::{
    Code, Delivery, ItemResult,
    sync::{SyncMethodAnswer, SyncReported, SyncRequest},
};
use futures_util::future::join_all;
use iothub::{
    Identity, MethodResponse, Telemetry,
    twin::{ParseTwinError, ReportedPatch},
};
use serde_json::{Map, Value};
use store::{LockToken, MethodRequestId, Scope, Scopes, Settlement};

use super::super::{
    batch::send_readable,
    extract::BadRequest,
    inbox::{settle_all, settlements},
    problem::Refusal,
    remembered::{Notes, Pending, Reader, Remembered},
};
use crate::devices::{Devices, PartNames, Reached, Terms, text_of};

/// What goes up.
pub(super) struct Up {
    telemetry: Vec<Result<Telemetry, BadRequest>>,
    reported: Option<Map<String, Value>>,
    answers: Vec<SyncMethodAnswer>,
    settlements: Vec<(LockToken, Settlement)>,
    /// What the credential opens. The rest is refused.
    scopes: Scopes,
}

/// How it fared.
pub(super) struct Fared {
    pub(super) telemetry: Vec<ItemResult>,
    pub(super) reported: Option<SyncReported>,
    pub(super) answers: Vec<ItemResult>,
    pub(super) settled: Vec<ItemResult>,
}

/// What is known of how it fared.
#[derive(Default)]
pub(super) struct Known {
    telemetry: Vec<Option<ItemResult>>,
    /// At most one.
    reported: Vec<Option<ItemResult>>,
    version: Option<u64>,
    answers: Vec<Option<ItemResult>>,
    settled: Vec<Option<ItemResult>>,
}

impl Up {
    /// Takes it out of a request. The tokens of the settlements stay there too, for the answer.
    pub(super) fn of(request: &mut SyncRequest, scopes: Scopes) -> Self {
        let telemetry = std::mem::take(&mut request.telemetry).into_iter();
        Self {
            telemetry: telemetry
                .map(|item| item.try_into().map_err(BadRequest::NotBase64))
                .collect(),
            reported: request.reported.take(),
            answers: std::mem::take(&mut request.answers),
            settlements: settlements(&request.settle),
            scopes,
        }
    }

    /// Does at once whatever of it is not known to be over.
    pub(super) async fn carry_out(
        self,
        devices: &Arc<Devices>,
        identity: &Identity,
        terms: &Terms,
        names: PartNames,
        known: Known,
    ) -> Fared {
        let scopes = self.scopes;
        let telemetry = async {
            let messages = Pending::of(self.telemetry, known.telemetry);
            if !scopes.contain(Scope::Telemetry) {
                return refuse(messages);
            }
            send_readable(devices, identity, messages, terms, names).await
        };
        let reported = async {
            let patch = Pending::of(self.reported.into_iter().collect(), known.reported);
            if !scopes.contain(Scope::Twin) {
                return (refuse(patch), known.version);
            }
            patch_reported(devices, identity, patch, known.version, terms, &names).await
        };
        let answers = async {
            let mut answers = Pending::of(self.answers, known.answers);
            if !scopes.contain(Scope::Methods) {
                return refuse(answers);
            }
            let open = std::mem::take(&mut answers.open).into_iter();
            let answer = |(_, answer)| answer_method(devices, identity, answer, terms.wait);
            answers.into_results(join_all(open.map(answer)).await)
        };
        let settled = async {
            let settlements = Pending::of(self.settlements, known.settled);
            if !scopes.contain(Scope::Messages) {
                return refuse(settlements);
            }
            settle_all(devices, identity, settlements, terms.wait).await
        };
        let (telemetry, (reported, version), answers, settled) =
            tokio::join!(telemetry, reported, answers, settled);
        Fared {
            telemetry,
            reported: of_reported(reported, version),
            answers,
            settled,
        }
    }
}

impl Fared {
    /// As somebody may see it whose credential opens no more than this: a copy may come with another one than the first.
    pub(super) fn shown_to(mut self, scopes: Scopes) -> Self {
        let hide = |results: &mut Vec<ItemResult>, scope| {
            if !scopes.contain(scope) {
                results.fill(forbidden());
            }
        };
        hide(&mut self.telemetry, Scope::Telemetry);
        hide(&mut self.answers, Scope::Methods);
        hide(&mut self.settled, Scope::Messages);
        if !scopes.contain(Scope::Twin) {
            let hidden = |_| SyncReported {
                version: None,
                result: forbidden(),
            };
            self.reported = self.reported.map(hidden);
        }
        self
    }
}

/// Refuses what is open, which the credential does not open.
fn refuse<T>(pending: Pending<T>) -> Vec<ItemResult> {
    pending.into_results(iter::repeat_with(forbidden))
}

fn forbidden() -> ItemResult {
    let detail = "the token does not have the scope that this needs";
    ItemResult::failed(Code::Forbidden, detail, None)
}

/// Sends the patch if it is open. With the version that it led to, if that is known.
async fn patch_reported(
    devices: &Devices,
    identity: &Identity,
    mut patch: Pending<Map<String, Value>>,
    mut version: Option<u64>,
    terms: &Terms,
    names: &PartNames,
) -> (Vec<ItemResult>, Option<u64>) {
    let mut results = Vec::new();
    for (_, patch) in std::mem::take(&mut patch.open) {
        let patched = match ReportedPatch::new(patch) {
            Ok(patch) => {
                let names = names.of_patch();
                let patched = devices.patch_reported_as_part(identity, patch, terms, &names);
                patched.await.map_err(Refusal::from)
            }
            Err(broken) => Err(ParseTwinError::Rule(broken).into()),
        };
        results.push(match patched {
            Ok(Reached::Hub(led_to)) => {
                version = led_to.map(|version| version.0);
                ItemResult::delivered(Delivery::Hub)
            }
            Ok(Reached::Stored(receipt)) => ItemResult::stored(text_of(receipt)),
            Err(refusal) => refusal.into_item(),
        });
    }
    (patch.into_results(results), version)
}

fn of_reported(results: Vec<ItemResult>, version: Option<u64>) -> Option<SyncReported> {
    let result = results.into_iter().next()?;
    Some(SyncReported { version, result })
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

impl Remembered for Fared {
    type Known = Known;

    fn write(&self, notes: &mut Notes, names: &PartNames) {
        notes.list(&self.telemetry, names);
        let reported = self.reported.iter().map(|reported| &reported.result);
        let reported: Vec<_> = reported.cloned().collect();
        notes.list(&reported, &names.of_patch());
        notes.number(self.reported.as_ref().and_then(|reported| reported.version));
        notes.list(&self.answers, names);
        notes.list(&self.settled, names);
    }

    fn read(notes: &mut Reader<'_>, names: &PartNames) -> Option<Known> {
        Some(Known {
            telemetry: notes.list(names)?,
            reported: notes.list(&names.of_patch())?,
            version: notes.number()?,
            answers: notes.list(names)?,
            settled: notes.list(names)?,
        })
    }

    fn whole(known: Known) -> Option<Self> {
        Some(Self {
            telemetry: Vec::whole(known.telemetry)?,
            reported: of_reported(Vec::whole(known.reported)?, known.version),
            answers: Vec::whole(known.answers)?,
            settled: Vec::whole(known.settled)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use api::limits;
    use store::Fingerprint;

    use super::{
        super::super::remembered::{Memory, recall},
        *,
    };
    use crate::devices::WriteKey;

    fn names() -> PartNames {
        WriteKey::new(&[b"sync"], "key", Fingerprint::of(&[])).part_names()
    }

    /// As many items of each kind as there may be, each faring otherwise than its neighbours.
    fn worst() -> Fared {
        let items = |items: usize| {
            let result = |place: usize| match place % 5 {
                0 => ItemResult::delivered(Delivery::Hub),
                1 => ItemResult::failed(Code::LockLost, "gone", None),
                2 => ItemResult::stored(text_of(names().first(place))),
                3 => ItemResult::failed(Code::HubTimeout, "late", None),
                _ => ItemResult::delivered(Delivery::Gateway),
            };
            (0..items).map(result).collect()
        };
        Fared {
            telemetry: items(limits::BATCH_MESSAGES),
            reported: Some(SyncReported {
                version: Some(u64::MAX),
                result: ItemResult::delivered(Delivery::Hub),
            }),
            answers: items(limits::SYNC_ANSWERS),
            settled: items(limits::SETTLEMENTS),
        }
    }

    #[test]
    fn of_the_largest_sync_it_is_remembered_what_is_done() {
        let Memory::Part(notes) = Memory::of(&worst(), &names()) else {
            panic!("a part is done");
        };
        let known = recall::<Fared>(&notes, &names()).unwrap();
        for known in [&known.telemetry, &known.answers, &known.settled] {
            let is_known = known.iter().enumerate();
            assert!(
                is_known
                    .into_iter()
                    .all(|(place, known)| { known.is_some() == matches!(place % 5, 0 | 4) })
            );
        }
        assert_eq!(known.version, Some(u64::MAX));
    }

    #[test]
    fn who_may_not_see_a_result_does_not() {
        let scopes = [Scope::Telemetry, Scope::Methods].into_iter().collect();
        let shown = worst().shown_to(scopes);
        assert_eq!(shown.telemetry, worst().telemetry);
        assert_eq!(shown.answers, worst().answers);
        assert!(shown.settled.iter().all(|result| *result == forbidden()));
        let reported = shown.reported.unwrap();
        assert_eq!((reported.version, reported.result), (None, forbidden()));
    }
}
