use iothub::ErrorCode;

use super::*;

fn call(name: &str) -> MethodCall {
    MethodCall {
        name: name.parse().unwrap(),
        payload: Bytes::from_static(b"{\"delay\":5}"),
        response_timeout: Duration::from_secs(30),
        connect_timeout: Duration::ZERO,
    }
}

fn invoke(rig: &mut Rig, call: MethodCall) -> Result<CallId, Error> {
    rig.hub.invoke_method(&whom("dev1"), call, rig.now)
}

#[track_caller]
fn assert_code<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) {
    assert_eq!(result.unwrap_err().code, code);
}

#[test]
fn a_method_is_asked_with_hexadecimal_numbers_and_answered() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(METHODS, 1)]);
    let calls: Vec<_> = (0..11)
        .map(|_| invoke(&mut rig, call("reboot")).unwrap())
        .collect();
    let got = rig.got(id);
    assert_eq!(
        got[0].message().topic,
        "$iothub/methods/POST/reboot/?$rid=1"
    );
    assert_eq!(got[0].message().qos, 0);
    assert_eq!(got[0].message().payload, "{\"delay\":5}");
    assert_eq!(
        got[10].message().topic,
        "$iothub/methods/POST/reboot/?$rid=b"
    );

    let answer = publish("$iothub/methods/res/200/?$rid=b", b"{\"ok\":true}", Some(9));
    rig.hub.handle_input(id, &answer, rig.now);
    let done = rig.done();
    assert_eq!(done.len(), 1);
    let response = done[0].1.clone().unwrap();
    assert_eq!((done[0].0, response.status), (calls[10], 200));
    assert_eq!(response.payload, "{\"ok\":true}");
}

#[test]
fn no_payload_is_zero_bytes() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[("$iothub/methods/POST/ping/#", 0)]);
    let mut ping = call("ping");
    ping.payload = Bytes::new();
    invoke(&mut rig, ping).unwrap();
    assert_eq!(rig.got(id)[0].message().payload, "");
    assert_code(invoke(&mut rig, call("other")), ErrorCode::DeviceNotOnline);
}

#[test]
fn without_connection_or_subscription_the_device_is_not_online() {
    let mut rig = Rig::new();
    assert_code(invoke(&mut rig, call("m")), ErrorCode::DeviceNotOnline);
    let (id, _) = rig.connect();
    assert_code(invoke(&mut rig, call("m")), ErrorCode::DeviceNotOnline);
    rig.send(id, &subscribe(1, &[(METHODS, 0)]));
    invoke(&mut rig, call("m")).unwrap();
    rig.send(id, &unsubscribe(2, METHODS));
    assert_code(invoke(&mut rig, call("m")), ErrorCode::DeviceNotOnline);
    let unknown = rig.hub.invoke_method(&whom("dev2"), call("m"), rig.now);
    assert_code(unknown, ErrorCode::DeviceNotFound);
}

#[test]
fn a_caller_may_wait_for_the_device_to_connect() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(METHODS, 0)]);
    rig.send(id, &DISCONNECT);
    let patient = || MethodCall {
        connect_timeout: Duration::from_secs(60),
        ..call("m")
    };
    let first = invoke(&mut rig, patient()).unwrap();
    rig.wait(Duration::from_secs(60));
    let done = rig.done();
    assert_eq!(done[0].0, first);
    assert_code(done[0].1.clone(), ErrorCode::DeviceNotOnline);

    invoke(&mut rig, patient()).unwrap();
    rig.wait(Duration::from_secs(59));
    let (_, got) = rig.connect();
    assert_eq!(got[1].message().topic, "$iothub/methods/POST/m/?$rid=1");
}

#[test]
fn silence_is_504101_and_a_late_answer_is_ignored() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(METHODS, 0)]);
    invoke(&mut rig, call("m")).unwrap();
    rig.wait(Duration::from_secs(30));
    assert_code(rig.done().remove(0).1, ErrorCode::GatewayTimeout);
    rig.send(id, &publish("$iothub/methods/res/200/?$rid=1", b"", None));
    assert_eq!(rig.done().len(), 0);
    assert_eq!(rig.send(id, &PINGREQ), [Got::Pingresp]);
}

#[test]
fn an_answer_on_another_connection_answers_nothing() {
    let mut rig = Rig::new();
    rig.subscribed(&[(METHODS, 0)]);
    invoke(&mut rig, call("m")).unwrap();
    let (id, _) = rig.connect();
    rig.hub.handle_input(
        id,
        &publish("$iothub/methods/res/200/?$rid=1", b"", None),
        rig.now,
    );
    assert_eq!(rig.done().len(), 0);
    rig.wait(Duration::from_secs(30));
    assert_code(rig.done().remove(0).1, ErrorCode::GatewayTimeout);
}

#[test]
fn times_and_payload_have_limits() {
    let mut rig = Rig::new();
    rig.subscribed(&[(METHODS, 0)]);
    let seconds = |response, connect| MethodCall {
        response_timeout: Duration::from_secs(response),
        connect_timeout: Duration::from_secs(connect),
        ..call("m")
    };
    for bad in [seconds(4, 0), seconds(301, 0), seconds(5, 301)] {
        assert_code(invoke(&mut rig, bad), ErrorCode::ArgumentInvalid);
    }
    for good in [seconds(5, 0), seconds(300, 300)] {
        invoke(&mut rig, good).unwrap();
    }
    let large = |size| MethodCall {
        payload: vec![b'1'; size].into(),
        ..call("m")
    };
    invoke(&mut rig, large(128 * 1024)).unwrap();
    assert_code(
        invoke(&mut rig, large(128 * 1024 + 1)),
        ErrorCode::ArgumentInvalid,
    );
}

#[test]
fn a_device_has_so_many_methods_at_once() {
    let mut rig = Rig::with(|config| config.methods_in_flight = 2);
    rig.subscribed(&[(METHODS, 0)]);
    invoke(&mut rig, call("m")).unwrap();
    invoke(&mut rig, call("m")).unwrap();
    assert_code(invoke(&mut rig, call("m")), ErrorCode::TooManyMethods);
    rig.wait(Duration::from_secs(30));
    invoke(&mut rig, call("m")).unwrap();
}

#[test]
fn deleting_the_device_ends_its_methods() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(METHODS, 0)]);
    invoke(&mut rig, call("m")).unwrap();
    rig.got(id);
    rig.hub
        .delete_device(&dev1(), &IfMatch::Any, rig.now)
        .unwrap();
    assert_code(rig.done().remove(0).1, ErrorCode::DeviceNotFound);
}
