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
fn a_frozen_connection_is_neither_read_nor_answered_until_it_thaws() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    inject(
        &mut rig,
        json!({"fault": {"kind": "freeze-connection", "millis": 600_000}}),
    );
    assert!(!rig.hub.wants_input(id));
    assert_eq!(rig.send(id, &publish(EVENTS, b"late", Some(7))), []);
    rig.hub
        .send_message(&dev1(), Default::default(), rig.now)
        .unwrap();
    // Longer than the keep-alive, and TCP stays.
    rig.wait(Duration::from_millis(599_999));
    assert_eq!(rig.got(id), []);
    assert_eq!(rig.hub.telemetry_next(), 1);
    rig.wait(Duration::from_millis(1));
    let got = rig.got(id);
    assert!(matches!(got[0], Got::Publish(_)), "{got:?}");
    assert_eq!(got[1], Got::Puback(7));
    assert!(rig.hub.wants_input(id));
}

#[test]
fn a_frozen_connection_is_taken_over_like_any_other() {
    let mut rig = Rig::new();
    let (old, _) = rig.connect();
    inject(&mut rig, json!({"fault": {"kind": "freeze-connection"}}));
    let new = rig.accept();
    rig.hub.handle_input(new, &Hello::dev1().packet(), rig.now);
    assert_eq!(rig.got(old), [Got::Closed(CloseReason::TakenOver)]);
}

#[test]
fn a_puback_comes_twice() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    inject(
        &mut rig,
        json!({"times": 1, "fault": {"kind": "duplicate-puback"}}),
    );
    let twice = rig.send(id, &publish(EVENTS, b"", Some(1)));
    assert_eq!(twice, [Got::Puback(1), Got::Puback(1)]);
    let once = rig.send(id, &publish(EVENTS, b"", Some(2)));
    assert_eq!(once, [Got::Puback(2)]);
}

#[test]
fn tokens_that_were_used_expire_and_later_ones_do_not() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    inject(&mut rig, json!({"fault": {"kind": "expire-tokens"}}));
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::TokenExpired)]);
    let (_, got) = rig.connect();
    assert!(matches!(got[0], Got::Connack { code: 5, .. }), "{got:?}");
    let later = expiry().saturating_add(Duration::from_secs(1));
    let renewed = Hello {
        password: key().sign(&sas::resource(&whom("dev1")), None, later),
        ..Hello::dev1()
    };
    assert_eq!(rig.say(&renewed).1, [Got::accepted(true)]);
}

#[test]
fn a_lost_session_takes_its_subscriptions_with_it() {
    let mut rig = Rig::new();
    rig.subscribed(&[(MESSAGES, 1)]);
    inject(
        &mut rig,
        json!({"times": 1, "fault": {"kind": "lose-session"}}),
    );
    let (id, got) = rig.connect();
    assert_eq!(got, [Got::accepted(false)]);
    rig.hub
        .send_message(&dev1(), Default::default(), rig.now)
        .unwrap();
    assert_eq!(rig.got(id), []);
    assert_eq!(rig.connect().1, [Got::accepted(true)]);
}

#[test]
fn the_clock_jumps_forward_over_the_end_of_a_token_and_back() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    let two_years = 2 * 365 * 24 * 3_600_000_i64;
    inject(
        &mut rig,
        json!({"fault": {"kind": "jump-clock", "by_millis": two_years}}),
    );
    let before = rig.now;
    rig.now = rig.hub.time(before);
    assert_eq!(
        rig.now.utc.unix_millis() - before.utc.unix_millis(),
        two_years
    );
    rig.hub.handle_timeout(rig.now);
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::TokenExpired)]);

    inject(
        &mut rig,
        json!({"fault": {"kind": "jump-clock", "by_millis": -two_years}}),
    );
    rig.now = rig.hub.time(before);
    assert_eq!(rig.now.utc, before.utc);
    assert_eq!(rig.connect().1, [Got::accepted(true)]);
}

