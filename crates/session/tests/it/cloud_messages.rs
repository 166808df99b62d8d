//! Cloud-to-device messages: receipts, the order of acknowledgements, and when nothing more is waiting.

use tombolo_session::{Event, LossReason, StaleReceipt, Subscriptions, Violation};

use crate::{
    packets::{self, Sent},
    rig::{EVERYTHING, NOTHING, Rig, credentials, millis},
};

#[test]
fn a_message_is_acknowledged_when_the_driver_says_so_and_in_the_order_of_arrival() {
    let mut rig = Rig::online(EVERYTHING);
    let [a, b, c] = [101, 102, 103].map(|id| rig.receive(id));
    assert_eq!(rig.sent(), [], "the hub keeps them");
    rig.acknowledge(b);
    assert_eq!(rig.sent(), []);
    rig.acknowledge(a);
    assert_eq!(rig.sent(), [Sent::Puback(101), Sent::Puback(102)]);
    assert!(matches!(
        rig.events()[..],
        [Event::Acknowledged(first), Event::Acknowledged(second)] if first == a && second == b
    ));
    rig.acknowledge(a);
    rig.acknowledge(c);
    assert_eq!(rig.sent(), [Sent::Puback(103)], "twice is harmless");
}

#[test]
fn a_receipt_of_an_old_connection_is_stale() {
    let mut rig = Rig::online(EVERYTHING);
    let old = rig.receive(5);
    rig.reconnect(true);
    rig.acknowledge_all();
    rig.events();
    assert_eq!(rig.session.acknowledge(old, rig.now), Err(StaleReceipt));
    let again = rig.receive(5);
    rig.acknowledge(again);
    assert_eq!(rig.sent(), [Sent::Puback(5)]);
}

#[test]
fn a_message_may_come_before_the_first_subscribe() {
    let mut rig = Rig::new();
    rig.session.set_wanted(EVERYTHING, rig.now);
    rig.session.open(rig.now);
    rig.session.handle_connected(credentials(), rig.now);
    rig.events();
    let mut bytes = packets::connack(0, true);
    bytes.extend(packets::publish(
        Some(9),
        "devices/dev1/messages/devicebound/",
        b"x",
    ));
    rig.hub(&bytes);
    assert!(matches!(
        rig.events()[..],
        [Event::Connected { .. }, Event::Received { .. }]
    ));
}

#[test]
fn a_message_that_needs_no_puback_keeps_its_turn() {
    let mut rig = Rig::online(EVERYTHING);
    let a = rig.receive(1);
    rig.hub(&packets::publish(
        None,
        "devices/dev1/messages/devicebound/",
        b"QoS 0",
    ));
    let Event::Received { receipt: b, .. } = rig.event() else {
        panic!("no message");
    };
    rig.acknowledge(b);
    assert!(rig.events().is_empty());
    rig.acknowledge(a);
    assert_eq!(rig.sent(), [Sent::Puback(1)]);
    assert_eq!(rig.events().len(), 2);
}

#[test]
fn what_another_client_subscribed_with_qos_1_is_acknowledged_in_its_turn() {
    let mut rig = Rig::online(EVERYTHING);
    let message = rig.receive(1);
    rig.hub(&packets::publish(
        Some(2),
        "$iothub/methods/POST/m/?$rid=1",
        b"",
    ));
    assert_eq!(rig.sent(), []);
    rig.acknowledge(message);
    assert_eq!(rig.sent(), [Sent::Puback(1), Sent::Puback(2)]);
}

#[test]
fn a_message_that_makes_no_sense_is_reported_and_can_be_acknowledged() {
    let mut rig = Rig::online(EVERYTHING);
    rig.hub(&packets::publish(
        Some(3),
        "devices/dev1/messages/devicebound/a=%ff",
        b"",
    ));
    let Event::Unreadable {
        receipt: Some(receipt),
        topic,
        ..
    } = rig.event()
    else {
        panic!("not reported");
    };
    assert!(topic.ends_with("a=%ff"));
    rig.acknowledge(receipt);
    assert_eq!(rig.sent(), [Sent::Puback(3)]);
}

#[test]
fn a_message_for_another_device_ends_the_connection() {
    let mut rig = Rig::online(EVERYTHING);
    rig.hub(&packets::publish(
        Some(3),
        "devices/dev2/messages/devicebound/",
        b"",
    ));
    assert!(matches!(
        rig.events()[0],
        Event::Disconnected {
            reason: LossReason::Protocol(Violation::WrongDevice),
            ..
        }
    ));
}

