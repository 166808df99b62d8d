use iothub::{CloudMessage, ErrorCode, ModuleId};

use super::*;

/// `dev1` with the module `mod1`, whose primary key is not the device's.
fn rig() -> Rig {
    let mut rig = Rig::new();
    let keys = DeviceKeys {
        primary: module_key(),
        secondary: Key::from_bytes(vec![6; 32]).unwrap(),
    };
    let spec = ModuleSpec {
        authentication: Some(keys.into()),
        ..ModuleSpec::default()
    };
    rig.hub
        .create_module(&dev1(), &mod1(), spec, rig.now)
        .unwrap();
    rig
}

fn module_key() -> Key {
    Key::from_bytes(vec![5; 32]).unwrap()
}

fn mod1() -> ModuleId {
    "mod1".parse().unwrap()
}

fn hello(key: &Key, resource: &str, policy: Option<&str>) -> Hello {
    Hello {
        password: key.sign(resource, policy, expiry()),
        ..Hello::of("dev1/mod1")
    }
}

fn module_hello() -> Hello {
    let resource = sas::resource(&whom("dev1/mod1"));
    hello(&module_key(), &resource, None)
}

#[track_caller]
fn assert_code<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) {
    assert_eq!(result.unwrap_err().code, code);
}

fn code_of(got: &[Got]) -> u8 {
    let Got::Connack { code, .. } = got[0] else {
        panic!("no CONNACK: {got:?}")
    };
    code
}

#[test]
fn a_module_connects_with_its_own_key_its_devices_or_a_policys() {
    let mut rig = rig();
    let of_module = sas::resource(&whom("dev1/mod1"));
    let of_device = sas::resource(&whom("dev1"));
    let policy = rig.hub.policies()[2].primary.clone();
    let all = format!("{HUB}/devices");
    for (hello, code, why) in [
        (hello(&module_key(), &of_module, None), 0, "its own"),
        (hello(&key(), &of_device, None), 0, "its device's"),
        (hello(&key(), &of_module, None), 0, "its device's, for it"),
        (hello(&policy, &all, Some("device")), 0, "the policy's"),
        (hello(&module_key(), &of_module[1..], None), 5, "other hub"),
        (
            hello(&module_key(), &format!("{of_device}/modules/mod"), None),
            5,
            "a part of a segment",
        ),
    ] {
        let (_, got) = rig.say(&hello);
        assert_eq!(code_of(&got), code, "{why}");
    }
    let as_device = Hello {
        password: module_key().sign(&of_device, None, expiry()),
        ..Hello::dev1()
    };
    let (_, got) = rig.say(&as_device);
    assert_eq!(code_of(&got), 5, "a module's key does not open its device");
    let (_, got) = rig.say(&Hello::of("dev1/mod2"));
    assert_eq!(code_of(&got), 5, "there is no such module");
}

#[test]
fn device_and_module_are_connected_side_by_side() {
    let mut rig = rig();
    let (device, _) = rig.connect();
    let (first, _) = rig.say(&module_hello());
    let (module, got) = rig.say(&module_hello());
    assert_eq!(got, [Got::accepted(true)]);
    assert_eq!(rig.send(first, &PINGREQ), [], "the newer took over");
    assert_eq!(rig.send(device, &PINGREQ), [Got::Pingresp]);
    assert_eq!(rig.send(module, &PINGREQ), [Got::Pingresp]);
    assert!(rig.hub.module(&dev1(), &mod1()).unwrap().is_connected);
    assert_eq!(rig.hub.statistics().connected, 1, "devices are counted");
}

#[test]
fn telemetry_of_a_module_is_stamped_with_it() {
    let mut rig = rig();
    let (id, _) = rig.say(&module_hello());
    let topic = "devices/dev1/modules/mod1/messages/events/%24.on=out1/";
    let got = rig.send(id, &publish(topic, b"21", Some(1)));
    assert_eq!(got, [Got::Puback(1)]);
    let record = rig.hub.telemetry(1, 1).records.remove(0);
    assert_eq!(
        (&record.device_id, record.module_id.as_ref()),
        (&dev1(), Some(&mod1()))
    );
    assert_eq!(record.scope, AuthScope::Module);
    assert_eq!(
        record.message.system.others,
        [("on".to_owned(), "out1".to_owned())]
    );
    let got = rig.send(id, &publish(EVENTS, b"", Some(2)));
    assert_eq!(got, [Got::Closed(CloseReason::ForeignTopic)]);
}

