//! What the hub is told to deliver, and so what it tells the cloud about the device.

use iothub::Identity;
use tombolo_session::{Config, ConnectionEpoch, Event, LossReason, Subscriptions};

use crate::{
    packets::{self, Sent},
    rig::{EVERYTHING, NOTHING, Rig, credentials, identity, millis},
};

const METHODS: &str = "$iothub/methods/POST/#";
const MESSAGES: &str = "devices/dev1/messages/devicebound/#";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
const TWIN: &str = "$iothub/twin/res/#";

/// The first packets of a connection.
fn first_packets(wanted: Subscriptions) -> Vec<Sent> {
    let mut rig = Rig::new();
    rig.session.set_wanted(wanted, rig.now);
    rig.session.open(rig.now);
    rig.session.handle_connected(credentials(), rig.now);
    assert_eq!(rig.sent(), [Sent::Connect]);
    rig.hub(&packets::connack(0, true));
    rig.sent()
}

fn subscribe(id: u16, filters: &[(&str, u8)]) -> Sent {
    let filters = filters.iter().map(|(filter, qos)| ((*filter).into(), *qos));
    Sent::Subscribe {
        id,
        filters: filters.collect(),
    }
}

fn unsubscribe(id: u16, filters: &[&str]) -> Sent {
    let filters = filters.iter().map(|filter| (*filter).into()).collect();
    Sent::Unsubscribe { id, filters }
}

#[test]
fn a_module_never_names_a_filter_that_only_devices_have() {
    let device = identity();
    let module = Identity::module(
        device.hub().clone(),
        device.device_id().clone(),
        "mod1".parse().unwrap(),
    );
    for wanted in [NOTHING, EVERYTHING] {
        let mut rig = Rig::of(module.clone(), Config::default());
        rig.session.set_wanted(wanted, rig.now);
        rig.session.open(rig.now);
        rig.session.handle_connected(credentials(), rig.now);
        rig.sent();
        rig.hub(&packets::connack(0, true));
        let first = format!("{:?}", rig.sent());
        assert!(first.contains(METHODS), "{first}");
        assert!(!first.contains("devicebound"), "{first}");
    }
}

#[test]
fn the_first_packet_of_a_connection_says_whether_methods_may_come() {
    assert_eq!(
        first_packets(NOTHING),
        [
            unsubscribe(1, &[METHODS, MESSAGES, DESIRED]),
            subscribe(2, &[(TWIN, 0)])
        ]
    );
    assert_eq!(
        first_packets(EVERYTHING),
        [subscribe(
            1,
            &[(METHODS, 0), (TWIN, 0), (MESSAGES, 1), (DESIRED, 0)]
        )]
    );
    let methods = Subscriptions {
        methods: true,
        ..NOTHING
    };
    assert_eq!(
        first_packets(methods),
        [
            subscribe(1, &[(METHODS, 0), (TWIN, 0)]),
            unsubscribe(2, &[MESSAGES, DESIRED])
        ]
    );
}

#[test]
fn presence_that_comes_and_goes_is_told_and_nothing_else() {
    let mut rig = Rig::online(NOTHING);
    let methods = Subscriptions {
        methods: true,
        ..NOTHING
    };
    rig.session.set_wanted(methods, rig.now);
    assert!(matches!(&rig.sent()[..], [Sent::Subscribe { filters, .. }] if filters.len() == 1));
    rig.session.set_wanted(methods, rig.now);
    assert_eq!(rig.sent(), []);
    rig.session.set_wanted(NOTHING, rig.now);
    assert!(
        matches!(&rig.sent()[..], [Sent::Unsubscribe { filters, .. }] if filters == &[METHODS])
    );
}

#[test]
fn the_end_of_the_desired_subscription_makes_desired_properties_stale() {
    let mut rig = Rig::online(EVERYTHING);
    let without = Subscriptions {
        desired: false,
        ..EVERYTHING
    };
    rig.session.set_wanted(without, rig.now);
    assert!(matches!(rig.event(), Event::DesiredStale));

    let mut rig = Rig::online(EVERYTHING);
    assert!(matches!(
        rig.reconnect(true)[..],
        [Event::Disconnected { .. }, Event::DesiredStale]
    ));
}

#[test]
fn a_subscription_that_the_hub_refuses_ends_the_connection() {
    let mut rig = Rig::online(NOTHING);
    rig.session.set_wanted(EVERYTHING, rig.now);
    let Sent::Subscribe { id, .. } = rig.sent().remove(0) else {
        panic!("no SUBSCRIBE");
    };
    rig.hub(&packets::suback(id, &[0, 0x80, 0]));
    assert!(matches!(
        rig.events()[0],
        Event::Disconnected {
            reason: LossReason::SubscriptionRefused,
            ..
        }
    ));
}

