//! Planted violations: each kind is found, by its own rule and by no other.

use std::collections::BTreeSet;

use super::*;
use crate::history::{Content, Kind, Promise, ReceiptState};

#[test]
fn an_honest_history_breaks_no_rule() {
    let verdict = judged(honest());
    assert_eq!(verdict.violations, []);
    let counts = verdict.counts;
    assert_eq!((counts.sent, counts.promised, counts.stored), (4, 3, 2));
    assert_eq!((counts.delivered, counts.duplicated), (3, 1));
    assert_eq!((counts.cloud_sent, counts.cloud_shown), (3, 3));
    assert_eq!((counts.cloud_completed, counts.cloud_duplicated), (2, 1));
    assert_eq!((counts.patches, counts.receipts, counts.kills), (2, 2, 1));
    assert_eq!((counts.calls, counts.calls_answered), (2, 1));
}

/// Connections are lost at any moment while the hub closes them.
#[test]
fn a_hub_that_cuts_excuses_what_comes_again_until_it_cuts_no_more() {
    let excuses = |from, to| {
        let troubles = [(10, Trouble::HubCuts), (20, Trouble::HubCutsNoMore)];
        Troubles(troubles.into()).excuse_copies(from, to)
    };
    for (from, to, is_excused) in [
        (1, 9, false),
        (1, 10, true),
        (1, 15, true),
        (12, 15, true),
        (12, 25, true),
        (19, 25, true),
        (20, 25, false),
        (1, 25, true),
    ] {
        assert_eq!(excuses(from, to), is_excused, "{from} to {to}");
    }
}

#[test]
fn each_planted_violation_is_found_by_its_own_rule() {
    for (number, (plant, rule)) in PLANTED.iter().enumerate() {
        let mut history = honest();
        plant(&mut history);
        history.sort_by_key(|entry| entry.at);
        let violations = judged(history).violations;
        let rules: BTreeSet<_> = violations.iter().map(|violation| violation.rule).collect();
        assert_eq!(rules, [*rule].into(), "plant {number}: {violations:?}");
    }
}

#[test]
fn every_rule_has_a_plant() {
    let planted: BTreeSet<_> = PLANTED.iter().map(|(_, rule)| *rule).collect();
    assert_eq!(planted.len(), Rule::CallShownAgain as usize + 1);
}

fn judged(history: Vec<Entry>) -> Verdict {
    judge(history.into_iter().map(Ok)).expect("it is whole")
}

type Plant = fn(&mut Vec<Entry>);

