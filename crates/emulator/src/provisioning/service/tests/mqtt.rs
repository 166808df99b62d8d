//! What goes over the wire.

use proptest::prelude::*;

use super::*;
use crate::provisioning::service::CloseReason;

/// "Communicate with DPS using the MQTT protocol", and what .NET's client wants of the order.
#[test]
fn a_device_is_told_its_hub() {
    let mut rig = Rig::new();
    let (id, outputs) = rig.connect(&connect("reg-1", &username("reg-1"), &token("reg-1")));
    assert_eq!(written(&outputs), b"\x20\x02\x00\x00");
    let outputs = rig.send(id, &subscribe("$dps/registrations/res/#"));
    assert_eq!(written(&outputs), b"\x90\x03\x00\x01\x01");

    let body = br#"{"registrationId":"reg-1","payload":{"a":1}}"#;
    let outputs = rig.send(
        id,
        &publish("$dps/registrations/PUT/iotdps-register/?$rid=1", body),
    );
    let (topic, body) = answer_of(&outputs);
    let assignments = outputs.iter().filter_map(|output| match output {
        Output::Assign(assignment) => Some(assignment),
        Output::Transmit { .. } | Output::Close { .. } => None,
    });
    let [assignment] = assignments.collect::<Vec<_>>()[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=1&retry-after=3");
    let operation = body["operationId"].as_str().unwrap().to_owned();
    assert_eq!(
        body,
        json!({ "operationId": operation, "status": "assigning" })
    );
    let lengths: Vec<_> = operation.split(['.', '-']).map(str::len).collect();
    assert_eq!(lengths, [1, 16, 8, 4, 4, 4, 12]);

    let ask = format!(
        "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=0f2d-3518&operationId={operation}"
    );
    let outputs = rig.send(id, &publish(&ask, b" "));
    let (topic, body) = answer_of(&outputs);
    assert_eq!(
        topic,
        "$dps/registrations/res/202/?$rid=0f2d-3518&retry-after=3"
    );
    assert_eq!(body["status"], "assigning");

    rig.service.handle_assigned(assignment, Ok(()), rig.now);
    let outputs = rig.send(id, &publish(&ask, b""));
    let (topic, body) = answer_of(&outputs);
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=0f2d-3518");
    let state = &body["registrationState"];
    let hub = state["assignedHub"].as_str().unwrap();
    assert!(["a.example", "b.example"].contains(&hub));
    assert_eq!(
        body,
        json!({
            "operationId": operation,
            "status": "assigned",
            "registrationState": {
                "registrationId": "reg-1",
                "createdDateTimeUtc": "2025-12-31T23:50:00Z",
                "status": "assigned",
                "lastUpdatedDateTimeUtc": "2025-12-31T23:50:00Z",
                "etag": state["etag"],
                "assignedHub": hub,
                "deviceId": "reg-1",
                "substatus": "initialAssignment",
            },
        })
    );
    assert!(matches!(
        rig.send(id, b"\xe0\x00")[..],
        [Output::Close {
            reason: CloseReason::Disconnected,
            ..
        }]
    ));
}

/// azure-docs issue 43157: a wrong token connects, and its register is answered 401.
#[test]
fn a_wrong_key_is_found_out_at_the_register() {
    let mut rig = Rig::new();
    let wrong = group_key().sign(
        "0ne00000000/registrations/reg-1",
        None,
        Timestamp::from_unix_seconds(EXPIRY),
    );
    let (id, outputs) = rig.connect(&connect("reg-1", &username("reg-1"), &wrong));
    assert_eq!(written(&outputs), b"\x20\x02\x00\x00");
    rig.send(id, &subscribe("$dps/registrations/res/#"));
    let outputs = rig.send(
        id,
        &publish("$dps/registrations/PUT/iotdps-register/?$rid=1", b""),
    );
    let (topic, body) = answer_of(&outputs);
    assert_eq!(topic, "$dps/registrations/res/401/?$rid=1");
    assert_eq!(
        body,
        json!({
            "errorCode": 401_002,
            "trackingId": body["trackingId"],
            "message": "Unauthorized",
            "timestampUtc": "2025-12-31T23:50:00Z",
        })
    );
}

/// azure-docs issue 69882, for the client id; the others are of the same kind.
#[test]
fn who_does_not_say_who_it_is_cannot_connect() {
    let ours = token("reg-1");
    for (client_id, username, password) in [
        ("reg-2", username("reg-1"), &*ours),
        (
            "reg-1",
            "0ne00000001/registrations/reg-1/api-version=2019-03-31".to_owned(),
            &*ours,
        ),
        (
            "reg-1",
            "0ne00000000/devices/reg-1/api-version=2019-03-31".to_owned(),
            &*ours,
        ),
        ("reg-1", "reg-1".to_owned(), &*ours),
        ("-", username("-"), &*ours),
        ("reg-1", username("reg-1"), ""),
    ] {
        let mut rig = Rig::new();
        let (_, outputs) = rig.connect(&connect(client_id, &username, password));
        let [Output::Transmit { bytes, .. }, Output::Close { reason, .. }] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(bytes, b"\x20\x02\x00\x05", "{username}");
        assert!(matches!(reason, CloseReason::Refused { code: 5, .. }));
    }
}

#[test]
fn a_puback_of_packet_id_zero_is_passed_over() {
    let mut rig = Rig::new();
    let id = rig.online();
    assert!(rig.send(id, b"\x40\x02\x00\x00").is_empty());
    assert_eq!(written(&rig.send(id, b"\xc0\x00")), b"\xd0\x00");
}

#[test]
fn there_is_no_session() {
    let mut rig = Rig::new();
    let mut persistent = connect("reg-1", &username("reg-1"), &token("reg-1"));
    // Clean session 0, which Python and Java ask for: flags follow the header, the name and the level.
    let flags = persistent.iter().position(|byte| *byte == 0xc2).unwrap();
    persistent[flags] = 0xc0;
    let (first, outputs) = rig.connect(&persistent);
    assert_eq!(written(&outputs), b"\x20\x02\x00\x00");
    rig.send(first, &subscribe("$dps/registrations/res/#"));
    rig.service.handle_closed(first);
    let (second, outputs) = rig.connect(&persistent);
    assert_eq!(written(&outputs), b"\x20\x02\x00\x00");
    let outputs = rig.send(
        second,
        &publish("$dps/registrations/PUT/iotdps-register/?$rid=1", b""),
    );
    assert_eq!(
        written(&outputs),
        b"\x40\x02\x00\x02",
        "nobody could hear the answer"
    );
    assert!(rig.assignment().is_none());
}

#[test]
fn a_newer_connection_takes_over() {
    let mut rig = Rig::new();
    let first = rig.online();
    let (second, outputs) = rig.connect(&connect("reg-1", &username("reg-1"), &token("reg-1")));
    assert!(outputs.iter().any(|output| matches!(
        output,
        Output::Close { connection, reason: CloseReason::TakenOver } if *connection == first
    )));
    assert_eq!(written(&rig.send(second, b"\xc0\x00")), b"\xd0\x00");
    assert!(rig.send(first, b"\xc0\x00").is_empty());
}

#[test]
fn what_the_service_does_not_know_ends_the_connection() {
    let mut qos2 = publish("$dps/registrations/PUT/iotdps-register/?$rid=1", b"");
    qos2[0] = 0x34;
    for bytes in [
        qos2,
        publish("devices/reg-1/messages/events/", b""),
        publish("$dps/registrations/PUT/iotdps-register/", b""),
        subscribe("devices/reg-1/messages/devicebound/#"),
        subscribe("#"),
        connect("reg-1", &username("reg-1"), &token("reg-1")),
        b"\x00\x00".to_vec(),
    ] {
        let mut rig = Rig::new();
        let id = rig.online();
        let outputs = rig.send(id, &bytes);
        assert!(matches!(outputs[..], [Output::Close { .. }]), "{outputs:?}");
    }
    let mut rig = Rig::new();
    let (_, outputs) = rig.connect(&subscribe("$dps/registrations/res/#"));
    assert!(matches!(
        outputs[..],
        [Output::Close {
            reason: CloseReason::NoConnect,
            ..
        }]
    ));
}

#[test]
fn silence_ends_a_connection() {
    let mut rig = Rig::new();
    rig.service.accept(Peer::ANONYMOUS, rig.now);
    rig.online();
    let reasons = |rig: &mut Rig, seconds| {
        rig.advance(Duration::from_secs(seconds));
        rig.service.handle_timeout(rig.now);
        let outputs = std::iter::from_fn(|| rig.service.poll_output());
        outputs
            .filter_map(|output| match output {
                Output::Close { reason, .. } => Some(reason),
                Output::Transmit { .. } | Output::Assign(_) => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(reasons(&mut rig, 59), []);
    assert_eq!(reasons(&mut rig, 1), [CloseReason::ConnectTimeout]);
    assert_eq!(reasons(&mut rig, 29), []);
    assert_eq!(reasons(&mut rig, 1), [CloseReason::KeepAliveTimeout]);
    assert_eq!(rig.service.poll_timeout(), None);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, topic in "\\PC{0,60}", rid in "\\PC{0,300}", payload: Vec<u8>) {
        let mut rig = Rig::new();
        rig.connect(&bytes);
        for topic in [topic, format!("$dps/registrations/PUT/iotdps-register/?$rid={rid}")] {
            let id = rig.online();
            rig.send(id, &publish(&topic, &payload));
        }
    }
}

/// All that is to be written.
fn written(outputs: &[Output]) -> Vec<u8> {
    let bytes = outputs.iter().filter_map(|output| match output {
        Output::Transmit { bytes, .. } => Some(bytes.as_slice()),
        Output::Close { .. } | Output::Assign(_) => None,
    });
    bytes.collect::<Vec<_>>().concat()
}

/// The answer that follows a PUBACK.
fn answer_of(outputs: &[Output]) -> (String, Value) {
    let bytes = written(outputs);
    read_publish(bytes.strip_prefix(b"\x40\x02\x00\x02").unwrap())
}

/// A PUBLISH of QoS 0 with JSON.
fn read_publish(bytes: &[u8]) -> (String, Value) {
    assert_eq!(bytes[0], 0x30);
    let header = 2 + usize::from(bytes[1] > 127);
    let length = usize::from(u16::from_be_bytes([bytes[header], bytes[header + 1]]));
    let (topic, body) = bytes[header + 2..].split_at(length);
    (
        String::from_utf8(topic.to_vec()).unwrap(),
        serde_json::from_slice(body).unwrap(),
    )
}
