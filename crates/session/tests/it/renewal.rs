//! Fresh credentials take the place of old ones on a second socket.

use tombolo_session::{Credentials, Event, LossReason};

use crate::{
    packets::{self, Sent},
    rig::{EVERYTHING, Rig, credentials, seconds},
};

/// An accepted connection whose credentials want to be renewed after an hour, 59 minutes ago.
fn an_hour_old() -> Rig {
    let mut rig = Rig::new();
    rig.session.set_wanted(EVERYTHING, rig.now);
    rig.session.open(rig.now);
    let credentials = Credentials {
        renew_at: Some(rig.now + seconds(3600)),
        ..credentials()
    };
    rig.session.handle_connected(credentials, rig.now);
    rig.hub(&packets::connack(0, false));
    for _ in 0..3540 {
        rig.acknowledge_all();
        rig.wait(seconds(1));
    }
    rig.acknowledge_all();
    rig.events();
    rig
}

/// The same, and the second socket is asked for.
fn renewing() -> Rig {
    let mut rig = an_hour_old();
    rig.wait(seconds(60));
    rig.acknowledge_all();
    assert!(matches!(rig.event(), Event::Renew));
    rig
}

#[test]
fn a_renewal_opens_first_drains_then_switches() {
    let mut rig = renewing();
    let work = rig.publish("the old connection still serves");
    let packet = rig.published()[0].id.unwrap();
    rig.session.handle_connected(credentials(), rig.now);
    let waiting = rig.publish("this waits for the new one");
    assert_eq!(rig.sent(), []);
    rig.hub(&packets::puback(packet));
    let [Sent::Unsubscribe { id, .. }] = rig.sent()[..] else {
        panic!("no UNSUBSCRIBE");
    };
    rig.hub(&packets::unsuback(id));
    assert_eq!(rig.sent(), [Sent::Disconnect]);
    assert!(matches!(
        rig.events()[..],
        [
            Event::Delivered(done),
            Event::Disconnected { reason: LossReason::Renewed, .. },
            Event::DesiredStale,
            Event::Switch
        ] if done == work
    ));
    rig.session.handle_disconnected(LossReason::Closed, rig.now);
    assert_eq!(rig.sent(), [Sent::Connect]);
    rig.hub(&packets::connack(0, true));
    let others = rig.acknowledge_all();
    let [Sent::Publish(publish)] = &others[..] else {
        panic!("{others:?}");
    };
    rig.events();
    rig.hub(&packets::puback(publish.id.unwrap()));
    assert!(matches!(rig.event(), Event::Delivered(done) if done == waiting));
}

#[test]
fn a_renewal_that_is_postponed_comes_again_at_its_time() {
    let mut rig = renewing();
    rig.session.postpone_renewal(rig.now + seconds(30));
    rig.wait(seconds(29));
    rig.acknowledge_all();
    assert!(rig.events().is_empty());
    rig.wait(seconds(1));
    assert!(matches!(rig.event(), Event::Renew));
}

#[test]
fn without_a_second_socket_the_connection_goes_on_and_renewal_is_tried_again() {
    let mut rig = renewing();
    for _ in 0..5 {
        rig.session.handle_connect_failed(rig.now);
        rig.publish("served");
        let packet = rig.published()[0].id.unwrap();
        rig.hub(&packets::puback(packet));
        assert!(matches!(rig.event(), Event::Delivered(_)));
        let (at, why) = rig.session.poll_timeout().unwrap();
        assert_eq!(why, "renew");
        rig.wait(at - rig.now);
        assert!(matches!(rig.event(), Event::Renew));
    }
}