#[test]
fn an_unreachable_hub_closes_and_says_nothing_for_its_time() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    inject(
        &mut rig,
        json!({"for_millis": 5000, "fault": {"kind": "unreachable"}}),
    );
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::Dropped)]);
    rig.wait(Duration::from_millis(4999));
    assert_eq!(rig.connect().1, [Got::Closed(CloseReason::Unreachable)]);
    assert_eq!(request(&mut rig, Api::Device), Some(RequestFault::Drop));
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.connect().1, [Got::accepted(true)]);
    assert_eq!(rig.hub.faults().count(), 0);
}

#[test]
fn a_poisonous_payload_closes_the_connection_before_it_is_taken() {
    let mut rig = Rig::new();
    inject(
        &mut rig,
        json!({"fault": {"kind": "close-on-payload", "contains": {"text": "poison"}}}),
    );
    let (id, _) = rig.connect();
    let harmless = rig.send(id, &publish(EVENTS, b"poiso", Some(1)));
    assert_eq!(harmless, [Got::Puback(1)]);
    let got = rig.send(id, &publish(EVENTS, b"a poisoned well", Some(2)));
    assert_eq!(got, [Got::Closed(CloseReason::Dropped)]);
    assert_eq!(rig.hub.telemetry_next(), 2);
}

#[test]
fn throttled_telemetry_waits_in_vain_and_its_connection_is_closed() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    inject(
        &mut rig,
        json!({"times": 1, "fault": {"kind": "throttle", "millis": 1000}}),
    );
    assert_eq!(rig.send(id, &publish(EVENTS, b"", Some(1))), []);
    assert_eq!(rig.send(id, &publish(EVENTS, b"", Some(2))), []);
    rig.wait(Duration::from_millis(999));
    assert_eq!(rig.got(id), []);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::Throttled)]);
    assert_eq!(rig.hub.telemetry_next(), 1, "nothing was taken");
}

#[test]
fn twin_requests_come_late_or_are_throttled() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(TWIN_ANSWERS, 0)]);
    let get = publish("$iothub/twin/GET/?$rid=1", b"", None);
    inject(
        &mut rig,
        json!({"times": 1, "fault": {"kind": "delay-twin-requests", "millis": 100}}),
    );
    inject(
        &mut rig,
        json!({"times": 1, "fault": {"kind": "throttle", "millis": 50}}),
    );
    assert_eq!(rig.send(id, &get), []);
    assert_eq!(rig.send(id, &get), []);
    rig.wait(Duration::from_millis(99));
    assert_eq!(rig.got(id), []);
    rig.wait(Duration::from_millis(1));
    let got = rig.got(id);
    assert!(got[0].message().topic.contains("/200/"), "{got:?}");
    assert!(got[1].message().topic.contains("/429/"), "{got:?}");
    assert!(got[1].message().payload.contains("429003"), "{got:?}");
}

#[test]
fn an_answer_to_a_method_is_lost_or_late() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(METHODS, 0)]);
    for (fault, wait, is_answered) in [
        (json!({"kind": "swallow-method-answer"}), 5000, false),
        (
            json!({"kind": "delay-method-answer", "millis": 4000}),
            4000,
            true,
        ),
        (
            json!({"kind": "delay-method-answer", "millis": 5001}),
            5000,
            false,
        ),
    ] {
        inject(&mut rig, json!({"times": 1, "fault": fault}));
        let call = MethodCall {
            name: "reboot".parse().unwrap(),
            payload: Bytes::new(),
            response_timeout: Duration::from_secs(5),
            connect_timeout: Duration::ZERO,
        };
        rig.hub.invoke_method(&whom("dev1"), call, rig.now).unwrap();
        let request = rig.got(id);
        let rid = request[0].message().topic.split_once("$rid=").unwrap().1;
        let answer = format!("$iothub/methods/res/200/?$rid={rid}");
        rig.hub
            .handle_input(id, &publish(&answer, b"", None), rig.now);
        rig.wait(Duration::from_millis(wait - 1));
        assert_eq!(rig.done(), []);
        rig.wait(Duration::from_millis(1));
        let done = rig.done();
        assert_eq!(done[0].1.is_ok(), is_answered, "{done:?}");
    }
}

