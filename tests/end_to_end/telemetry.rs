//! Telemetry: `POST /devices/{id}/messages/events`.

use serde_json::json;
use tombolo_system_tests::{Rig, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_at_the_hub_when_the_answer_says_so() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");

    let answer = device
        .post("messages/events")
        .json(&json!({"t": 21.5}))
        .send()
        .await
        .unwrap();

    assert_eq!(answer.status(), 204);
    assert_eq!(answer.headers()["tombolo-delivery"], "hub");
    // No waiting here: the hub has it before the device hears of it.
    let telemetry = rig.telemetry();
    assert_eq!(telemetry.len(), 1);
    assert_eq!(telemetry[0].device_id.as_str(), "dev1");
    assert_eq!(telemetry[0].message.payload, r#"{"t":21.5}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_of_every_kind_arrive_unchanged() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");

    let request = device
        .post("messages/events")
        .header("iothub-app-alpha1", "x=y&z+% /:?#")
        .header("IoTHub-App-zeta", "a b")
        .header("iothub-messageid", "id-1:+")
        .header("iothub-correlationid", "c&1")
        .header("iothub-contenttype", "application/json")
        .header("iothub-contentencoding", "utf-8")
        .body("{}");
    assert_eq!(request.send().await.unwrap().status(), 204);

    let message = &rig.telemetry()[0].message;
    // Names of headers have no case, so names of properties come in lower case.
    let expected = [("alpha1", "x=y&z+% /:?#"), ("zeta", "a b")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(message.properties, expected);
    assert_eq!(message.system.message_id.as_deref(), Some("id-1:+"));
    assert_eq!(message.system.correlation_id.as_deref(), Some("c&1"));
    assert_eq!(
        message.system.content_type.as_deref(),
        Some("application/json")
    );
    assert_eq!(message.system.content_encoding.as_deref(), Some("utf-8"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_limit_is_262_144_bytes_of_body_and_properties() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    // Name and value of one property count: 1 + 4 bytes.
    for (body, expected) in [(262_138, 204), (262_139, 204), (262_140, 413)] {
        let request = device
            .post("messages/events")
            .header("iothub-app-k", "vvvv");
        let answer = request.body(vec![b'x'; body]).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{body} bytes of body");
        if expected == 413 {
            let problem: serde_json::Value = answer.json().await.unwrap();
            assert_eq!(problem["code"], "message_too_large");
            assert_eq!(problem["retryable"], false);
        }
    }
    assert_eq!(rig.telemetry().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_device_arrive_in_order() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    for n in 0..50 {
        let answer = device
            .post("messages/events")
            .json(&json!({"n": n}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 204);
    }
    let seen: Vec<_> = rig
        .telemetry()
        .into_iter()
        .map(|record| record.message.payload)
        .collect();
    assert_eq!(
        seen,
        (0..50)
            .map(|n| format!(r#"{{"n":{n}}}"#))
            .collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_is_a_message() {
    let rig = Rig::start(&["dev1"]).await;
    assert_eq!(
        rig.device("dev1")
            .post("messages/events")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(rig.telemetry().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_does_not_take_its_message_back() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    rig.fault(json!({"device": "dev1", "fault": {"kind": "delay-puback", "millis": 1500}}));
    let request = device.post("messages/events").json(&json!({"n": 1}));
    let cut = request
        .timeout(std::time::Duration::from_millis(300))
        .send()
        .await;
    assert!(cut.is_err_and(|error| error.is_timeout()));
    eventually("the message is at the hub", async || {
        rig.telemetry().len() == 1
    })
    .await;
}
