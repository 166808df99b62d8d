use super::*;

#[track_caller]
fn assert_refused(rig: &mut Rig, hello: &Hello, why: &str) {
    let (_, got) = rig.say(hello);
    assert_eq!(
        got,
        [
            Got::Connack {
                code: 5,
                session_present: false
            },
            Got::Closed(CloseReason::Refused {
                code: 5,
                why: why.to_owned()
            }),
        ]
    );
}

#[test]
fn both_device_keys_and_the_device_policy_open_a_connection() {
    let mut rig = Rig::new();
    let (_, got) = rig.connect();
    assert_eq!(got, [Got::accepted(false)]);

    let resource = format!("{HUB}/devices/dev1");
    let secondary = Key::from_bytes(vec![9; 32]).unwrap();
    let (_, got) = rig.say(&Hello {
        password: secondary.sign(&resource, None, expiry()),
        ..Hello::dev1()
    });
    assert_eq!(got, [Got::accepted(true)]);

    let policy = rig.hub.policies()[2].clone();
    assert_eq!(policy.name, "device");
    let all_devices = format!("{HUB}/devices");
    let (_, got) = rig.say(&Hello {
        password: policy.primary.sign(&all_devices, Some("device"), expiry()),
        ..Hello::dev1()
    });
    assert_eq!(got, [Got::accepted(true)]);
}

#[test]
fn a_wrong_credential_is_refused_with_5_whatever_is_wrong() {
    let mut rig = Rig::new();
    let sign = |resource: &str, policy| key().sign(resource, policy, expiry());
    let resource = format!("{HUB}/devices/dev1");
    let with = |password: String| Hello {
        password,
        ..Hello::dev1()
    };
    let other_key = Key::from_bytes(vec![1; 32]).unwrap();
    let service = rig.hub.policies()[1].primary.clone();
    let past = Timestamp::from_unix_seconds(1_735_689_600 - 300);
    for (password, why) in [
        (
            other_key.sign(&resource, None, expiry()),
            "the signature is wrong: it was made with another key",
        ),
        (
            sign(&format!("{HUB}/devices/dev"), None),
            "the token is for another hub, device or module (sr)",
        ),
        (
            sign("other.example/devices/dev1", None),
            "the token is for another hub, device or module (sr)",
        ),
        (key().sign(&resource, None, past), "the token has expired"),
        (
            sign(&resource, Some("nobody")),
            "the token names no shared access policy of this hub (skn)",
        ),
        (
            service.sign(&resource, Some("service"), expiry()),
            "the policy of the token does not grant DeviceConnect",
        ),
        ("secret".to_owned(), "there is no shared access signature"),
    ] {
        assert_refused(&mut rig, &with(password), why);
    }
    assert_refused(&mut rig, &Hello::of("dev2"), "no such device or module");
}

#[test]
fn a_wrong_name_is_refused_with_5() {
    let mut rig = Rig::new();
    let hello = |client_id: &str, username: &str| Hello {
        client_id: client_id.to_owned(),
        username: username.to_owned(),
        ..Hello::dev1()
    };
    let other = "the client id is not the identity in the username";
    assert_refused(&mut rig, &hello("Dev1", &Hello::dev1().username), other);
    assert_refused(
        &mut rig,
        &hello("dev1", "h/dev1"),
        "the username names another hub",
    );
    let (_, got) = rig.say(&hello("dev1", &format!("{}/dev1", HUB.to_uppercase())));
    assert_eq!(
        got,
        [Got::accepted(false)],
        "host names have no case; the query may be missing"
    );
}

#[test]
fn a_disabled_device_is_refused_and_loses_its_connection() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    let info = rig.hub.device(&dev1()).unwrap();
    let spec = DeviceSpec {
        status: DeviceStatus::Disabled,
        authentication: Some(info.authentication),
        ..DeviceSpec::default()
    };
    rig.hub
        .update_device(&dev1(), spec, &IfMatch::Any, rig.now)
        .unwrap();
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::DeviceDisabled)]);
    assert_refused(&mut rig, &Hello::dev1(), "the device is disabled");
}

