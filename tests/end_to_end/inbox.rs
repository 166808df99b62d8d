//! Everything waiting, in one list.

use serde_json::{Value, json};
use tombolo_system_tests::{Rig, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn reading_never_consumes() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    rig.send_message("dev1", "one", &[]).await;
    rig.send_message("dev1", "two", &[]).await;
    let _leased = device.receive_lock().await;
    for _ in 0..3 {
        let bodies: Vec<_> = device
            .inbox()
            .await
            .iter()
            .map(|entry| entry["body"].clone())
            .collect();
        assert_eq!(
            bodies,
            [json!("one"), json!("two")],
            "a devicebound lease hides nothing"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_settled_at_once_each_with_its_result() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    for body in ["one", "two", "three"] {
        rig.send_message("dev1", body, &[]).await;
    }
    // An answer goes out when the first of them is there.
    eventually("all three are shown", async || {
        device.inbox().await.len() == 3
    })
    .await;
    let inbox = device.inbox().await;
    let token = |n: usize| inbox[n]["token"].as_str().unwrap().to_owned();
    let settle = json!([
        {"token": token(0), "outcome": "complete"},
        {"token": token(1), "outcome": "reject"},
        {"token": token(2), "outcome": "abandon"},
        {"token": "00000000-0000-0000-0000-000000000000", "outcome": "complete"},
    ]);
    let answer = device
        .post("inbox/settle")
        .json(&settle)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let results: Value = answer.json().await.unwrap();
    let statuses: Vec<_> = results["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["status"].clone())
        .collect();
    assert_eq!(
        statuses,
        [json!(204), json!(204), json!(204), json!(412)],
        "{results}"
    );

    let left = device.inbox().await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["body"], "three");
    assert_eq!(left[0]["delivery_count"], 1);
    eventually("the hub forgot the other two", async || {
        rig.waiting_messages("dev1") == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_gets_a_message_when_it_comes() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    let poll = tokio::spawn(device.get("inbox").header("prefer", "wait=20").send());
    rig.until_connected("dev1").await;
    rig.send_message("dev1", "ding", &[]).await;
    let inbox: Value = poll.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(inbox["entries"][0]["body"], "ding");
    assert_eq!(inbox["entries"][0]["kind"], "message");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_inbox_is_called_empty_only_when_that_is_known() {
    let rig = Rig::start(&["dev1"]).await;
    rig.fault(
        json!({"device": "dev1", "times": 100, "fault": {"kind": "refuse-connect", "code": 3}}),
    );
    let answer = rig
        .device("dev1")
        .get("inbox")
        .header("prefer", "wait=1")
        .send()
        .await
        .unwrap();
    assert!(
        answer.status() == 503
            || answer
                .headers()
                .get("tombolo-inbox")
                .is_some_and(|v| v == "partial"),
        "{answer:?}"
    );
}
