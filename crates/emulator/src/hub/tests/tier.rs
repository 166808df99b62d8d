use std::num::NonZeroU32;

use iothub::{CloudMessage, ErrorCode};
use serde_json::json;

use super::*;

fn capacity(tier: Tier, units: u32) -> Capacity {
    Capacity::new(tier, NonZeroU32::new(units).unwrap()).unwrap()
}

fn rig(tier: Tier, units: u32) -> Rig {
    Rig::with(|config| config.capacity = Some(capacity(tier, units)))
}

#[test]
fn each_throttle_lets_its_number_through_and_makes_the_next_wait() {
    use Operation::{
        CloudReceives, CloudSends, Connects, FileUploads, Jobs, Methods, Queries, Registry,
        Telemetry, TwinReads, TwinUpdates,
    };
    // The table of "IoT Hub quotas and throttling", written out by hand: tier, units, then in a second or in a minute.
    for (tier, units, second, minute) in [
        (
            Tier::F1,
            1,
            [
                (Connects, 100),
                (Telemetry, 100),
                (Methods, 40),
                (TwinReads, 100),
                (TwinUpdates, 50),
            ],
            [100, 1000, 100, 20, 100, 100],
        ),
        (
            Tier::S1,
            1,
            [
                (Connects, 100),
                (Telemetry, 100),
                (Methods, 40),
                (TwinReads, 100),
                (TwinUpdates, 50),
            ],
            [100, 1000, 100, 20, 100, 100],
        ),
        (
            Tier::S1,
            10,
            [
                (Connects, 120),
                (Telemetry, 120),
                (Methods, 400),
                (TwinReads, 100),
                (TwinUpdates, 50),
            ],
            [1000, 10_000, 1000, 200, 1000, 1000],
        ),
        (
            Tier::S2,
            1,
            [
                (Connects, 120),
                (Telemetry, 120),
                (Methods, 120),
                (TwinReads, 100),
                (TwinUpdates, 50),
            ],
            [100, 1000, 100, 20, 100, 100],
        ),
        (
            Tier::S2,
            20,
            [
                (Connects, 2400),
                (Telemetry, 2400),
                (Methods, 2400),
                (TwinReads, 200),
                (TwinUpdates, 100),
            ],
            [2000, 20_000, 2000, 400, 2000, 2000],
        ),
        (
            Tier::S3,
            1,
            [
                (Connects, 6000),
                (Telemetry, 6000),
                (Methods, 6144),
                (TwinReads, 500),
                (TwinUpdates, 250),
            ],
            [5000, 50_000, 5000, 1000, 5000, 5000],
        ),
    ] {
        let in_a_minute = [
            CloudSends,
            CloudReceives,
            FileUploads,
            Queries,
            Registry,
            Jobs,
        ];
        let limits = second
            .into_iter()
            .chain(in_a_minute.into_iter().zip(minute));
        for (operation, limit) in limits {
            let Rig { mut hub, now } = rig(tier, units);
            let what = format!("{tier} {units} {operation:?} {limit}");
            let bulk = hub.throttle(operation, limit - 1, now);
            assert_eq!(bulk, Ok(Duration::ZERO), "{what}");
            let last = hub.throttle(operation, 1, now);
            assert_eq!(last, Ok(Duration::ZERO), "{what}");
            let next = hub.throttle(operation, 1, now);
            assert!(next.is_ok_and(|wait| !wait.is_zero()), "{what}");
        }
    }
}

#[test]
fn a_turn_that_comes_after_three_seconds_is_refused() {
    // Twenty queries in a minute: one in three seconds.
    let Rig { mut hub, now } = rig(Tier::S1, 1);
    hub.throttle(Operation::Queries, 20, now).unwrap();
    let wait = hub.throttle(Operation::Queries, 1, now);
    assert_eq!(wait, Ok(Duration::from_secs(3)));
    let error = hub.throttle(Operation::Queries, 1, now).unwrap_err();
    assert_eq!(error.code, ErrorCode::ThrottlingBacklogTimeout);
    assert!(error.message.contains("Wait 10 seconds"), "{error}");
    let usage = hub.usage(now);
    let queries = usage.throttles[Operation::Queries as usize];
    assert_eq!(
        (queries.passed, queries.delayed, queries.refused),
        (21, 1, 1)
    );
}

