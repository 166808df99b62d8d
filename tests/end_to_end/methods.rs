//! Direct methods: presence, waiting, answering, and what happens when it is too late.

use serde_json::{Value, json};
use tombolo_system_tests::{Rig, eventually};

const METHODS: &str = "$iothub/methods/POST/#";

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_device_gets_the_method_and_answers_it() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    let poll = tokio::spawn(device.get("methods").header("prefer", "wait=20").send());
    rig.until_subscribed("dev1", METHODS).await;
    let call = rig.invoke("dev1", "reboot", json!({"delay": 5}), 15);

    let waiting: Value = poll.await.unwrap().unwrap().json().await.unwrap();
    let method = &waiting["methods"][0];
    assert_eq!(method["name"], "reboot");
    assert_eq!(method["payload"], json!({"delay": 5}));
    let id = method["request_id"].as_str().unwrap();
    let answer = device
        .post(&format!("methods/{id}/response"))
        .json(&json!({"status": 200, "payload": {"ok": true}}));
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.headers()["tombolo-delivery"], "hub");

    let (status, body) = call.await;
    assert_eq!(
        (status, body),
        (200, json!({"status": 200, "payload": {"ok": true}}))
    );

    let again = device
        .post(&format!("methods/{id}/response"))
        .json(&json!({"status": 200}))
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 410, "a method is answered once");
    assert_eq!(again.json::<Value>().await.unwrap()["code"], "method_gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_device_is_not_online() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    // The session is up, because telemetry was sent, but nobody can answer a method.
    assert_eq!(
        device
            .post("messages/events")
            .body("{}")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    let (status, body) = rig.invoke("dev1", "reboot", json!(null), 15).await;
    assert_eq!(status, 404);
    assert!(
        body["Message"].as_str().unwrap().contains("404103"),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_ends_a_moment_after_the_poll() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    let poll = device
        .get("methods")
        .header("prefer", "wait=1")
        .send()
        .await
        .unwrap();
    assert_eq!(poll.status(), 204);
    rig.until_subscribed("dev1", METHODS).await;
    eventually("the subscription is gone", async || {
        !rig.is_subscribed("dev1", METHODS)
    })
    .await;
    let (status, _) = rig.invoke("dev1", "reboot", json!(null), 15).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_the_connection_ended_is_gone() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    let poll = tokio::spawn(device.get("methods").header("prefer", "wait=20").send());
    rig.until_subscribed("dev1", METHODS).await;
    let call = rig.invoke("dev1", "reboot", json!(null), 5);
    let waiting: Value = poll.await.unwrap().unwrap().json().await.unwrap();
    let id = waiting["methods"][0]["request_id"]
        .as_str()
        .unwrap()
        .to_owned();

    rig.fault(json!({"device": "dev1", "fault": {"kind": "drop-connection"}}));
    eventually("the method is withdrawn", async || {
        device.inbox().await.is_empty()
    })
    .await;
    let answer = device
        .post(&format!("methods/{id}/response"))
        .json(&json!({"status": 200}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 410);
    assert_eq!(call.await.0, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_request_that_does_not_wait_is_gone_and_nonsense_is_not_found() {
    let rig = Rig::start(&["dev1"]).await;
    for (id, status, code) in [
        ("1.1", 410, "method_gone"),
        ("ffffffffffffffff.1", 410, "method_gone"),
        ("nonsense", 404, "not_found"),
    ] {
        let answer = rig.device("dev1").post(&format!("methods/{id}/response"));
        let answer = answer.json(&json!({"status": 200})).send().await.unwrap();
        assert_eq!(answer.status(), status, "{id}");
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_that_ignores_unsubscribe_gets_an_answer_at_once() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    // The first one clears what an earlier session may have left, the second one is for the methods.
    rig.fault(json!({"times": 2, "fault": {"kind": "ignore-unsubscribe"}}));
    let poll = device.get("methods").header("prefer", "wait=1");
    assert_eq!(poll.send().await.unwrap().status(), 204);
    rig.until_subscribed("dev1", METHODS).await;
    eventually("the session has unsubscribed, in vain", async || {
        rig.with_hub(|hub, _| hub.faults().next().is_none())
    })
    .await;
    assert!(rig.is_subscribed("dev1", METHODS));

    let (status, body) = rig.invoke("dev1", "reboot", json!(null), 30).await;
    assert_eq!(status, 200);
    let expected = json!({"status": 503, "payload": {"code": "device_asleep"}});
    assert_eq!(body, expected);
}
