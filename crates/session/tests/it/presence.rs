//! What the hub is told to deliver, and so what it tells the cloud about the device.

use tombolo_session::{Event, LossReason, Subscriptions};

use crate::{
    packets::{self, Sent},
    rig::{EVERYTHING, NOTHING, Rig, credentials},
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
