//! Closing a session in order.

use std::time::Duration;

use tombolo_session::{Event, LossReason};

use crate::{
    packets::{self, Sent},
    rig::{EVERYTHING, NOTHING, Rig, credentials, millis, seconds},
};

#[test]
fn closing_awaits_what_is_in_flight_then_takes_methods_back_then_disconnects() {
    let mut rig = Rig::online(EVERYTHING);
    let work = rig.publish("last");
    let packet = rig.published()[0].id.unwrap();
    rig.session.close(rig.now);
    assert_eq!(rig.sent(), []);
    assert_eq!(rig.session.room().telemetry, 0);
    rig.hub(&packets::puback(packet));
    let [Sent::Unsubscribe { id, .. }] = rig.sent()[..] else {
        panic!("no UNSUBSCRIBE");
    };
    assert!(matches!(rig.event(), Event::Delivered(id) if id == work));
    rig.hub(&packets::unsuback(id));
    assert_eq!(rig.sent(), [Sent::Disconnect]);
    assert!(matches!(
        rig.events()[..],
        [
            Event::Disconnected {
                reason: LossReason::Closed,
                ..
            },
            Event::DesiredStale,
            Event::Close
        ]
    ));
    rig.session.handle_disconnected(LossReason::Closed, rig.now);
    assert!(matches!(rig.event(), Event::Closed));
    assert_eq!(rig.session.poll_timeout(), None);
}

#[test]
fn closing_waits_for_a_hub_that_does_not_answer_no_longer_than_it_says() {
    let mut rig = Rig::online(EVERYTHING);
    let work = rig.publish("lost");
    rig.sent();
    rig.session.close(rig.now);
    rig.wait(seconds(3));
    assert!(matches!(rig.sent()[..], [Sent::Unsubscribe { .. }]));
    rig.wait(seconds(1));
    assert_eq!(rig.sent(), [Sent::Disconnect]);
    rig.session.handle_disconnected(LossReason::Closed, rig.now);
    let events = rig.events();
    assert!(matches!(events[..], [.., Event::Gone(gone), Event::Closed] if gone == work));
}

#[test]
fn a_device_that_could_answer_no_method_disconnects_at_once() {
    let mut rig = Rig::online(NOTHING);
    rig.session.close(rig.now);
    assert_eq!(rig.sent(), [Sent::Disconnect]);
}

#[test]
fn a_session_without_a_connection_closes_at_once() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.events();
    rig.session.handle_connect_failed(rig.now);
    let work = rig.publish("never sent");
    rig.session.close(rig.now);
    assert!(matches!(rig.events()[..], [Event::Gone(gone), Event::Closed] if gone == work));
}

#[test]
fn a_socket_that_is_being_opened_is_given_up() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.session.close(rig.now);
    assert!(matches!(rig.events()[..], [Event::Connect, Event::Close]));
    rig.session.handle_connect_failed(rig.now);
    assert!(matches!(rig.event(), Event::Closed));
}

#[test]
fn a_closed_session_opens_again_as_if_new() {
    let mut rig = Rig::online(NOTHING);
    rig.session.close(rig.now);
    rig.sent();
    rig.session.handle_disconnected(LossReason::Closed, rig.now);
    rig.events();
    rig.session.open(rig.now);
    rig.bring_online(true);
    rig.publish("again");
    assert_eq!(rig.published().len(), 1);
}

#[test]
fn a_session_that_is_wanted_again_while_it_drains_goes_on() {
    let mut rig = Rig::online(EVERYTHING);
    rig.publish("a");
    rig.sent();
    rig.session.close(rig.now);
    rig.session.open(rig.now);
    rig.publish("b");
    assert_eq!(rig.published().len(), 1);
    assert!(rig.events().is_empty());
}

#[test]
fn a_session_that_is_wanted_again_too_late_connects_again() {
    let mut rig = Rig::online(EVERYTHING);
    rig.session.close(rig.now);
    rig.session.open(rig.now);
    assert_eq!(rig.acknowledge_all(), [Sent::Disconnect]);
    rig.session.handle_disconnected(LossReason::Closed, rig.now);
    assert!(matches!(
        rig.events()[..],
        [.., Event::Close, Event::Connect]
    ));
}

