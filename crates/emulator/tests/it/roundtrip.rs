//! One message each way, one twin, one method: a device and its cloud.

use serde_json::{Value, json};

use crate::rig::{Got, Rig};

#[tokio::test]
async fn telemetry_goes_up() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    device
        .publish(
            "devices/dev1/messages/events/%24.ct=application%2Fjson&a=1",
            b"{\"t\":1}",
            7,
        )
        .await;
    assert_eq!(device.next().await, Some(Got::Puback(7)));
    let answer = rig.cloud.get("/emulator/telemetry").send().await.unwrap();
    assert_eq!(answer.headers()["emulator-next"], "2");
    let line: Value = serde_json::from_str(answer.text().await.unwrap().trim()).unwrap();
    assert_eq!(line["deviceId"], "dev1");
    assert_eq!(line["body"], "{\"t\":1}");
    assert_eq!(line["properties"], json!({"a": "1"}));
    assert_eq!(line["systemProperties"]["content-type"], "application/json");
    assert_eq!(
        line["systemProperties"]["iothub-connection-device-id"],
        "dev1"
    );
}

#[tokio::test]
async fn a_message_comes_down_and_feedback_tells() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    device
        .subscribe(&["devices/dev1/messages/devicebound/#"])
        .await;
    let sent = rig.cloud.post("/emulator/devices/dev1/messages");
    let sent = sent
        .header("iothub-messageid", "m1")
        .header("iothub-ack", "full")
        .header("iothub-app-color", "deep blue")
        .body("hello");
    let answer: Value = sent.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&answer["messageId"], &answer["sequenceNumber"]),
        (&json!("m1"), &json!(1))
    );

    let got = device.next().await.unwrap();
    assert_eq!(got.payload(), "hello");
    assert!(
        got.topic()
            .ends_with("&%24.mid=m1&iothub-ack=full&color=deep%20blue"),
        "{got:?}"
    );
    device.puback(1).await;
    // The PUBACK is in order with this one.
    device
        .publish("devices/dev1/messages/events/", b"", 9)
        .await;
    assert_eq!(device.next().await, Some(Got::Puback(9)));
    let feedback: Value = rig
        .cloud
        .get("/emulator/feedback")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(feedback[0]["statusCode"], "Success");
    assert_eq!(feedback[0]["originalMessageId"], "m1");
}

#[tokio::test]
async fn a_twin_is_read_and_written_from_both_sides() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    device
        .subscribe(&[
            "$iothub/twin/res/#",
            "$iothub/twin/PATCH/properties/desired/#",
        ])
        .await;
    let patch = json!({"tags": {"room": "kitchen"}, "properties": {"desired": {"interval": 5}}});
    let patched = rig
        .cloud
        .request(reqwest::Method::PATCH, "/twins/dev1?api-version=2021-04-12");
    let twin: Value = patched
        .json(&patch)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(twin["tags"], json!({"room": "kitchen"}));
    let got = device.next().await.unwrap();
    assert_eq!(
        got.topic(),
        "$iothub/twin/PATCH/properties/desired/?$version=2"
    );

    device
        .publish(
            "$iothub/twin/PATCH/properties/reported/?$rid=1",
            b"{\"fw\":\"2\"}",
            3,
        )
        .await;
    assert_eq!(device.next().await, Some(Got::Puback(3)));
    assert_eq!(
        device.next().await.unwrap().topic(),
        "$iothub/twin/res/204/?$rid=1&$version=2"
    );
    let twin: Value = rig
        .cloud
        .get("/twins/dev1")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(twin["properties"]["reported"]["fw"], "2");
    assert_eq!(twin["connectionState"], "Connected");
}

#[tokio::test]
async fn a_method_is_invoked_and_answered() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    device.subscribe(&["$iothub/methods/POST/#"]).await;
    let body = json!({"methodName": "reboot", "payload": {"delay": 5}});
    let call = rig.cloud.post("/twins/dev1/methods").json(&body);
    let answering = async {
        let got = device.next().await.unwrap();
        assert_eq!(got.topic(), "$iothub/methods/POST/reboot/?$rid=1");
        assert_eq!(got.payload(), "{\"delay\":5}");
        device
            .publish("$iothub/methods/res/200/?$rid=1", b"{\"ok\":true}", 4)
            .await;
    };
    let (answer, ()) = tokio::join!(call.send(), answering);
    let answer: Value = answer.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({"status": 200, "payload": {"ok": true}}));
}

#[tokio::test]
async fn a_method_for_a_device_that_is_away_fails_in_the_nested_form() {
    let rig = Rig::start().await;
    let call = rig.cloud.post("/twins/dev1/methods");
    let answer = call.json(&json!({"methodName": "m"})).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.headers()["iothub-errorcode"], "DeviceNotOnline");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["ExceptionMessage"], "");
    let inner: Value = serde_json::from_str(body["Message"].as_str().unwrap()).unwrap();
    assert_eq!(inner["errorCode"], 404_103);
}

#[tokio::test]
async fn a_second_connection_takes_over_and_finds_the_session() {
    let rig = Rig::start().await;
    let (mut first, was_there) = rig.connect().await;
    assert!(!was_there);
    let (_second, was_there) = rig.connect().await;
    assert!(was_there);
    assert_eq!(first.next().await, None);
}

#[tokio::test]
async fn a_fault_drops_the_connection() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    let fault = json!({"device": "dev1", "fault": {"kind": "drop-connection"}});
    let answer = rig
        .cloud
        .post("/emulator/faults")
        .json(&fault)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(device.next().await, None);
}
