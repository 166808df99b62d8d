//! From a closed session to an accepted connection, and what happens where that fails.

use std::time::Duration;

use tombolo_session::{Config, ConnectionEpoch, Event, LossReason, RefusalReason, Violation};

use crate::{
    packets::{self, Sent},
    rig::{NOTHING, Rig, credentials, seconds},
};

#[test]
fn connect_is_byte_for_byte_as_documented() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    assert!(matches!(rig.event(), Event::Connect));
    rig.session.handle_connected(credentials(), rig.now);
    let hex = include_str!("../golden/connect.hex").replace('\n', "");
    let sent = rig.session.poll_transmit().unwrap();
    let sent: String = sent.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sent, hex);
    assert_eq!(sent.len(), 2 * 213);
}

#[test]
fn work_that_came_before_the_connection_goes_out_with_its_first_packets() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.publish("early");
    rig.twin_get();
    rig.events();
    rig.session.handle_connected(credentials(), rig.now);
    assert_eq!(rig.sent(), [Sent::Connect]);
    rig.hub(&packets::connack(0, false));
    let sent = rig.sent();
    assert!(
        matches!(&sent[..], [Sent::Unsubscribe { .. }, Sent::Subscribe { .. }, Sent::Publish(telemetry), Sent::Publish(get)]
            if telemetry.payload == b"early" && get.topic.starts_with("$iothub/twin/GET/")),
        "{sent:?}"
    );
}

#[test]
fn every_connection_has_a_number_of_its_own() {
    let mut rig = Rig::online(NOTHING);
    assert_eq!(rig.session.epoch(), Some(ConnectionEpoch(1)));
    let events = rig.reconnect(true);
    assert!(matches!(
        events[..],
        [Event::Disconnected {
            epoch: ConnectionEpoch(1),
            reason: LossReason::ClosedByHub
        }]
    ));
    assert!(matches!(
        rig.event(),
        Event::Connected {
            epoch: ConnectionEpoch(2),
            session_present: true
        }
    ));
}

#[test]
fn a_hub_that_does_not_answer_connect_is_left_and_asked_again() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.session.handle_connected(credentials(), rig.now);
    rig.events();
    assert_eq!(
        rig.session.poll_timeout(),
        Some((rig.now + seconds(20), "connack"))
    );
    rig.wait(seconds(20));
    assert!(matches!(
        rig.events()[..],
        [
            Event::ConnectFailed {
                reason: LossReason::ConnackTimeout
            },
            Event::Close
        ]
    ));
    rig.session.handle_disconnected(LossReason::Socket, rig.now);
    rig.wait(seconds(1));
    assert!(matches!(rig.event(), Event::Connect));
}

#[test]
fn refused_credentials_are_named_and_tried_again_slowly() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        assert!(matches!(rig.event(), Event::Connect));
        rig.session.handle_connected(credentials(), rig.now);
        rig.hub(&packets::connack(5, false));
        assert!(matches!(
            rig.events()[..],
            [
                Event::Refused {
                    reason: RefusalReason::Credentials
                },
                Event::Close
            ]
        ));
        // The hub may close first; the driver reports the end once.
        rig.session
            .handle_disconnected(LossReason::ClosedByHub, rig.now);
        let (at, why) = rig.session.poll_timeout().unwrap();
        assert_eq!(why, "back-off");
        longest = longest.max(at - rig.now);
        rig.wait(seconds(300));
    }
    assert!(
        longest > seconds(150) && longest <= seconds(300),
        "{longest:?}"
    );
}

#[test]
fn an_unavailable_hub_is_not_taken_for_a_refusal_of_credentials() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.session.handle_connected(credentials(), rig.now);
    rig.events();
    rig.hub(&packets::connack(3, false));
    assert!(matches!(
        rig.events()[0],
        Event::Refused {
            reason: RefusalReason::Unavailable
        }
    ));
    rig.session
        .handle_disconnected(LossReason::ClosedByHub, rig.now);
    let (at, _) = rig.session.poll_timeout().unwrap();
    assert!(at - rig.now <= seconds(1));
}

/// The wait before the next attempt, which is then due.
fn next_attempt(rig: &mut Rig) -> Duration {
    let (at, why) = rig.session.poll_timeout().unwrap();
    assert_eq!(why, "back-off");
    let wait = at - rig.now;
    rig.wait(wait);
    assert!(matches!(rig.events()[..], [.., Event::Connect]));
    wait
}

#[test]
fn attempts_that_fail_come_less_and_less_often() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    let waits: Vec<Duration> = (0..40)
        .map(|_| {
            rig.session.handle_connect_failed(rig.now);
            next_attempt(&mut rig)
        })
        .collect();
    for (attempt, wait) in (0_u32..).zip(&waits) {
        assert!(*wait <= seconds(300).min(seconds(1) * 2_u32.saturating_pow(attempt)));
    }
    let total: Duration = waits[20..].iter().sum();
    assert!(total > seconds(20 * 75), "{total:?}");
}

