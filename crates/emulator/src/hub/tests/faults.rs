use iothub::ErrorCode;
use serde_json::json;

use super::*;

fn inject(rig: &mut Rig, rule: Value) -> Option<FaultId> {
    let rule: FaultRule = serde_json::from_value(rule).unwrap();
    rig.hub.inject(rule, rig.now).unwrap()
}

#[test]
fn a_connection_is_dropped_on_request() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    assert_eq!(
        inject(
            &mut rig,
            json!({"device": "other", "fault": {"kind": "drop-connection"}})
        ),
        None
    );
    assert_eq!(rig.got(id), []);
    inject(&mut rig, json!({"fault": {"kind": "drop-connection"}}));
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::Dropped)]);
}

#[test]
fn connect_is_refused_so_many_times() {
    let mut rig = Rig::new();
    inject(
        &mut rig,
        json!({"times": 2, "fault": {"kind": "refuse-connect", "code": 3}}),
    );
    for _ in 0..2 {
        let (_, got) = rig.connect();
        assert!(matches!(got[0], Got::Connack { code: 3, .. }), "{got:?}");
    }
    assert_eq!(rig.connect().1, [Got::accepted(false)]);
}

#[test]
fn a_swallowed_puback_never_comes_and_the_message_was_taken() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    inject(
        &mut rig,
        json!({"times": 1, "fault": {"kind": "swallow-puback"}}),
    );
    assert_eq!(rig.send(id, &publish(EVENTS, b"", Some(1))), []);
    assert_eq!(
        rig.send(id, &publish(EVENTS, b"", Some(2))),
        [Got::Puback(2)]
    );
    assert_eq!(rig.hub.telemetry_next(), 3);
}

#[test]
fn a_delayed_puback_keeps_the_order() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    inject(
        &mut rig,
        json!({"times": 1, "fault": {"kind": "delay-puback", "millis": 500}}),
    );
    assert_eq!(rig.send(id, &publish(EVENTS, b"", Some(1))), []);
    assert_eq!(rig.send(id, &publish(EVENTS, b"", Some(2))), []);
    rig.wait(Duration::from_millis(499));
    assert_eq!(rig.got(id), []);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.got(id), [Got::Puback(1), Got::Puback(2)]);
}

#[test]
fn sixteen_held_acknowledgements_stop_the_reading() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    inject(
        &mut rig,
        json!({"fault": {"kind": "delay-puback", "millis": 500}}),
    );
    for packet_id in 1..=16 {
        assert!(rig.hub.wants_input(id));
        rig.send(id, &publish(EVENTS, b"", Some(packet_id)));
    }
    assert!(!rig.hub.wants_input(id));
    rig.wait(Duration::from_millis(500));
    assert!(rig.hub.wants_input(id));
}

#[test]
fn queued_messages_are_held_after_connack() {
    let mut rig = Rig::new();
    rig.subscribed(&[(MESSAGES, 1)]);
    inject(
        &mut rig,
        json!({"device": "dev1", "fault": {"kind": "hold-messages", "millis": 2000}}),
    );
    let (id, _) = rig.connect();
    rig.hub
        .send_message(&dev1(), Default::default(), rig.now)
        .unwrap();
    rig.wait(Duration::from_millis(1999));
    assert_eq!(rig.got(id), []);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.got(id).len(), 1);
}

#[test]
fn twin_requests_fail_or_are_ignored() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(TWIN_ANSWERS, 0)]);
    let get = publish("$iothub/twin/GET/?$rid=1", b"", None);
    inject(
        &mut rig,
        json!({"times": 1, "fault": {"kind": "ignore-twin-requests"}}),
    );
    inject(
        &mut rig,
        json!({"times": 1, "fault": {"kind": "fail-twin-requests", "status": 429}}),
    );
    assert_eq!(rig.send(id, &get), []);
    let got = rig.send(id, &get);
    assert_eq!(got[0].message().topic, "$iothub/twin/res/429/?$rid=1");
    assert!(got[0].message().payload.contains("429001"));
    assert!(rig.send(id, &get)[0].message().topic.contains("/200/"));
}

#[test]
fn an_ignored_unsubscribe_is_acknowledged_and_forgotten() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    inject(&mut rig, json!({"fault": {"kind": "ignore-unsubscribe"}}));
    assert_eq!(rig.send(id, &unsubscribe(2, MESSAGES)), [Got::Unsuback(2)]);
    rig.hub
        .send_message(&dev1(), Default::default(), rig.now)
        .unwrap();
    assert_eq!(rig.got(id).len(), 1);
}

#[test]
fn rules_are_listed_and_cleared() {
    let mut rig = Rig::new();
    let first = inject(&mut rig, json!({"fault": {"kind": "swallow-puback"}})).unwrap();
    inject(&mut rig, json!({"fault": {"kind": "ignore-unsubscribe"}}));
    assert_eq!(rig.hub.faults().len(), 2);
    assert_eq!(rig.hub.clear_faults(Some(first)), 1);
    assert_eq!(rig.hub.clear_faults(None), 1);
    assert_eq!(rig.hub.faults().len(), 0);
}

#[test]
fn a_rule_that_makes_no_sense_is_refused() {
    let mut rig = Rig::new();
    for bad in [
        json!({"fault": {"kind": "refuse-connect", "code": 0}}),
        json!({"fault": {"kind": "refuse-connect", "code": 6}}),
        json!({"fault": {"kind": "nonsense"}}),
        json!({"fault": {"kind": "swallow-puback"}, "often": 1}),
    ] {
        assert!(
            serde_json::from_value::<FaultRule>(bad.clone()).is_err(),
            "{bad}"
        );
    }
    for bad in [
        json!({"times": 0, "fault": {"kind": "swallow-puback"}}),
        json!({"fault": {"kind": "fail-twin-requests", "status": 204}}),
    ] {
        let rule = serde_json::from_value(bad).unwrap();
        let error = rig.hub.inject(rule, rig.now).unwrap_err();
        assert_eq!(error.code, ErrorCode::ArgumentInvalid);
    }
}