/// Begins to want methods; returns the SUBSCRIBE's id.
fn want_methods(rig: &mut Rig) -> u16 {
    rig.session.set_wanted(EVERYTHING, rig.now);
    let [Sent::Subscribe { id, .. }] = rig.sent()[..] else {
        panic!("no SUBSCRIBE");
    };
    id
}

const ALL_BUT_METHODS: Subscriptions = Subscriptions {
    methods: false,
    ..EVERYTHING
};

#[test]
fn methods_are_offered_after_suback_and_a_round_trip() {
    let mut rig = Rig::online(ALL_BUT_METHODS);
    rig.wait(millis(300));
    assert!(matches!(rig.event(), Event::Settled { .. }));
    let id = want_methods(&mut rig);
    rig.hub(&packets::pingresp());
    assert!(!rig.session.offers_methods(), "that answers nothing");
    rig.hub(&packets::suback(id, &[0]));
    assert_eq!(rig.sent(), [Sent::Pingreq]);
    let waiting = "$iothub/methods/POST/waiting/?$rid=1";
    rig.hub(&packets::publish(None, waiting, b""));
    assert!(matches!(rig.event(), Event::MethodRequested { .. }));
    assert!(!rig.session.offers_methods());
    rig.hub(&packets::pingresp());
    assert!(matches!(
        rig.event(),
        Event::MethodsOffered {
            epoch: ConnectionEpoch(1)
        }
    ));
    assert!(rig.session.offers_methods());
    assert!(rig.session.is_settled(), "that is another question");
}

#[test]
fn one_round_trip_answers_for_methods_and_messages() {
    let mut rig = Rig::new();
    rig.session.set_wanted(EVERYTHING, rig.now);
    rig.session.open(rig.now);
    rig.events();
    rig.session.handle_connected(credentials(), rig.now);
    rig.sent();
    rig.hub(&packets::connack(0, true));
    rig.events();
    let [Sent::Subscribe { id, .. }] = rig.sent()[..] else {
        panic!("no SUBSCRIBE");
    };
    rig.hub(&packets::suback(id, &[0, 0, 1, 0]));
    assert_eq!(rig.sent(), [Sent::Pingreq]);
    rig.hub(&packets::pingresp());
    assert!(matches!(rig.event(), Event::MethodsOffered { .. }));
    rig.wait(millis(300));
    assert!(matches!(rig.event(), Event::Settled { .. }));
}

#[test]
fn a_round_trip_for_methods_does_not_put_settling_off() {
    let mut rig = Rig::new();
    rig.session.set_wanted(ALL_BUT_METHODS, rig.now);
    rig.session.open(rig.now);
    rig.bring_online(false);
    rig.wait(millis(200));
    let id = want_methods(&mut rig);
    rig.hub(&packets::suback(id, &[0]));
    rig.wait(millis(100));
    assert!(matches!(rig.event(), Event::Settled { .. }));
    rig.hub(&packets::pingresp());
    assert!(matches!(rig.event(), Event::MethodsOffered { .. }));
}

#[test]
fn methods_are_not_offered_from_unsubscribe_on() {
    let mut rig = Rig::online(EVERYTHING);
    assert!(rig.session.offers_methods());
    rig.session.set_wanted(ALL_BUT_METHODS, rig.now);
    assert!(!rig.session.offers_methods());
    // The next subscription has a SUBACK and a round trip of its own.
    rig.session.set_wanted(EVERYTHING, rig.now);
    let sent = rig.sent();
    let [
        Sent::Unsubscribe { id: off, .. },
        Sent::Subscribe { id: on, .. },
    ] = sent[..]
    else {
        panic!("{sent:?}");
    };
    rig.hub(&packets::suback(on, &[0]));
    rig.hub(&packets::pingresp());
    assert!(!rig.session.offers_methods());
    rig.hub(&packets::unsuback(off));
    assert_eq!(rig.sent(), [Sent::Pingreq]);
    rig.hub(&packets::pingresp());
    assert!(rig.session.offers_methods());
}

#[test]
fn methods_are_not_offered_without_the_connection_or_after_a_farewell() {
    let mut rig = Rig::online(EVERYTHING);
    rig.reconnect(true);
    assert!(!rig.session.offers_methods());
    rig.acknowledge_all();
    assert!(rig.session.offers_methods());

    rig.session.close(rig.now);
    assert!(matches!(rig.sent()[..], [Sent::Unsubscribe { .. }]));
    assert!(!rig.session.offers_methods());
}
