//! Telemetry: windows, acknowledgements, and what a lost connection does to it.

use tombolo_session::{Event, LossReason, NotTaken, Violation, WorkId};

use crate::{
    packets::{self, Sent},
    rig::{NOTHING, Rig, credentials, telemetry},
};

fn delivered(events: &[Event]) -> Vec<WorkId> {
    let id = |event: &Event| match event {
        Event::Delivered(id) => *id,
        other => panic!("{other:?}"),
    };
    events.iter().map(id).collect()
}

/// Payload, packet id and DUP of what was published since the last call, subscriptions aside.
fn published(rig: &mut Rig) -> Vec<(String, u16, bool)> {
    let others = rig.acknowledge_all();
    let publish = |sent| match sent {
        Sent::Publish(publish) => (
            String::from_utf8(publish.payload).unwrap(),
            publish.id.unwrap(),
            publish.dup,
        ),
        other => panic!("{other:?}"),
    };
    others.into_iter().map(publish).collect()
}

#[test]
fn a_message_is_delivered_when_the_hub_acknowledges_it() {
    let mut rig = Rig::online(NOTHING);
    let [a, b] = [rig.publish("a"), rig.publish("b")];
    let sent = rig.published();
    assert_eq!(sent[0].topic, "devices/dev1/messages/events/");
    assert!(rig.events().is_empty());
    rig.hub(&packets::puback(sent[1].id.unwrap()));
    rig.hub(&packets::puback(sent[0].id.unwrap()));
    assert_eq!(delivered(&rig.events()), [b, a]);
}

#[test]
fn the_window_takes_what_fits_and_says_so() {
    let mut rig = Rig::online(NOTHING);
    for left in (0..16).rev() {
        rig.publish("x");
        assert_eq!(rig.session.room().telemetry, left);
    }
    let id = WorkId(99);
    let refused = rig.session.publish(id, &telemetry("x"), rig.now);
    assert_eq!(refused, Err(NotTaken::NoRoom));
    let first = rig.published()[0].id.unwrap();
    rig.hub(&packets::puback(first));
    assert_eq!(rig.session.room().telemetry, 1);
}

#[test]
fn what_the_hub_would_not_take_is_not_taken() {
    let mut rig = Rig::online(NOTHING);
    let mut message = telemetry("");
    message.payload = vec![b' '; 256 * 1024].into();
    assert_eq!(rig.session.publish(WorkId(1), &message, rig.now), Ok(()));
    message.payload = vec![b' '; 256 * 1024 + 1].into();
    let taken = rig.session.publish(WorkId(2), &message, rig.now);
    assert!(matches!(
        taken,
        Err(NotTaken::TooLarge { size: 262_145, .. })
    ));
    let mut message = telemetry("");
    message.properties.push(("a".into(), "%".repeat(21_836)));
    let taken = rig.session.publish(WorkId(3), &message, rig.now);
    assert!(
        matches!(taken, Err(NotTaken::TopicTooLong { .. })),
        "{taken:?}"
    );
}

#[test]
fn a_hub_that_remembers_the_session_gets_the_same_packets_again_marked_as_such() {
    let mut rig = Rig::online(NOTHING);
    for payload in ["a", "b", "c"] {
        rig.publish(payload);
    }
    let first = published(&mut rig);
    rig.hub(&packets::puback(first[1].1));
    rig.events();
    rig.reconnect(true);
    let again = published(&mut rig);
    let expected = [
        ("a".into(), first[0].1, true),
        ("c".into(), first[2].1, true),
    ];
    assert_eq!(again, expected);
    let d = rig.publish("d");
    let [(_, id, false)] = published(&mut rig)[..] else {
        panic!("a message of its own");
    };
    assert!(again.iter().all(|(_, used, _)| *used != id));
    rig.events();
    rig.hub(&packets::puback(id));
    assert_eq!(delivered(&rig.events()), [d]);
}

#[test]
fn a_hub_that_has_forgotten_the_session_gets_new_packets_in_the_old_order() {
    let mut rig = Rig::online(NOTHING);
    for payload in ["a", "b"] {
        rig.publish(payload);
    }
    published(&mut rig);
    rig.reconnect(false);
    let again = published(&mut rig);
    let payloads: Vec<_> = again
        .iter()
        .map(|(payload, _, dup)| (&**payload, *dup))
        .collect();
    assert_eq!(payloads, [("a", false), ("b", false)]);
}

#[test]
fn what_comes_while_the_connection_is_down_follows_what_was_in_flight() {
    let mut rig = Rig::online(NOTHING);
    rig.publish("a");
    published(&mut rig);
    rig.session
        .handle_disconnected(LossReason::ClosedByHub, rig.now);
    rig.publish("b");
    assert_eq!(rig.sent(), []);
    rig.wait(crate::rig::seconds(1));
    rig.session.handle_connected(credentials(), rig.now);
    rig.sent();
    rig.hub(&packets::connack(0, true));
    let again = published(&mut rig);
    assert!(matches!(&again[..], [(a, _, true), (b, _, false)] if a == "a" && b == "b"));
}

#[test]
fn bytes_that_a_lost_socket_did_not_take_are_not_written_to_the_next() {
    let mut rig = Rig::online(NOTHING);
    rig.publish("never polled");
    rig.session
        .handle_disconnected(LossReason::ClosedByHub, rig.now);
    assert_eq!(rig.sent(), []);
    rig.wait(crate::rig::seconds(1));
    rig.session.handle_connected(credentials(), rig.now);
    assert_eq!(rig.sent(), [Sent::Connect]);
}

#[test]
fn a_cancelled_message_is_not_sent_again_but_counts_until_the_hub_has_answered() {
    let mut rig = Rig::online(NOTHING);
    let [a, b] = [rig.publish("a"), rig.publish("b")];
    let sent = published(&mut rig);
    rig.session.cancel(a, rig.now);
    rig.session.cancel(b, rig.now);
    assert_eq!(rig.session.room().telemetry, 14);
    rig.hub(&packets::puback(sent[0].1));
    assert!(rig.events().is_empty());
    assert_eq!(rig.session.room().telemetry, 15);
    rig.reconnect(true);
    assert_eq!(published(&mut rig), []);
    assert_eq!(rig.session.room().telemetry, 16);
}

#[test]
fn an_acknowledgement_of_nothing_is_a_violation() {
    let mut rig = Rig::online(NOTHING);
    rig.hub(&packets::puback(77));
    assert!(matches!(
        rig.events()[..],
        [
            Event::Disconnected {
                reason: LossReason::Protocol(Violation::UnknownPacketId),
                ..
            },
            Event::Close
        ]
    ));
}