const PLANTED: &[(Plant, Rule)] = &[
    (|history| drop_arrivals(history, "a"), Rule::Lost),
    (|history| drop_arrivals(history, "b"), Rule::Lost),
    (|history| with_body(history, 31, "else"), Rule::Corrupt),
    (|history| with_body(history, 51, ""), Rule::Corrupt),
    (
        |history| {
            with_properties(history, 31, &[("name", "a"), ("unit", "F")]);
        },
        Rule::Relabelled,
    ),
    (
        |history| {
            with_properties(history, 51, &[("name", "a")]);
        },
        Rule::Relabelled,
    ),
    (
        |history| history.push(arrived(90, 9, "z", "z")),
        Rule::Invented,
    ),
    (
        |history| history.push(arrived(90, 9, "", "z")),
        Rule::Invented,
    ),
    (
        // Of another device.
        |history| {
            let mut other = arrived(90, 9, "d", "d");
            if let Event::Arrived { device, .. } = &mut other.event {
                *device = "dev2".to_owned();
            }
            history.push(other);
        },
        Rule::Invented,
    ),
    (
        |history| history.push(arrived(90, 9, "c", "c")),
        Rule::Doubled,
    ),
    (
        |history| history.push(arrived(70, 9, "c", "c")),
        Rule::Doubled,
    ),
    (
        |history| with_id(history, 51, Some("another")),
        Rule::IdsDiffer,
    ),
    (
        |history| {
            with_id(history, 31, None);
            with_id(history, 51, None);
        },
        Rule::IdsDiffer,
    ),
    (
        // c was sent when a and b had been promised.
        |history| with_sequence(history, 66, 0),
        Rule::Disordered,
    ),
    (
        // a and b stand in one request.
        |history| with_sequence(history, 50, 0),
        Rule::Disordered,
    ),
    (
        |history| history.push(refused(88, "a", 422)),
        Rule::Withdrawn,
    ),
    (
        |history| history.push(refused(88, "a", 404)),
        Rule::Withdrawn,
    ),
    (
        |history| history.push(trouble(5, Trouble::FlushesTake { millis: 1 })),
        Rule::PromisedTooSoon,
    ),
    (
        |history| {
            history.push(trouble(70, Trouble::FlushFailed));
            history.push(sending(71, "s", 9, 0));
            history.push(promised(72, "s", Promise::Stored, None));
            history.push(arrived(90, 9, "s", "s"));
        },
        Rule::PromisedByFailedStore,
    ),
    (
        |history| history.push(receipt(86, ReceiptState::Stored)),
        Rule::ReceiptBackwards,
    ),
    (
        |history| history.push(receipt(86, ReceiptState::Sent)),
        Rule::ReceiptBackwards,
    ),
    (
        |history| history.push(receipt(86, ReceiptState::Missing)),
        Rule::ReceiptMissing,
    ),
    (
        |history| history.push(receipt(86, ReceiptState::Refused)),
        Rule::ReceiptRefused,
    ),
    (
        |history| {
            let never_sent = promised(75, "never sent", Promise::Stored, Some("r"));
            history.push(never_sent);
        },
        Rule::ReceiptUntrue,
    ),
    (|history| with_twin(history, 1), Rule::PatchLost),
    (
        |history| history.retain(|entry| entry.at != 84),
        Rule::PatchLost,
    ),
    (|history| with_twin(history, 7), Rule::PatchInvented),
    (
        |history| {
            history.push(twin(85, 1));
            history.push(twin(86, 2));
        },
        Rule::TwinBackwards,
    ),
    (
        |history| history.retain(|entry| !is_shown(entry, "z3")),
        Rule::MessageLost,
    ),
    (
        |history| with_body(history, 76, "else"),
        Rule::MessageCorrupt,
    ),
    (
        |history| with_properties(history, 76, &[]),
        Rule::MessageRelabelled,
    ),
    (
        |history| history.push(shown(90, "nobody", "t9")),
        Rule::MessageInvented,
    ),
    (
        |history| history.push(shown(90, "z3", "t9")),
        Rule::MessageDoubled,
    ),
    (
        |history| history.push(shown(90, "z1", "t1")),
        Rule::ShownAgain,
    ),
    (
        // The token that completed it is not one that the hub gave anew.
        |history| history.push(shown(90, "z2", "t2")),
        Rule::ShownAgain,
    ),
    (
        // z1 was sent behind z2, and shown before it.
        |history| {
            let sent = history.iter_mut().find(|entry| entry.at == 30);
            sent.expect("z1 is sent").at = 33;
        },
        Rule::MessageDisordered,
    ),
    (
        // The gateway knows what it keeps by its message id.
        |history| {
            with_kind(history, Kind::GatewayKeeps);
            history.retain(|entry| entry.at != 39);
        },
        Rule::MessageDoubled,
    ),
    (
        |history| {
            with_kind(history, Kind::GatewayKeeps);
            history.retain(|entry| entry.at != 45);
            let mut again = shown(45, "z2", "a lock of its own");
            if let Event::Shown { is_locked, .. } = &mut again.event {
                *is_locked = true;
            }
            history.push(again);
        },
        Rule::ShownAgain,
    ),
    (
        |history| with_kind(history, Kind::PassedThrough),
        Rule::StoredWithoutCredential,
    ),
    (
        // A patch.
        |history| {
            with_kind(history, Kind::PassedThrough);
            history.retain(|entry| entry.at != 20);
            for entry in &mut *history {
                if let Event::Patched { promise, .. } = &mut entry.event {
                    *promise = Promise::Stored;
                }
            }
        },
        Rule::StoredWithoutCredential,
    ),
    (
        |history| history.retain(|entry| entry.at != 188),
        Rule::PoisonUntold,
    ),
    (
        |history| history.push(call_shown(90, "nobody's")),
        Rule::CallInvented,
    ),
    (
        // Of another device.
        |history| {
            let mut other = call_shown(190, "k2");
            if let Event::CallShown { device, .. } = &mut other.event {
                *device = "dev2".to_owned();
            }
            history.push(other);
        },
        Rule::CallInvented,
    ),
    (
        |history| {
            let mut other = call_shown(190, "k2");
            if let Event::CallShown { content, .. } = &mut other.event {
                content.hash = "else".to_owned();
            }
            history.push(other);
        },
        Rule::CallCorrupt,
    ),
    (
        |history| history.push(answered(190, "k1", "other")),
        Rule::CallAnsweredTwice,
    ),
    (
        // The device has given it to another call.
        |history| history.push(call_ended(191, "k2", Some("yes"))),
        Rule::CallMixedUp,
    ),
    (
        |history| history.push(call_ended(191, "k1", None)),
        Rule::AnswerLost,
    ),
    (
        |history| history.push(call_shown(192, "k1")),
        Rule::CallShownAgain,
    ),
];

