//! Cloud-to-device messages through IoT Hub's own calls: receive, complete, reject, abandon.

use serde_json::{Value, json};
use tombolo_system_tests::{Rig, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_received_and_completed() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    rig.send_message(
        "dev1",
        "hello",
        &[
            ("iothub-messageid", "m-1"),
            ("iothub-app-Color", "red & blue"),
        ],
    )
    .await;

    let received = device.get("messages/deviceBound").send().await.unwrap();
    assert_eq!(received.status(), 200);
    assert_eq!(received.headers()["iothub-messageid"], "m-1");
    assert_eq!(received.headers()["iothub-app-color"], "red & blue");
    assert_eq!(received.headers()["iothub-deliverycount"], "0");
    let lock = received.headers()["etag"]
        .to_str()
        .unwrap()
        .trim_matches('"')
        .to_owned();
    assert_eq!(received.text().await.unwrap(), "hello");
    assert_eq!(
        rig.waiting_messages("dev1"),
        1,
        "the hub keeps it until it is settled"
    );

    let completed = device
        .delete(&format!("messages/devicebound/{lock}"))
        .send()
        .await
        .unwrap();
    assert_eq!(completed.status(), 204);
    assert_eq!(completed.headers()["tombolo-delivery"], "hub");
    eventually("the hub forgot it", async || {
        rig.waiting_messages("dev1") == 0
    })
    .await;

    let empty = device.get("messages/devicebound").send().await.unwrap();
    assert_eq!(empty.status(), 204);
    assert!(
        !empty.headers().contains_key("tombolo-inbox"),
        "nothing waiting is known, not guessed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_while_the_device_slept_is_not_missed() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    rig.fault(json!({"device": "dev1", "fault": {"kind": "hold-messages", "millis": 200}}));
    rig.send_message("dev1", "late", &[]).await;
    // The session opens for this request, and the hub delivers some time after CONNACK.
    let received = device.get("messages/devicebound").send().await.unwrap();
    assert_eq!(received.status(), 200);
    assert_eq!(received.text().await.unwrap(), "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_message_is_offered_again() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    rig.send_message("dev1", "again", &[]).await;
    let lock = device.receive_lock().await;
    let abandoned = device
        .post(&format!("messages/devicebound/{lock}/abandon"))
        .send()
        .await
        .unwrap();
    assert_eq!(abandoned.status(), 204);

    let again = device.get("messages/devicebound").send().await.unwrap();
    assert_eq!(again.status(), 200);
    assert_eq!(again.headers()["iothub-deliverycount"], "1");
    let lost = device
        .delete(&format!("messages/devicebound/{lock}"))
        .send()
        .await
        .unwrap();
    assert_eq!(lost.status(), 412, "the first lock ended with the abandon");
    assert_eq!(lost.headers()["iothub-errorcode"], "DeviceMessageLockLost");
    assert_eq!(lost.json::<Value>().await.unwrap()["code"], "lock_lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_is_gone_here_and_at_the_hub() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    rig.send_message("dev1", "bad", &[]).await;
    let lock = device.receive_lock().await;
    let rejected = device.delete(&format!(
        "messages/devicebound/{lock}?reject&api-version=2021-04-12"
    ));
    assert_eq!(rejected.send().await.unwrap().status(), 204);
    eventually("the hub forgot it", async || {
        rig.waiting_messages("dev1") == 0
    })
    .await;
    assert_eq!(
        device
            .get("messages/devicebound")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn completing_out_of_order_says_who_knows_of_it() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    for n in 1..=3 {
        rig.send_message("dev1", &format!("m{n}"), &[]).await;
    }
    let first = device.receive_lock().await;
    let second = device.receive_lock().await;

    let answer = device
        .delete(&format!("messages/devicebound/{second}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(
        answer.headers()["tombolo-delivery"],
        "gateway",
        "the first one's PUBACK must go first"
    );
    assert_eq!(rig.waiting_messages("dev1"), 3);

    let answer = device
        .delete(&format!("messages/devicebound/{first}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["tombolo-delivery"], "hub");
    eventually("both are complete at the hub", async || {
        rig.waiting_messages("dev1") == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_dies_with_the_connection_and_the_message_comes_again() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    rig.send_message("dev1", "twice", &[("iothub-messageid", "m-7")])
        .await;
    let lock = device.receive_lock().await;

    rig.fault(json!({"device": "dev1", "fault": {"kind": "drop-connection"}}));
    // Until the gateway has noticed, it writes PUBACKs into a connection that is gone, as any client would.
    eventually("the session is back", async || {
        rig.session("dev1").connections == 2
    })
    .await;
    let lost = device
        .delete(&format!("messages/devicebound/{lock}"))
        .send()
        .await
        .unwrap();
    assert_eq!(lost.status(), 412);

    let again = device.get("messages/devicebound").send().await.unwrap();
    assert_eq!(again.status(), 200);
    assert_eq!(again.headers()["iothub-messageid"], "m-7");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_lock_is_lost() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    let unknown = "00000000-0000-0000-0000-000000000000";
    let answer = device
        .delete(&format!("messages/devicebound/{unknown}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 412);
    assert_eq!(
        answer.headers()["iothub-errorcode"],
        "DeviceMessageLockLost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_ten_messages_are_held_and_all_arrive() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    for n in 0..15 {
        rig.send_message("dev1", &format!("m{n}"), &[]).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 15 {
        let received = device.get("messages/devicebound").send().await.unwrap();
        assert_eq!(received.status(), 200);
        let lock = received.headers()["etag"]
            .to_str()
            .unwrap()
            .trim_matches('"')
            .to_owned();
        seen.push(received.text().await.unwrap());
        let answer = device
            .delete(&format!("messages/devicebound/{lock}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 204);
        if seen.len() == 1 {
            assert!(device.inbox().await.len() <= 10);
        }
    }
    assert_eq!(seen, (0..15).map(|n| format!("m{n}")).collect::<Vec<_>>());
}