#[test]
fn twin_and_methods_of_a_module_are_its_own() {
    let mut rig = rig();
    let device = rig.subscribed(&[(METHODS, 0), (DESIRED, 0)]);
    let (module, _) = rig.say(&module_hello());
    let subscriptions = [(METHODS, 0), (DESIRED, 0), (TWIN_ANSWERS, 0)];
    rig.send(module, &subscribe(1, &subscriptions));

    let change = TwinChange::Merge {
        tags: None,
        desired: Some(object(serde_json::json!({"interval": 5}))),
    };
    let whom = whom("dev1/mod1");
    let twin = rig.hub.update_twin(&whom, change, None, rig.now).unwrap();
    assert_eq!(twin["moduleId"], "mod1");
    assert_eq!(twin["properties"]["desired"]["interval"], 5);
    let topic = &rig.got(module)[0].message().topic.clone();
    assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=2");
    let report = "$iothub/twin/PATCH/properties/reported/?$rid=1";
    let got = rig.send(module, &publish(report, b"{\"a\":1}", None));
    assert_eq!(
        got[0].message().topic,
        "$iothub/twin/res/204/?$rid=1&$version=2"
    );
    let of_device = rig.hub.twin(&super::whom("dev1")).unwrap();
    assert_eq!(of_device["properties"]["reported"]["$version"], 1);

    let call = MethodCall {
        name: "reboot".parse().unwrap(),
        payload: Bytes::new(),
        response_timeout: Duration::from_secs(30),
        connect_timeout: Duration::ZERO,
    };
    let call_id = rig.hub.invoke_method(&whom, call, rig.now).unwrap();
    assert_eq!(
        rig.got(module)[0].message().topic,
        "$iothub/methods/POST/reboot/?$rid=1"
    );
    let answer = publish("$iothub/methods/res/200/?$rid=1", b"{}", None);
    rig.hub.handle_input(device, &answer, rig.now);
    assert_eq!(rig.done().len(), 0, "the device is not asked");
    rig.hub.handle_input(module, &answer, rig.now);
    assert_eq!(rig.done()[0].0, call_id);
}

#[test]
fn a_module_has_no_part_in_its_devices_messages() {
    let mut rig = rig();
    let device = rig.subscribed(&[(MESSAGES, 1)]);
    let message = CloudMessage::default();
    rig.hub.send_message(&dev1(), message, rig.now).unwrap();
    assert_eq!(rig.got(device).len(), 1);
    let (module, _) = rig.say(&module_hello());
    assert_eq!(rig.send(module, &puback(1)), [], "not its to acknowledge");
    let inputs = "devices/dev1/modules/mod1/inputs/#";
    let got = rig.send(module, &subscribe(2, &[(inputs, 1)]));
    assert_eq!(got, [Got::Suback(2, vec![1])]);
    rig.hub.handle_closed(module, rig.now);
    assert_eq!(rig.send(device, &puback(1)), [], "still in flight");
    assert_eq!(rig.hub.device(&dev1()).unwrap().cloud_messages, 0);

    let (module, _) = rig.say(&module_hello());
    let got = rig.send(module, &subscribe(1, &[(MESSAGES, 1)]));
    assert_eq!(got, [Got::Closed(CloseReason::FilterNotAllowed)]);
}

#[test]
fn a_device_has_twenty_modules() {
    let mut rig = rig();
    let create = |rig: &mut Rig, id: &str| {
        let id = id.parse().unwrap();
        rig.hub
            .create_module(&dev1(), &id, ModuleSpec::default(), rig.now)
    };
    for number in 2..=20 {
        create(&mut rig, &format!("mod{number}")).unwrap();
    }
    assert_code(create(&mut rig, "mod21"), ErrorCode::TooManyModulesOnDevice);
    assert_code(
        create(&mut rig, "mod1"),
        ErrorCode::ModuleAlreadyExistsOnDevice,
    );
    assert_eq!(rig.hub.modules(&dev1()).unwrap().len(), 20);
    let unknown = rig.hub.module(&dev1(), &"mod21".parse().unwrap());
    assert_code(unknown, ErrorCode::ModuleNotFound);
    assert_code(rig.hub.twin(&whom("dev1/mod21")), ErrorCode::DeviceNotFound);
}

#[test]
fn a_modules_etag_guards_it() {
    let mut rig = rig();
    let before = rig.hub.module(&dev1(), &mod1()).unwrap();
    let update = |rig: &mut Rig, etag: &str| {
        let spec = ModuleSpec::default();
        rig.hub
            .update_module(&dev1(), &mod1(), spec, &IfMatch::parse(etag))
    };
    let after = update(&mut rig, &before.etag).unwrap();
    assert_ne!(
        primary(&after.authentication).to_base64(),
        primary(&before.authentication).to_base64()
    );
    assert_code(
        update(&mut rig, &before.etag),
        ErrorCode::PreconditionFailed,
    );
    let stale = IfMatch::parse(&before.etag);
    assert_code(
        rig.hub.delete_module(&dev1(), &mod1(), &stale, rig.now),
        ErrorCode::PreconditionFailed,
    );
}

#[test]
fn modules_go_with_their_device_and_stop_when_it_is_disabled() {
    let mut rig = rig();
    let (id, _) = rig.say(&module_hello());
    let spec = DeviceSpec {
        status: DeviceStatus::Disabled,
        authentication: Some(rig.hub.device(&dev1()).unwrap().authentication),
        ..DeviceSpec::default()
    };
    rig.hub
        .update_device(&dev1(), spec.clone(), &IfMatch::Any, rig.now)
        .unwrap();
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::DeviceDisabled)]);
    assert_eq!(code_of(&rig.say(&module_hello()).1), 5);

    let enabled = DeviceSpec {
        status: DeviceStatus::Enabled,
        ..spec
    };
    rig.hub
        .update_device(&dev1(), enabled, &IfMatch::Any, rig.now)
        .unwrap();
    let (id, _) = rig.say(&module_hello());
    rig.hub
        .delete_device(&dev1(), &IfMatch::Any, rig.now)
        .unwrap();
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::IdentityDeleted)]);
    rig.add_device("dev1");
    assert_code(rig.hub.module(&dev1(), &mod1()), ErrorCode::ModuleNotFound);
}