/// A day with a crash at 40: a is sent twice, z2 comes again.
fn honest() -> Vec<Entry> {
    let mut history = vec![
        sending(10, "a", 1, 0),
        sending(10, "b", 1, 1),
        promised(20, "a", Promise::Stored, Some("r")),
        promised(20, "b", Promise::Stored, Some("r2")),
        entry(
            21,
            Event::Patching {
                device: DEVICE.to_owned(),
                slot: "slot".to_owned(),
                number: 1,
            },
        ),
        patched(22, 1),
        arrived(31, 1, "a", "a"),
        trouble(40, Trouble::Killed),
        trouble(41, Trouble::Started),
        arrived(50, 3, "b", "b"),
        arrived(51, 2, "a", "a"),
        // Nobody promised it, and it did not arrive.
        sending(60, "d", 2, 0),
        entry(
            61,
            Event::Unanswered {
                name: "d".to_owned(),
            },
        ),
        sending(64, "c", 3, 0),
        arrived(66, 4, "c", "c"),
        promised(67, "c", Promise::Hub, None),
        entry(
            68,
            Event::Patching {
                device: DEVICE.to_owned(),
                slot: "slot".to_owned(),
                number: 2,
            },
        ),
        patched(69, 2),
        cloud(72, "z3"),
        shown(76, "z3", "t3"),
        receipt(80, ReceiptState::Sent),
        receipt(82, ReceiptState::Acknowledged),
        twin(84, 2),
    ];
    history.extend([
        cloud(30, "z1"),
        cloud(32, "z2"),
        shown(36, "z1", "t1"),
        shown(37, "z2", "t2"),
        completed(38, "z1", "t1"),
        completed(39, "z2", "t2"),
        // The hub had not heard of it when the gateway was killed.
        shown(45, "z2", "t2'"),
    ]);
    history.extend([
        enrolled(Kind::HubKeeps),
        // The hub never takes it.
        poisonous(186, "p"),
        sending(186, "p", 7, 0),
        promised(187, "p", Promise::Stored, Some("rp")),
        read_as(188, "rp", ReceiptState::Refused),
        // One is answered; the connection of the other one is lost.
        calling(180, "k1"),
        call_shown(181, "k1"),
        answering(182, "k1", "yes"),
        answered(183, "k1", "yes"),
        call_ended(183, "k1", Some("yes")),
        calling(184, "k2"),
        call_shown(185, "k2"),
        answering(185, "k2", "no"),
        call_ended(189, "k2", None),
    ]);
    for name in ["z1", "z2", "z3"] {
        let name = name.to_owned();
        history.push(entry(73, Event::CloudSent { name }));
    }
    history.sort_by_key(|entry| entry.at);
    history
}

const DEVICE: &str = "dev1";

fn entry(at: Moment, event: Event) -> Entry {
    Entry { at, event }
}