#[test]
fn two_owners_of_one_identity_do_not_throw_each_other_out_ever_faster() {
    let mut rig = Rig::online(NOTHING);
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        rig.wait(seconds(2));
        rig.session
            .handle_disconnected(LossReason::ClosedByHub, rig.now);
        longest = longest.max(next_attempt(&mut rig));
        rig.session.handle_connected(credentials(), rig.now);
        rig.hub(&packets::connack(0, true));
        rig.acknowledge_all();
    }
    assert!(longest > seconds(60), "{longest:?}");

    rig.wait(seconds(61));
    rig.acknowledge_all();
    rig.session
        .handle_disconnected(LossReason::ClosedByHub, rig.now);
    assert!(
        next_attempt(&mut rig) <= seconds(1),
        "a connection that lasted makes up for it"
    );
}

#[test]
fn a_packet_before_connack_is_a_violation() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.session.handle_connected(credentials(), rig.now);
    rig.events();
    rig.hub(&packets::pingresp());
    assert!(matches!(
        rig.events()[..],
        [
            Event::ConnectFailed {
                reason: LossReason::Protocol(Violation::Unexpected)
            },
            Event::Close
        ]
    ));
}

#[test]
fn a_password_that_mqtt_cannot_carry_is_a_failure_and_no_panic() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    let mut credentials = credentials();
    credentials.password = Some("x".repeat(65_536));
    rig.session.handle_connected(credentials, rig.now);
    assert!(matches!(
        rig.events()[..],
        [
            Event::Connect,
            Event::ConnectFailed {
                reason: LossReason::CredentialsTooLong
            },
            Event::Close
        ]
    ));
    assert_eq!(rig.session.poll_transmit(), None);
}

#[test]
fn a_timeout_that_comes_early_or_twice_is_harmless() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.events();
    rig.session.handle_connect_failed(rig.now);
    let (at, _) = rig.session.poll_timeout().unwrap();
    rig.session.handle_timeout(rig.now);
    assert!(rig.events().is_empty());
    rig.session.handle_timeout(at);
    rig.session.handle_timeout(at);
    assert!(matches!(rig.event(), Event::Connect));
}

#[test]
fn durations_of_zero_are_foolish_but_do_not_hang() {
    let mut rig = Rig::with(Config {
        keep_alive: Duration::ZERO,
        ping_timeout: Duration::ZERO,
        probe_after: Duration::ZERO,
        twin_timeout: Duration::ZERO,
        ..Config::default()
    });
    rig.session.open(rig.now);
    rig.bring_online(false);
    rig.twin_get();
    rig.session.handle_timeout(rig.now);
    assert!(rig.sent().len() <= 17);
}

/// A session whose back-off has grown to minutes.
fn long_away(fail: impl Fn(&mut Rig)) -> Rig {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    for _ in 0..1000 {
        fail(&mut rig);
        rig.events();
        let (at, _) = rig.session.poll_timeout().unwrap();
        if at - rig.now > seconds(100) {
            return rig;
        }
        rig.wait(at - rig.now);
        rig.events();
    }
    panic!("the back-off does not grow");
}

fn refuse(rig: &mut Rig, code: u8) {
    rig.session.handle_connected(credentials(), rig.now);
    rig.hub(&packets::connack(code, false));
    rig.session
        .handle_disconnected(LossReason::ClosedByHub, rig.now);
}

#[test]
fn whoever_is_in_a_hurry_waits_for_the_shortest_step_of_the_back_off_only() {
    let no_socket = |rig: &mut Rig| rig.session.handle_connect_failed(rig.now);
    let mut rig = long_away(no_socket);
    rig.session.hurry(rig.now);
    let soon = rig.now + seconds(1);
    assert_eq!(rig.session.poll_timeout(), Some((soon, "back-off")));
    rig.wait(seconds(1));
    assert!(matches!(rig.event(), Event::Connect));

    for mut rig in [long_away(no_socket), long_away(|rig| refuse(rig, 3))] {
        rig.now += seconds(30);
        rig.session.hurry(rig.now);
        assert!(matches!(rig.event(), Event::Connect), "at once");
        rig.session.hurry(rig.now);
        assert!(rig.events().is_empty(), "one attempt at a time");
    }
}

#[test]
fn a_hurry_does_not_make_a_wait_longer() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.session.handle_connect_failed(rig.now);
    let before = rig.session.poll_timeout().unwrap();
    rig.session.hurry(rig.now);
    assert_eq!(rig.session.poll_timeout(), Some(before));
}

#[test]
fn refused_credentials_are_not_hurried_and_fresh_ones_need_not_wait() {
    let mut rig = long_away(|rig| refuse(rig, 5));
    let before = rig.session.poll_timeout();
    rig.session.hurry(rig.now + seconds(30));
    assert_eq!(rig.session.poll_timeout(), before);
    assert!(rig.events().is_empty());

    rig.session.handle_fresh_credentials(rig.now);
    assert!(matches!(rig.event(), Event::Connect));
    rig.session.handle_fresh_credentials(rig.now);
    assert!(rig.events().is_empty(), "one attempt at a time");
}