#[test]
fn another_protocol_level_is_refused_with_1() {
    let mut rig = Rig::new();
    let mut packet = Hello::dev1().packet();
    let level = packet.windows(4).position(|w| w == b"MQTT").unwrap() + 4;
    packet[level] = 5;
    let id = rig.accept();
    let got = rig.send(id, &packet);
    assert!(matches!(got[0], Got::Connack { code: 1, .. }), "{got:?}");
    assert!(matches!(
        got[1],
        Got::Closed(CloseReason::Refused { code: 1, .. })
    ));
}

#[test]
fn the_first_packet_is_connect_and_the_only_one() {
    let mut rig = Rig::new();
    for packet in [
        publish(EVENTS, b"", None),
        PINGREQ.to_vec(),
        subscribe(1, &[(METHODS, 0)]),
    ] {
        let id = rig.accept();
        assert_eq!(rig.send(id, &packet), [Got::Closed(CloseReason::NoConnect)]);
    }
    let (id, _) = rig.connect();
    let again = rig.send(id, &Hello::dev1().packet());
    assert_eq!(again, [Got::Closed(CloseReason::SecondConnect)]);
}

#[test]
fn a_silent_connection_is_closed_after_60_s() {
    let mut rig = Rig::new();
    let id = rig.accept();
    rig.wait(Duration::from_secs(59));
    assert_eq!(rig.got(id), []);
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::ConnectTimeout)]);
}

#[test]
fn a_second_connection_takes_over() {
    let mut rig = Rig::new();
    let (first, _) = rig.connect();
    let second = rig.accept();
    rig.hub
        .handle_input(second, &Hello::dev1().packet(), rig.now);
    assert_eq!(rig.got(first), [Got::Closed(CloseReason::TakenOver)]);
    assert_eq!(rig.send(second, &PINGREQ), [Got::Pingresp]);
    assert_eq!(rig.hub.statistics().connected, 1);
}

#[test]
fn keep_alive_is_one_and_a_half_times_and_any_packet_counts() {
    let mut rig = Rig::new();
    let (id, _) = rig.say(&Hello {
        keep_alive_s: 10,
        ..Hello::dev1()
    });
    for _ in 0..3 {
        rig.wait(Duration::from_millis(14_999));
        assert_eq!(rig.send(id, &PINGREQ), [Got::Pingresp]);
    }
    rig.wait(Duration::from_secs(15));
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::KeepAliveTimeout)]);
}

#[test]
fn keep_alive_0_and_large_ones_end_at_1767_s() {
    for keep_alive_s in [0, 1200, u16::MAX] {
        let mut rig = Rig::new();
        let (id, _) = rig.say(&Hello {
            keep_alive_s,
            ..Hello::dev1()
        });
        rig.wait(Duration::from_millis(1_766_999));
        assert_eq!(rig.got(id), []);
        rig.wait(Duration::from_millis(1));
        assert_eq!(rig.got(id), [Got::Closed(CloseReason::KeepAliveTimeout)]);
    }
}

#[test]
fn an_expired_token_ends_the_connection_after_its_grace() {
    for grace in [0, 300] {
        let mut rig = Rig::with(|config| config.token_grace = Duration::from_secs(grace));
        let soon = rig.now.utc.saturating_add(Duration::from_secs(100));
        let (id, _) = rig.say(&Hello {
            password: key().sign(&format!("{HUB}/devices/dev1"), None, soon),
            keep_alive_s: 1000,
            ..Hello::dev1()
        });
        rig.wait(Duration::from_secs(99 + grace));
        rig.send(id, &PINGREQ);
        rig.wait(Duration::from_millis(999));
        assert_eq!(rig.got(id), []);
        rig.wait(Duration::from_millis(1));
        assert_eq!(rig.got(id), [Got::Closed(CloseReason::TokenExpired)]);
    }
}