#[test]
fn the_messages_of_a_day_are_counted_and_the_day_begins_at_midnight_utc() {
    for (tier, units, messages) in [
        (Tier::F1, 1, 8000),
        (Tier::S1, 1, 400_000),
        (Tier::S1, 2, 800_000),
        (Tier::S2, 1, 6_000_000),
        (Tier::S3, 1, 300_000_000),
    ] {
        let Rig { mut hub, now } = rig(tier, units);
        let step = usize::try_from(hub.usage(now).meter_bytes).unwrap();
        hub.charge([step * (messages - 1)], now).unwrap();
        assert_eq!(hub.usage(now).messages_today, messages as u64 - 1);
        hub.charge([0], now).unwrap();
        let error = hub.charge([0], now).unwrap_err();
        assert_eq!(error.code, ErrorCode::IotHubQuotaExceeded);
        // The rig's day begins at midnight.
        let at = |seconds| Now {
            utc: now.utc.saturating_add(Duration::from_secs(seconds)),
            ..now
        };
        assert!(hub.charge([0], at(24 * 3600 - 1)).is_err());
        hub.charge([0], at(24 * 3600)).unwrap();
        assert_eq!(hub.usage(at(24 * 3600)).messages_today, 1);
    }
}

#[test]
fn a_message_counts_in_steps_of_its_tier() {
    for (tier, step) in [(Tier::F1, 512), (Tier::S1, 4096)] {
        let Rig { mut hub, now } = rig(tier, 1);
        for (bytes, counted) in [(0, 1), (step - 1, 1), (step, 1), (step + 1, 2)] {
            let before = hub.usage(now).messages_today;
            hub.charge([bytes], now).unwrap();
            assert_eq!(hub.usage(now).messages_today - before, counted, "{bytes}");
        }
    }
}

#[test]
fn a_free_hub_has_five_hundred_devices_and_one_unit() {
    let mut rig = rig(Tier::F1, 1);
    for number in 2..=500 {
        rig.add_device(&format!("dev{number}"));
    }
    let one_more = "dev501".parse().unwrap();
    let error = rig
        .hub
        .create_device(&one_more, DeviceSpec::default(), rig.now)
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::TooManyDevices);
    let two = NonZeroU32::new(2).unwrap();
    assert_eq!(Capacity::new(Tier::F1, two), Err(TooManyUnits));
    assert_eq!("s2".parse(), Ok(Tier::S2));
    assert_eq!("B1".parse::<Tier>(), Err(UnknownTier));
}

#[test]
fn telemetry_waits_for_its_turn_and_is_not_taken_when_that_is_too_late() {
    let mut rig = rig(Tier::S1, 1);
    let (id, _) = rig.connect();
    rig.hub.throttle(Operation::Telemetry, 99, rig.now).unwrap();
    let got = rig.send(id, &publish(EVENTS, b"", Some(1)));
    assert_eq!(got, [Got::Puback(1)], "the hundredth");
    assert_eq!(rig.send(id, &publish(EVENTS, b"", Some(2))), []);
    rig.wait(Duration::from_millis(10));
    assert_eq!(
        rig.got(id),
        [Got::Puback(2)],
        "a hundredth of a second later"
    );

    rig.hub
        .throttle(Operation::Telemetry, 300, rig.now)
        .unwrap();
    assert_eq!(rig.send(id, &publish(EVENTS, b"", Some(3))), []);
    rig.wait(Duration::from_millis(2999));
    assert_eq!(rig.got(id), []);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::Throttled)]);
    assert_eq!(rig.hub.telemetry_next(), 3);
}