#[test]
fn a_method_that_arrives_while_the_session_closes_is_answered_at_once() {
    let mut rig = Rig::online(EVERYTHING);
    rig.session.close(rig.now);
    rig.sent();
    rig.hub(&packets::publish(
        None,
        "$iothub/methods/POST/m/?$rid=1",
        b"",
    ));
    assert_eq!(rig.published()[0].topic, "$iothub/methods/res/503/?$rid=1");
}

#[test]
fn reconnecting_gives_unacknowledged_messages_back_to_the_hub() {
    let mut rig = Rig::online(EVERYTHING);
    rig.receive(1);
    rig.session.reconnect(rig.now);
    assert_eq!(rig.acknowledge_all(), [Sent::Disconnect]);
    rig.session.handle_disconnected(LossReason::Closed, rig.now);
    assert!(matches!(
        rig.events()[..],
        [
            Event::Disconnected {
                reason: LossReason::Reconnected,
                ..
            },
            Event::DesiredStale,
            Event::Close
        ]
    ));
    rig.wait(seconds(1));
    assert!(matches!(rig.event(), Event::Connect));
    rig.session.handle_connected(credentials(), rig.now);
    assert_eq!(rig.sent(), [Sent::Connect]);
}

#[test]
fn a_message_that_is_given_back_again_and_again_makes_no_storm() {
    let mut rig = Rig::online(EVERYTHING);
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        rig.receive(1);
        rig.session.reconnect(rig.now);
        rig.acknowledge_all();
        rig.session.handle_disconnected(LossReason::Closed, rig.now);
        rig.events();
        let (at, why) = rig.session.poll_timeout().unwrap();
        assert_eq!(why, "back-off");
        longest = longest.max(at - rig.now);
        rig.wait(at - rig.now);
        rig.bring_online(true);
    }
    assert!(longest > seconds(60), "{longest:?}");
}

#[test]
fn a_session_that_must_stop_soon_takes_methods_back_and_disconnects_in_time() {
    let mut rig = Rig::online(EVERYTHING);
    let work = rig.publish("no answer");
    rig.sent();
    rig.session.close_within(millis(1500), rig.now);
    assert_eq!(rig.sent(), []);
    rig.wait(millis(750));
    assert!(matches!(rig.sent()[..], [Sent::Unsubscribe { .. }]));
    rig.wait(millis(749));
    assert_eq!(rig.sent(), []);
    rig.wait(millis(1));
    assert_eq!(rig.sent(), [Sent::Disconnect]);
    rig.session.handle_disconnected(LossReason::Closed, rig.now);
    let events = rig.events();
    assert!(matches!(events[..], [.., Event::Gone(gone), Event::Closed] if gone == work));
}

#[test]
fn more_time_than_is_configured_is_not_used() {
    let mut rig = Rig::online(EVERYTHING);
    rig.publish("no answer");
    rig.sent();
    rig.session.close_within(Duration::MAX, rig.now);
    rig.wait(seconds(3));
    assert!(matches!(rig.sent()[..], [Sent::Unsubscribe { .. }]));
    rig.wait(seconds(1));
    assert_eq!(rig.sent(), [Sent::Disconnect]);
}

#[test]
fn no_time_at_all_is_enough_to_say_goodbye() {
    let mut rig = Rig::online(EVERYTHING);
    rig.publish("no answer");
    rig.sent();
    rig.session.close_within(Duration::ZERO, rig.now);
    assert!(matches!(rig.sent()[..], [Sent::Unsubscribe { .. }]));
    rig.session.handle_timeout(rig.now);
    assert_eq!(rig.sent(), [Sent::Disconnect]);
}

#[test]
fn a_session_that_closes_can_be_hurried() {
    let mut rig = Rig::online(EVERYTHING);
    rig.publish("no answer");
    rig.sent();
    rig.session.close(rig.now);
    rig.wait(millis(500));
    rig.session.close_within(millis(100), rig.now);
    rig.wait(millis(50));
    assert!(matches!(rig.sent()[..], [Sent::Unsubscribe { .. }]));
    rig.session.close_within(millis(40), rig.now);
    rig.wait(millis(20));
    assert_eq!(rig.sent(), [Sent::Disconnect]);
}