fn request(rig: &mut Rig, api: Api) -> Option<RequestFault> {
    rig.hub.request_fault(api, Some(dev1()), None, rig.now)
}

#[test]
fn requests_fail_by_api_and_device() {
    let mut rig = Rig::new();
    inject(
        &mut rig,
        json!({"device": "dev1", "fault": {"kind": "fail-requests", "api": "device", "status": 503}}),
    );
    let fail = RequestFault::Fail(503.try_into().unwrap());
    assert_eq!(request(&mut rig, Api::Device), Some(fail));
    assert_eq!(request(&mut rig, Api::Service), None);
    let others = [Some("dev2".parse().unwrap()), None];
    for other in others {
        let fault = rig.hub.request_fault(Api::Device, other, None, rig.now);
        assert_eq!(fault, None);
    }
}

#[test]
fn a_rule_begins_after_its_time_and_ends_after_its_time() {
    let mut rig = Rig::new();
    inject(
        &mut rig,
        json!({"after_millis": 1000, "for_millis": 1000, "fault": {"kind": "drop-requests"}}),
    );
    for (wait, expected) in [
        (999, None),
        (1, Some(RequestFault::Drop)),
        (999, Some(RequestFault::Drop)),
        (1, None),
    ] {
        rig.wait(Duration::from_millis(wait));
        assert_eq!(request(&mut rig, Api::Service), expected);
    }
    assert_eq!(rig.hub.faults().count(), 0);
}

#[test]
fn what_happens_once_happens_after_its_time() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    let pending = inject(
        &mut rig,
        json!({"after_millis": 1000, "fault": {"kind": "drop-connection"}}),
    );
    assert!(pending.is_some());
    rig.wait(Duration::from_millis(999));
    assert_eq!(rig.got(id), []);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::Dropped)]);
    assert_eq!(rig.hub.faults().count(), 0);
}

/// Which of the first hundred messages of each device are not acknowledged.
fn course(seed: u64, devices: &[&str]) -> Vec<Vec<bool>> {
    let mut rig = Rig::with(|config| config.fault_seed = seed);
    rig.add_device("dev2");
    inject(
        &mut rig,
        json!({"probability": 0.3, "fault": {"kind": "swallow-puback"}}),
    );
    let ids: Vec<_> = devices
        .iter()
        .map(|device| rig.say(&Hello::of(device)).0)
        .collect();
    let mut courses = vec![Vec::new(); ids.len()];
    for packet_id in 1..=100 {
        for ((id, device), course) in ids.iter().zip(devices).zip(&mut courses) {
            let topic = format!("devices/{device}/messages/events/");
            let got = rig.send(*id, &publish(&topic, b"", Some(packet_id)));
            course.push(got.is_empty());
        }
    }
    courses
}

#[test]
fn chances_repeat_with_the_seed_and_do_not_hang_on_other_devices() {
    let both = course(1, &["dev1", "dev2"]);
    assert_eq!(both, course(1, &["dev1", "dev2"]));
    assert_eq!(both[..1], course(1, &["dev1"]));
    assert_ne!(both[0], both[1]);
    assert_ne!(both, course(2, &["dev1", "dev2"]));
    let struck = both.concat().iter().filter(|struck| **struck).count();
    assert!((40..=80).contains(&struck), "{struck} of 200, 60 expected");
}