#[test]
fn a_connection_waits_for_its_turn_or_is_refused() {
    let mut rig = rig(Tier::S1, 1);
    rig.hub.throttle(Operation::Connects, 100, rig.now).unwrap();
    let (id, got) = rig.connect();
    assert_eq!(got, []);
    rig.wait(Duration::from_millis(10));
    assert_eq!(rig.got(id), [Got::accepted(false)]);
    assert_eq!(
        rig.send(id, &publish(EVENTS, b"", Some(1))),
        [Got::Puback(1)]
    );
    rig.hub.throttle(Operation::Connects, 300, rig.now).unwrap();
    let (_, got) = rig.connect();
    assert!(matches!(got[0], Got::Connack { code: 3, .. }), "{got:?}");
}

#[test]
fn twin_requests_are_throttled_with_429() {
    let mut rig = rig(Tier::S1, 1);
    let id = rig.subscribed(&[(TWIN_ANSWERS, 0)]);
    let get = publish("$iothub/twin/GET/?$rid=1", b"", None);
    rig.hub
        .throttle(Operation::TwinReads, 100, rig.now)
        .unwrap();
    assert_eq!(rig.send(id, &get), []);
    rig.wait(Duration::from_millis(10));
    assert!(rig.got(id)[0].message().topic.contains("/200/"));
    rig.hub
        .throttle(Operation::TwinReads, 300, rig.now)
        .unwrap();
    let got = rig.send(id, &get);
    assert!(got[0].message().topic.contains("/429/"), "{got:?}");
    assert!(got[0].message().payload.contains("429003"), "{got:?}");
}

#[test]
fn a_spent_quota_ends_everything_that_is_charged_for() {
    let mut rig = rig(Tier::F1, 1);
    let id = rig.subscribed(&[(TWIN_ANSWERS, 0), (METHODS, 0)]);
    rig.hub.charge([512 * 8000], rig.now).unwrap();
    for request in ["twin/GET/?$rid=1", "twin/PATCH/properties/reported/?$rid=1"] {
        let got = rig.send(id, &publish(&format!("$iothub/{request}"), b"{}", None));
        assert!(got[0].message().topic.contains("/403/"), "{got:?}");
        assert!(got[0].message().payload.contains("403002"), "{got:?}");
    }
    let sent = rig
        .hub
        .send_message(&dev1(), CloudMessage::default(), rig.now)
        .map(|_| ());
    let call = MethodCall {
        name: "reboot".parse().unwrap(),
        payload: Bytes::new(),
        response_timeout: Duration::from_secs(30),
        connect_timeout: Duration::ZERO,
    };
    let invoked = rig
        .hub
        .invoke_method(&whom("dev1"), call, rig.now)
        .map(|_| ());
    for refused in [sent, invoked] {
        assert_eq!(refused.unwrap_err().code, ErrorCode::IotHubQuotaExceeded);
    }
    // Connections are accepted all the same, and cut at the first message.
    let (id, got) = rig.connect();
    assert_eq!(got, [Got::accepted(true)]);
    let got = rig.send(id, &publish(EVENTS, b"", Some(1)));
    assert_eq!(got, [Got::Closed(CloseReason::QuotaExceeded)]);
}

#[test]
fn without_a_tier_all_is_counted_and_nothing_refused() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    rig.send(id, &publish(EVENTS, &[b'x'; 5000], Some(1)));
    let usage = serde_json::to_value(rig.hub.usage(rig.now)).unwrap();
    assert_eq!(usage["tier"], json!(null));
    assert_eq!(usage["messagesToday"], 2);
    assert_eq!(
        usage["throttles"][1],
        json!({
            "operation": "telemetry", "limit": null, "perSeconds": null,
            "passed": 1, "delayed": 0, "refused": 0,
        })
    );
}

#[test]
fn counters_end_where_numbers_do() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        rig.hub
            .throttle(Operation::Methods, u64::MAX, rig.now)
            .unwrap();
        let sizes = std::iter::repeat_n(usize::MAX, 4097);
        rig.hub.charge(sizes, rig.now).unwrap();
    }
    let usage = rig.hub.usage(rig.now);
    assert_eq!(usage.messages_today, u64::MAX);
    let methods = usage.throttles[Operation::Methods as usize];
    assert_eq!(methods.passed, u64::MAX);
}