#[test]
fn a_hub_that_delivers_on_and_on_is_left_at_64_unacknowledged_messages() {
    let mut rig = Rig::online(EVERYTHING);
    for id in 1..=64 {
        rig.receive(id);
    }
    let topic = "devices/dev1/messages/devicebound/";
    rig.hub(&packets::publish(Some(65), topic, b"one too many"));
    assert!(matches!(
        rig.events()[0],
        Event::Disconnected {
            reason: LossReason::Protocol(Violation::TooManyUnacknowledged),
            ..
        }
    ));
}

/// A session whose hub has accepted it and answered nothing yet; and its SUBSCRIBE.
fn subscribing() -> (Rig, u16) {
    let mut rig = Rig::new();
    rig.session.set_wanted(EVERYTHING, rig.now);
    rig.session.open(rig.now);
    rig.session.handle_connected(credentials(), rig.now);
    rig.sent();
    rig.hub(&packets::connack(0, true));
    rig.events();
    let [Sent::Subscribe { id, .. }] = rig.sent()[..] else {
        panic!("no SUBSCRIBE");
    };
    (rig, id)
}

#[test]
fn settled_means_suback_a_round_trip_and_silence() {
    let (mut rig, id) = subscribing();
    rig.wait(millis(1000));
    assert_eq!(rig.sent(), []);
    rig.hub(&packets::suback(id, &[0, 0, 1, 0]));
    assert_eq!(rig.sent(), [Sent::Pingreq]);
    rig.wait(millis(1000));
    assert!(rig.events().is_empty() && !rig.session.is_settled());
    rig.hub(&packets::pingresp());
    assert!(matches!(rig.event(), Event::MethodsOffered { .. }));
    rig.wait(millis(299));
    rig.receive(1);
    rig.wait(millis(299));
    assert!(rig.events().is_empty() && !rig.session.is_settled());
    rig.wait(millis(1));
    assert!(matches!(rig.event(), Event::Settled { .. }));
    assert!(rig.session.is_settled());
    rig.reconnect(true);
    assert!(!rig.session.is_settled());
}

#[test]
fn a_stream_of_messages_does_not_put_settling_off_forever() {
    let (mut rig, id) = subscribing();
    rig.hub(&packets::suback(id, &[0, 0, 1, 0]));
    rig.hub(&packets::pingresp());
    assert!(matches!(rig.event(), Event::MethodsOffered { .. }));
    for id in 1..=14 {
        rig.wait(millis(200));
        rig.receive(id);
    }
    rig.wait(millis(200));
    assert!(matches!(rig.event(), Event::Settled { .. }));
}

#[test]
fn the_round_trip_is_that_of_a_ping_sent_after_suback() {
    let (mut rig, id) = subscribing();
    rig.wait(millis(5000));
    assert_eq!(rig.sent(), [Sent::Pingreq], "the silent hub is probed");
    rig.hub(&packets::suback(id, &[0, 0, 1, 0]));
    assert_eq!(rig.sent(), [Sent::Pingreq]);
    rig.hub(&packets::pingresp());
    rig.wait(millis(1000));
    assert!(rig.events().is_empty(), "that was the answer to the probe");
    rig.hub(&packets::pingresp());
    assert!(matches!(rig.event(), Event::MethodsOffered { .. }));
    rig.wait(millis(300));
    assert!(matches!(rig.event(), Event::Settled { .. }));
}

#[test]
fn settling_begins_anew_with_a_new_subscription() {
    let mut rig = Rig::online(EVERYTHING);
    rig.wait(millis(300));
    assert!(rig.session.is_settled());
    let without = Subscriptions {
        cloud_messages: false,
        ..EVERYTHING
    };
    rig.session.set_wanted(without, rig.now);
    rig.session.set_wanted(EVERYTHING, rig.now);
    assert!(!rig.session.is_settled());
    rig.acknowledge_all();
    rig.wait(millis(300));
    assert!(rig.session.is_settled());
}

#[test]
fn without_a_subscription_nothing_is_settled() {
    let mut rig = Rig::online(NOTHING);
    rig.wait(millis(10_000));
    assert!(!rig.session.is_settled());
}