#[test]
fn no_more_rules_than_there_may_be() {
    let mut rig = Rig::new();
    for _ in 0..100 {
        inject(&mut rig, json!({"fault": {"kind": "swallow-puback"}}));
    }
    let rule = json!({"fault": {"kind": "swallow-puback"}});
    let rule = serde_json::from_value(rule).unwrap();
    let error = rig.hub.inject(rule, rig.now).unwrap_err();
    assert_eq!(error.code, ErrorCode::ArgumentInvalid);
}

#[test]
fn rules_are_listed_and_cleared() {
    let mut rig = Rig::new();
    let first = inject(&mut rig, json!({"fault": {"kind": "swallow-puback"}})).unwrap();
    inject(&mut rig, json!({"fault": {"kind": "ignore-unsubscribe"}}));
    assert_eq!(rig.hub.faults().count(), 2);
    assert_eq!(rig.hub.clear_faults(Some(first)), 1);
    assert_eq!(rig.hub.clear_faults(None), 1);
    assert_eq!(rig.hub.faults().count(), 0);
}

#[test]
fn a_rule_that_makes_no_sense_is_refused() {
    for (bad, why) in [
        (
            json!({"fault": {"kind": "refuse-connect", "code": 0}}),
            "1 to 5",
        ),
        (
            json!({"fault": {"kind": "refuse-connect", "code": 6}}),
            "1 to 5",
        ),
        (json!({"fault": {"kind": "nonsense"}}), "drop-connection"),
        (
            json!({"fault": {"kind": "swallow-puback"}, "often": 1}),
            "often",
        ),
        (
            json!({"times": 0, "fault": {"kind": "swallow-puback"}}),
            "nonzero",
        ),
        (
            json!({"fault": {"kind": "fail-twin-requests", "status": 399}}),
            "400 to 599",
        ),
        (
            json!({"fault": {"kind": "fail-twin-requests", "status": 600}}),
            "400 to 599",
        ),
        (
            json!({"probability": 0.0, "fault": {"kind": "swallow-puback"}}),
            "over 0",
        ),
        (
            json!({"probability": 1.01, "fault": {"kind": "swallow-puback"}}),
            "at most 1",
        ),
        (
            json!({"for_millis": 1, "fault": {"kind": "drop-connection"}}),
            "once",
        ),
        (
            json!({"device": "dev1", "fault": {"kind": "jump-clock", "by_millis": 1}}),
            "whole hub",
        ),
        (
            json!({"after_millis": u64::MAX, "fault": {"kind": "swallow-puback"}}),
            "a year",
        ),
        (
            json!({"fault": {"kind": "close-on-payload", "contains": {"text": ""}}}),
            "1 to 256",
        ),
        (
            json!({"fault": {"kind": "close-on-payload", "contains": {"base64": "?"}}}),
            "base64",
        ),
    ] {
        let error = serde_json::from_value::<FaultRule>(bad.clone()).unwrap_err();
        assert!(error.to_string().contains(why), "{bad}: {error}");
    }
}

#[test]
fn a_hub_that_moves_closes_every_connection_and_forgets_nothing() {
    let mut rig = Rig::with(|config| config.has_other_address = true);
    let (id, _) = rig.connect();
    assert!(!rig.hub.is_moved());
    let rule = json!({"fault": {"kind": "fail-over"}});
    assert_eq!(inject(&mut rig, rule.clone()), None, "it happens once");
    assert!(rig.hub.is_moved());
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::Moved)]);
    assert_eq!(rig.connect().1, [Got::accepted(true)]);
    inject(&mut rig, rule);
    assert!(!rig.hub.is_moved());
}

#[test]
fn a_hub_with_one_address_does_not_move() {
    let mut rig = Rig::new();
    let rule: FaultRule = serde_json::from_value(json!({"fault": {"kind": "fail-over"}})).unwrap();
    let error = rig.hub.inject(rule, rig.now).unwrap_err();
    assert_eq!(error.code, ErrorCode::ArgumentInvalid);
    assert!(!rig.hub.is_moved());
}
