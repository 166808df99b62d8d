//! How a session notices that its hub is gone, and how it keeps a quiet connection up.

use tombolo_session::{Event, LossReason};

use crate::{
    packets::{self, Sent},
    rig::{NOTHING, Rig, seconds},
};

#[test]
fn a_quiet_connection_is_pinged_once_per_keep_alive() {
    let mut rig = Rig::online(NOTHING);
    for _ in 0..3 {
        rig.wait(seconds(239));
        assert_eq!(rig.sent(), []);
        rig.wait(seconds(1));
        assert_eq!(rig.sent(), [Sent::Pingreq]);
        rig.hub(&packets::pingresp());
    }
    assert!(rig.events().is_empty());
}

#[test]
fn a_hub_that_does_not_answer_a_ping_is_given_up() {
    let mut rig = Rig::online(NOTHING);
    rig.wait(seconds(250));
    assert!(matches!(
        rig.events()[..],
        [
            Event::Disconnected {
                reason: LossReason::PingTimeout,
                ..
            },
            Event::Close
        ]
    ));
}

#[test]
fn a_hub_that_owes_an_answer_and_is_silent_is_noticed_soon() {
    let mut rig = Rig::online(NOTHING);
    rig.wait(seconds(100));
    rig.publish("x");
    rig.sent();
    rig.wait(seconds(5));
    assert_eq!(rig.sent(), [Sent::Pingreq]);
    rig.wait(seconds(10));
    assert!(matches!(
        rig.events()[0],
        Event::Disconnected {
            reason: LossReason::PingTimeout,
            ..
        }
    ));
}

#[test]
fn a_hub_that_lives_but_withholds_a_puback_gets_two_minutes() {
    let mut rig = Rig::online(NOTHING);
    rig.publish("x");
    rig.sent();
    for _ in 0..119 {
        rig.wait(seconds(1));
        for packet in rig.sent() {
            assert_eq!(packet, Sent::Pingreq);
            rig.hub(&packets::pingresp());
        }
    }
    assert!(rig.events().is_empty());
    rig.wait(seconds(1));
    assert!(matches!(
        rig.events()[0],
        Event::Disconnected {
            reason: LossReason::AckTimeout,
            ..
        }
    ));
}
