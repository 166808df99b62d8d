//! What comes down with a sync: as much of what waits as fits.

use api::{
    inbox::WaitingMessage,
    limits,
    sync::{SyncAnswer, SyncDesired, TooLarge},
    twin::Properties,
};
use serde::Serialize;
use store::{InboxEntry, InboxView};

use super::super::{inbox::message_shown, methods};

/// Adds what waits to the results of what went up: methods, which have the shortest time, then desired properties, then
/// messages in their order. Of these there is one at least; for the others there is what the answer may still have. Results
/// have to be there, so it is their texts, which are for people, that go if the answer is too large with them.
pub(super) fn with_what_waits(
    mut answer: SyncAnswer,
    found: InboxView,
    max_bytes: u32,
) -> SyncAnswer {
    let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    if size(&answer) + HINT_BYTES > most {
        forget_details(&mut answer);
    }
    let mut room = Room(most.saturating_sub(size(&answer) + HINT_BYTES));
    if let Some(desired) = &found.desired {
        // There is room for this if for nothing else.
        let too_large = |bytes| TooLarge {
            version: desired.section.version.0,
            bytes,
        };
        let least = size(&too_large(u64::MAX));
        room.0 = room.0.saturating_sub(DESIRED_BYTES + least);
        let whole = Properties::from(&*desired.section);
        let bytes = size(&whole);
        let fits = room.take(bytes.saturating_sub(least));
        answer.desired = Some(if fits {
            SyncDesired::Whole(whole)
        } else {
            SyncDesired::TooLarge(too_large(u64::try_from(bytes).unwrap_or(u64::MAX)))
        });
    }
    let mut messages = Vec::new();
    for entry in &found.entries {
        match entry {
            InboxEntry::Method(method) => {
                let method = methods::shown(method);
                if room.take_for(&answer.methods, &method) {
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
        let fits = room.take_for(&answer.messages, &message);
        if !fits && !answer.messages.is_empty() {
            answer.more = true;
            break;
        }
        answer.messages.push(message);
    }
    answer.next_sync_after_s = next_sync(&answer);
    answer
}

fn forget_details(answer: &mut SyncAnswer) {
    let settled = answer.settled.iter_mut().map(|settled| &mut settled.result);
    let reported = answer
        .reported
        .iter_mut()
        .map(|reported| &mut reported.result);
    let lists = answer.telemetry.iter_mut().chain(&mut answer.answers);
    for result in lists.chain(settled).chain(reported) {
        result.detail = None;
    }
}

/// Bytes that an answer may still have.
struct Room(usize);

impl Room {
    /// Takes what one more item of a list needs, if there is as much.
    fn take_for<T: Serialize>(&mut self, list: &[T], item: &T) -> bool {
        let comma = usize::from(!list.is_empty());
        self.take(size(item) + comma)
    }

    /// Takes so many, if there are as many.
    const fn take(&mut self, bytes: usize) -> bool {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
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

/// What the hints at the end of an answer may grow by: `next_sync_after_s` from one digit to three, `more` to `true` from the
/// longer `false`.
const HINT_BYTES: usize = 2;
/// Around desired properties: `"desired":` and a comma.
const DESIRED_BYTES: usize = 11;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::{Code, ItemResult, inbox::SettleResult, sync::SyncReported};
    use iothub::{
        CloudMessage, Timestamp,
        twin::{Section, TwinVersion},
    };
    use serde_json::json;
    use store::{ConnectionEpoch, Desired, LockToken, MessageEntry};

    use super::*;

    const AT: Timestamp = Timestamp::from_unix_seconds(1_790_942_400);

    fn empty() -> SyncAnswer {
        SyncAnswer {
            request_id: None,
            telemetry: Vec::new(),
            reported: None,
            answers: Vec::new(),
            settled: Vec::new(),
            messages: Vec::new(),
            methods: Vec::new(),
            desired: None,
            complete: true,
            more: false,
            server_time: AT,
            next_sync_after_s: 0,
        }
    }

    fn message(payload: usize) -> InboxEntry {
        InboxEntry::Message(MessageEntry {
            token: LockToken::from_text("4b0f2c1e-0000-4000-8000-000000000000"),
            sequence: 1,
            message: Arc::new(CloudMessage {
                payload: vec![b'm'; payload].into(),
                ..CloudMessage::default()
            }),
            delivery_count: 0,
            arrived_at: AT,
            expires_at: None,
        })
    }

    fn desired(length: usize) -> Desired {
        let properties = json!({"a": "x".repeat(length)});
        Desired {
            section: Arc::new(Section {
                properties: properties.as_object().unwrap().clone(),
                version: TwinVersion(8),
            }),
            connection: ConnectionEpoch(1),
        }
    }

    fn found(messages: &[usize], desired_length: Option<usize>) -> InboxView {
        InboxView {
            entries: messages.iter().map(|payload| message(*payload)).collect(),
            desired: desired_length.map(desired),
        }
    }

    /// With one byte less than it has, an answer loses something; with one more it gains nothing.
    fn assert_exact(answer: &SyncAnswer, found: &InboxView, most: usize) -> SyncAnswer {
        let made = |bytes: usize| {
            let bytes = u32::try_from(bytes).unwrap();
            with_what_waits(answer.clone(), found.clone(), bytes)
        };
        let whole = made(most);
        // What the hints may grow by is kept free.
        let grown = whole.next_sync_after_s.to_string().len() - 1;
        let exact = size(&whole) + usize::from(whole.more) + HINT_BYTES - grown;
        for (bytes, is_whole) in [(exact - 1, false), (exact, true), (exact + 1, true)] {
            let answer = made(bytes);
            assert!(size(&answer) <= bytes);
            assert_eq!(
                answer == whole,
                is_whole,
                "{bytes} bytes, {exact} are enough"
            );
        }
        whole
    }

    #[test]
    fn as_many_messages_come_as_fit() {
        let found = found(&[3000; 12], None);
        for most in [16_384, 8192] {
            let whole = with_what_waits(empty(), found.clone(), most);
            assert!(whole.more && size(&whole) <= most as usize);
            let fitting = InboxView {
                entries: found.entries[..whole.messages.len()].to_vec(),
                desired: None,
            };
            let whole = assert_exact(&empty(), &fitting, 16_384);
            assert_eq!(whole.messages.len(), fitting.entries.len());
        }
        let one = with_what_waits(empty(), found, 1024);
        assert_eq!((one.messages.len(), one.more), (1, true));
    }

    #[test]
    fn desired_properties_come_whole_or_as_their_size() {
        for length in [0, 10, 700, 5000] {
            let found = found(&[], Some(length));
            let whole = with_what_waits(empty(), found.clone(), 16_384);
            assert!(matches!(whole.desired, Some(SyncDesired::Whole(_))));
            let section = Properties::from(&*found.desired.as_ref().unwrap().section);
            let bytes = size(&section);
            let least = with_what_waits(empty(), found, 1024);
            if size(&whole) > 1024 {
                let Some(SyncDesired::TooLarge(too_large)) = least.desired else {
                    panic!("they are too large");
                };
                assert_eq!((too_large.version, too_large.bytes), (8, bytes as u64));
            }
            assert!(size(&least) <= 1024);
        }
        assert_exact(&empty(), &found(&[], Some(3000)), 16_384);
    }

    #[test]
    fn texts_for_people_go_before_anything_is_too_large() {
        let failed = ItemResult::failed(Code::LockLost, "no waiting message has this token", None);
        let answer = SyncAnswer {
            telemetry: vec![failed; 40],
            ..empty()
        };
        let whole = assert_exact(&answer, &found(&[], None), 16_384);
        assert!(whole.telemetry.iter().all(|result| result.detail.is_some()));
        let least = with_what_waits(answer, found(&[10], None), 1024);
        assert!(least.telemetry.iter().all(|result| result.detail.is_none()));
        assert_eq!((least.telemetry.len(), least.messages.len()), (40, 1));
    }

    #[test]
    fn the_results_of_the_largest_sync_have_a_bound() {
        let longest = Code::ALL.iter().max_by_key(|code| code.as_str().len());
        let longest = ItemResult {
            retryable: Some(false),
            retry_after_s: Some(u32::MAX),
            ..ItemResult::failed(*longest.unwrap(), "x".repeat(1000), None)
        };
        let mut answer = SyncAnswer {
            request_id: Some("\u{1}".repeat(limits::SYNC_NAME_LENGTH)),
            telemetry: vec![longest.clone(); limits::BATCH_MESSAGES],
            reported: Some(SyncReported {
                version: Some(u64::MAX),
                result: longest.clone(),
            }),
            answers: vec![longest.clone(); limits::SYNC_ANSWERS],
            ..empty()
        };
        answer
            .settled
            .resize_with(limits::SETTLEMENTS, || SettleResult {
                token: "4b0f2c1e-0000-4000-8000-000000000000".to_owned(),
                result: longest.clone(),
            });
        let bytes = size(&with_what_waits(answer, found(&[], None), 1024));
        assert!(bytes <= limits::SYNC_RESULTS_BYTES, "{bytes}");
        assert!(bytes > limits::SYNC_RESULTS_BYTES * 9 / 10, "{bytes}");
    }
}