#[test]
fn every_subscription_outlives_the_connection_with_clean_session_0() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1), (METHODS, 0), (TWIN_ANSWERS, 0), (DESIRED, 0)]);
    assert_eq!(
        rig.send(id, &DISCONNECT),
        [Got::Closed(CloseReason::Disconnected)]
    );

    let (id, got) = rig.connect();
    assert_eq!(got, [Got::accepted(true)]);
    let answer = rig.send(id, &publish("$iothub/twin/GET/?$rid=1", b" ", None));
    assert_eq!(answer[0].message().topic, "$iothub/twin/res/200/?$rid=1");
}

#[test]
fn clean_session_1_begins_and_leaves_nothing() {
    let mut rig = Rig::new();
    rig.subscribed(&[(TWIN_ANSWERS, 0)]);
    let clean = Hello {
        is_clean: true,
        ..Hello::dev1()
    };
    let (id, got) = rig.say(&clean);
    assert_eq!(got, [Got::accepted(false)]);
    assert_eq!(
        rig.send(id, &publish("$iothub/twin/GET/?$rid=1", b"", None)),
        []
    );
    rig.send(id, &subscribe(2, &[(TWIN_ANSWERS, 0)]));
    rig.send(id, &DISCONNECT);
    assert_eq!(rig.connect().1, [Got::accepted(false)]);
}

#[test]
fn subscriptions_are_granted_up_to_qos_1_and_five() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    let got = rig.send(
        id,
        &subscribe(7, &[(MESSAGES, 2), (METHODS, 1), (TWIN_ANSWERS, 0)]),
    );
    assert_eq!(got, [Got::Suback(7, vec![1, 1, 0])]);
    let got = rig.send(
        id,
        &subscribe(8, &[(DESIRED, 0), ("$iothub/methods/POST/a/#", 0)]),
    );
    assert_eq!(got, [Got::Suback(8, vec![0, 0])]);
    assert_eq!(
        rig.send(id, &subscribe(9, &[(METHODS, 0)])),
        [Got::Suback(9, vec![0])]
    );
    let sixth = rig.send(id, &subscribe(10, &[("$iothub/methods/POST/b/#", 0)]));
    assert_eq!(sixth, [Got::Closed(CloseReason::TooManySubscriptions)]);
}

#[test]
fn a_filter_that_is_not_allowed_closes() {
    for filter in [
        "#",
        "devices/dev2/messages/devicebound/#",
        "devices/dev1/#",
        "$iothub/#",
    ] {
        let mut rig = Rig::new();
        let (id, _) = rig.connect();
        let got = rig.send(id, &subscribe(1, &[(filter, 0)]));
        assert_eq!(
            got,
            [Got::Closed(CloseReason::FilterNotAllowed)],
            "{filter}"
        );
    }
}

#[test]
fn the_plus_form_of_embedded_c_is_a_subscription_to_messages() {
    let mut rig = Rig::new();
    rig.hub
        .send_message(&dev1(), Default::default(), rig.now)
        .unwrap();
    let (id, _) = rig.connect();
    let got = rig.send(
        id,
        &subscribe(1, &[("devices/+/messages/devicebound/#", 1)]),
    );
    assert_eq!(got.len(), 2, "{got:?}");
}

#[test]
fn a_model_is_announced_from_api_version_2020_09_30_on() {
    for (api_version, expected) in [
        ("", ""),
        ("api-version=2020-09-29&", ""),
        ("api-version=2020-09-30&", "dtmi:com:example:Thermostat;1"),
        ("api-version=2021-04-12&", "dtmi:com:example:Thermostat;1"),
    ] {
        let mut rig = Rig::new();
        let model = "model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1";
        let (id, _) = rig.say(&Hello {
            username: format!("{HUB}/dev1/?{api_version}{model}"),
            ..Hello::dev1()
        });
        let twin = rig.hub.twin(&whom("dev1")).unwrap();
        assert_eq!(twin["modelId"], expected, "{api_version}");
        rig.send(id, &publish(EVENTS, b"", None));
        let record = &rig.hub.telemetry(1, 1).records[0];
        let stamped = record.model_id.as_deref().unwrap_or_default();
        assert_eq!(stamped, expected, "dt-dataschema, {api_version}");
    }
}