fn content(name: &str) -> Content {
    let properties = [("name", name), ("unit", "C")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Content::new(name.as_bytes(), properties.into())
}

fn sending(at: Moment, name: &str, request: u64, place: u32) -> Entry {
    entry(
        at,
        Event::Sending {
            device: DEVICE.to_owned(),
            name: name.to_owned(),
            request,
            place,
            key: None,
            content: content(name),
        },
    )
}

fn promised(at: Moment, name: &str, promise: Promise, receipt: Option<&str>) -> Entry {
    entry(
        at,
        Event::Promised {
            name: name.to_owned(),
            promise,
            receipt: receipt.map(str::to_owned),
        },
    )
}

fn refused(at: Moment, name: &str, status: u16) -> Entry {
    let name = name.to_owned();
    entry(at, Event::Refused { name, status })
}

fn arrived(at: Moment, sequence: u64, name: &str, text: &str) -> Entry {
    let mut properties = content(name).properties;
    let stamp = "iothub-creation-time-utc".to_owned();
    properties.insert(stamp, "2026-01-01".to_owned());
    entry(
        at,
        Event::Arrived {
            sequence,
            device: DEVICE.to_owned(),
            name: name.to_owned(),
            message_id: Some(format!("id of {name}")),
            content: Content::new(text.as_bytes(), properties),
        },
    )
}

fn patched(at: Moment, number: u64) -> Entry {
    entry(
        at,
        Event::Patched {
            device: DEVICE.to_owned(),
            slot: "slot".to_owned(),
            number,
            promise: Promise::Hub,
            receipt: None,
        },
    )
}

fn twin(at: Moment, number: u64) -> Entry {
    let slots = [("slot".to_owned(), number)].into();
    let device = DEVICE.to_owned();
    entry(at, Event::TwinRead { device, slots })
}

fn receipt(at: Moment, state: ReceiptState) -> Entry {
    read_as(at, "r", state)
}

fn read_as(at: Moment, receipt: &str, state: ReceiptState) -> Entry {
    let (asked, receipt) = (at - 1, receipt.to_owned());
    entry(
        at,
        Event::ReceiptRead {
            asked,
            receipt,
            state,
        },
    )
}

fn cloud(at: Moment, name: &str) -> Entry {
    entry(
        at,
        Event::CloudSending {
            device: DEVICE.to_owned(),
            name: name.to_owned(),
            content: content(name),
        },
    )
}

fn shown(at: Moment, name: &str, token: &str) -> Entry {
    entry(
        at,
        Event::Shown {
            device: DEVICE.to_owned(),
            asked: at - 1,
            name: name.to_owned(),
            token: token.to_owned(),
            is_locked: false,
            content: content(name),
        },
    )
}

fn completed(at: Moment, name: &str, token: &str) -> Entry {
    entry(
        at,
        Event::Completed {
            name: name.to_owned(),
            token: token.to_owned(),
            promise: Promise::Gateway,
        },
    )
}

fn enrolled(kind: Kind) -> Entry {
    let device = DEVICE.to_owned();
    entry(1, Event::Enrolled { device, kind })
}

fn poisonous(at: Moment, name: &str) -> Entry {
    let name = name.to_owned();
    entry(at, Event::Poisonous { name })
}

fn calling(at: Moment, call: &str) -> Entry {
    let call = call.to_owned();
    entry(
        at,
        Event::Calling {
            device: DEVICE.to_owned(),
            content: content(&call),
            call,
        },
    )
}

fn call_shown(at: Moment, call: &str) -> Entry {
    let call = call.to_owned();
    entry(
        at,
        Event::CallShown {
            device: DEVICE.to_owned(),
            asked: at - 1,
            content: content(&call),
            call,
        },
    )
}

fn answering(at: Moment, call: &str, answer: &str) -> Entry {
    let (call, answer) = (call.to_owned(), answer.to_owned());
    entry(at, Event::Answering { call, answer })
}

fn answered(at: Moment, call: &str, answer: &str) -> Entry {
    let (call, answer) = (call.to_owned(), answer.to_owned());
    entry(at, Event::Answered { call, answer })
}

fn call_ended(at: Moment, call: &str, answer: Option<&str>) -> Entry {
    let (call, answer) = (call.to_owned(), answer.map(str::to_owned));
    entry(at, Event::CallEnded { call, answer })
}

fn trouble(at: Moment, trouble: Trouble) -> Entry {
    entry(at, Event::Trouble { trouble })
}

fn with_kind(history: &mut [Entry], other: Kind) {
    for entry in history {
        if let Event::Enrolled { kind, .. } = &mut entry.event {
            *kind = other;
        }
    }
}

fn is_shown(entry: &Entry, of: &str) -> bool {
    matches!(&entry.event, Event::Shown { name, .. } if name == of)
}

fn drop_arrivals(history: &mut Vec<Entry>, of: &str) {
    // Their receipts are another rule's.
    history.retain(|entry| {
        !matches!(&entry.event, Event::Arrived { name, .. } if name == of)
            && !matches!(&entry.event, Event::ReceiptRead { receipt, .. } if receipt == "r")
    });
}

fn content_at(history: &mut [Entry], at: Moment) -> &mut Content {
    let mut found = None;
    for entry in history.iter_mut().filter(|entry| entry.at == at) {
        if let Event::Arrived { content, .. } | Event::Shown { content, .. } = &mut entry.event {
            found = Some(content);
        }
    }
    found.expect("there is one")
}

fn with_body(history: &mut [Entry], at: Moment, body: &str) {
    let hash = Content::new(body.as_bytes(), [].into()).hash;
    content_at(history, at).hash = hash;
}

fn with_properties(history: &mut [Entry], at: Moment, properties: &[(&str, &str)]) {
    let properties = properties.iter();
    let owned = properties.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    content_at(history, at).properties = owned.collect();
}

fn with_id(history: &mut [Entry], at: Moment, id: Option<&str>) {
    for entry in history.iter_mut().filter(|entry| entry.at == at) {
        if let Event::Arrived { message_id, .. } = &mut entry.event {
            *message_id = id.map(str::to_owned);
        }
    }
}

fn with_sequence(history: &mut [Entry], at: Moment, other: u64) {
    for entry in history.iter_mut().filter(|entry| entry.at == at) {
        if let Event::Arrived { sequence, .. } = &mut entry.event {
            *sequence = other;
        }
    }
}

fn with_twin(history: &mut [Entry], number: u64) {
    for entry in history.iter_mut() {
        if let Event::TwinRead { slots, .. } = &mut entry.event {
            slots.insert("slot".to_owned(), number);
        }
    }
}