#[test]
fn credentials_that_come_late_are_used_at_once_and_early_ones_when_they_are_due() {
    let mut rig = an_hour_old();
    rig.session.handle_fresh_credentials(rig.now);
    assert!(rig.events().is_empty(), "the connection's own are good");

    let mut rig = renewing();
    for _ in 0..8 {
        rig.session.handle_connect_failed(rig.now);
        let (at, _) = rig.session.poll_timeout().unwrap();
        rig.wait(at - rig.now);
        rig.acknowledge_all();
        rig.events();
    }
    rig.session.handle_connect_failed(rig.now);
    rig.session.handle_fresh_credentials(rig.now);
    assert_eq!(rig.session.poll_timeout(), Some((rig.now, "renew")));
    rig.session.handle_timeout(rig.now);
    assert!(matches!(rig.event(), Event::Renew));
}

#[test]
fn a_connection_that_breaks_while_the_second_socket_is_opened_waits_for_that() {
    let mut rig = renewing();
    rig.session
        .handle_disconnected(LossReason::ClosedByHub, rig.now);
    let events = rig.events();
    assert!(
        !events.iter().any(|event| matches!(event, Event::Connect)),
        "{events:?}"
    );
    rig.session.handle_connected(credentials(), rig.now);
    assert_eq!(rig.sent(), [Sent::Connect]);
}

#[test]
fn a_hub_that_falls_silent_while_the_second_socket_is_opened_ends_both() {
    let mut rig = renewing();
    rig.publish("no answer");
    rig.wait(seconds(15));
    let events = rig.events();
    assert!(matches!(events[..], [.., Event::Close]), "{events:?}");
    rig.session.handle_disconnected(LossReason::Socket, rig.now);
    rig.wait(seconds(1));
    assert!(
        matches!(rig.event(), Event::Connect),
        "a socket is asked for anew"
    );
}

#[test]
fn a_connection_that_breaks_while_it_drains_is_replaced_at_once() {
    let mut rig = renewing();
    rig.publish("in flight");
    rig.sent();
    rig.session.handle_connected(credentials(), rig.now);
    rig.session
        .handle_disconnected(LossReason::ClosedByHub, rig.now);
    assert_eq!(rig.sent(), [Sent::Connect]);
}

#[test]
fn a_session_that_closes_during_a_renewal_closes_every_socket() {
    let mut rig = renewing();
    rig.publish("in flight");
    rig.sent();
    rig.session.handle_connected(credentials(), rig.now);
    rig.session.close(rig.now);
    rig.wait(seconds(4));
    let events = rig.events();
    assert!(matches!(events[..], [.., Event::Close]), "{events:?}");
    rig.session.handle_disconnected(LossReason::Closed, rig.now);
    assert!(matches!(rig.events()[..], [.., Event::Closed]));
}

#[test]
fn a_renewal_gives_messages_back_as_well() {
    let mut rig = renewing();
    rig.publish("in flight");
    rig.sent();
    rig.session.handle_connected(credentials(), rig.now);
    rig.session.reconnect(rig.now);
    rig.wait(seconds(4));
    let events = rig.events();
    assert!(matches!(events[..], [.., Event::Switch]), "{events:?}");
}

#[test]
fn a_connection_that_is_given_up_while_the_second_socket_is_opened_waits_for_that() {
    let mut rig = renewing();
    rig.publish("in flight");
    rig.sent();
    rig.session.reconnect(rig.now);
    rig.session
        .handle_disconnected(LossReason::ClosedByHub, rig.now);
    let events = rig.events();
    assert!(
        !events.iter().any(|event| matches!(event, Event::Connect)),
        "{events:?}"
    );
    rig.session.handle_connected(credentials(), rig.now);
    assert_eq!(rig.sent(), [Sent::Connect]);
}

#[test]
fn credentials_that_are_always_too_old_do_not_make_a_storm() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.events();
    let credentials = Credentials {
        renew_at: Some(rig.now),
        ..credentials()
    };
    rig.session.handle_connected(credentials, rig.now);
    rig.hub(&packets::connack(0, false));
    rig.acknowledge_all();
    rig.events();
    rig.wait(seconds(59));
    assert!(rig.events().is_empty());
    rig.wait(seconds(1));
    assert!(matches!(rig.event(), Event::Renew));
}
