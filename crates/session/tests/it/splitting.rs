//! Bytes are bytes: how they are cut must not matter, and no bytes may do harm.

use proptest::prelude::*;
use tombolo_session::Event;

use crate::{
    packets,
    rig::{EVERYTHING, Rig, credentials, seconds},
};

/// A session that has sent CONNECT and wants everything.
fn connecting() -> Rig {
    let mut rig = Rig::new();
    rig.session.set_wanted(EVERYTHING, rig.now);
    rig.session.open(rig.now);
    rig.session.handle_connected(credentials(), rig.now);
    rig.publish("in flight");
    rig
}

/// What a hub says in the first seconds of a busy connection.
fn script() -> Vec<u8> {
    let message = "devices/dev1/messages/devicebound/%24.mid=m&a=b";
    [
        packets::connack(0, true),
        packets::publish(Some(7), message, b"before SUBACK"),
        packets::suback(1, &[0, 0, 1, 0]),
        packets::puback(2),
        packets::publish(None, "$iothub/methods/POST/reboot/?$rid=1f", b"{}"),
        packets::publish(
            None,
            "$iothub/twin/PATCH/properties/desired/?$version=8",
            br#"{"interval":5,"$version":8}"#,
        ),
        packets::publish(None, "$iothub/twin/res/200/?$rid=unknown", b"{}"),
        packets::publish(Some(8), message, &[b'x'; 300]),
        packets::pingresp(),
    ]
    .concat()
}

/// Everything that comes out for input that is cut at these places.
fn outcome(input: &[u8], cuts: &[usize]) -> (String, Vec<packets::Sent>) {
    let mut rig = connecting();
    let mut begin = 0;
    for end in cuts.iter().copied().chain([input.len()]) {
        let end = end.clamp(begin, input.len());
        rig.hub(&input[begin..end]);
        begin = end;
    }
    (format!("{:?}", rig.events()), rig.sent())
}

#[test]
fn input_may_be_cut_at_any_byte() {
    let input = script();
    let whole = outcome(&input, &[]);
    assert!(whole.0.contains("MethodRequested") && whole.0.contains("DesiredChanged"));
    for cut in 0..input.len() {
        assert_eq!(outcome(&input, &[cut]), whole, "cut at {cut}");
    }
    let every: Vec<usize> = (0..input.len()).collect();
    assert_eq!(outcome(&input, &every), whole);
}

proptest! {
    #[test]
    fn input_may_be_cut_anywhere(mut cuts in prop::collection::vec(0..600_usize, 0..20)) {
        cuts.sort_unstable();
        let input = script();
        prop_assert_eq!(outcome(&input, &cuts), outcome(&input, &[]));
    }

    #[test]
    fn no_bytes_do_harm(
        is_accepted in any::<bool>(),
        pieces in prop::collection::vec(piece(), 0..30),
    ) {
        let mut rig = connecting();
        if is_accepted {
            rig.hub(&packets::connack(0, true));
        }
        for piece in pieces {
            rig.hub(&piece);
        }
        rig.wait(seconds(600));
        let closes = rig.events().iter().filter(|event| matches!(event, Event::Close)).count();
        prop_assert!(closes <= 1);
    }
}

/// Noise, or something like a packet.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let topic = prop_oneof![
        "devices/dev1/messages/devicebound/[ -~]{0,20}",
        "\\$iothub/(twin/res|methods/POST|twin/PATCH/properties/desired)/[ -~]{0,20}",
        "[ -~]{0,20}",
    ];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (
            any::<Option<u16>>(),
            topic,
            prop::collection::vec(any::<u8>(), 0..40)
        )
            .prop_map(|(id, topic, payload)| packets::publish(id, &topic, &payload)),
        (0..6_u16).prop_map(packets::puback),
        (0..6_u16).prop_map(packets::unsuback),
        (0..6_u16, prop::collection::vec(0..3_u8, 0..5))
            .prop_map(|(id, codes)| packets::suback(id, &codes)),
        Just(packets::pingresp()),
        any::<bool>().prop_map(|present| packets::connack(0, present)),
    ]
}
