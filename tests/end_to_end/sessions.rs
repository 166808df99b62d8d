//! Sessions: one per device, on demand, closed when nobody needs them.

use std::time::Duration;

use serde_json::json;
use tombolo_system_tests::{Rig, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_at_once_share_one_session() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    let requests: Vec<_> = (0..100)
        .map(|n| tokio::spawn(device.post("messages/events").json(&json!({"n": n})).send()))
        .collect();
    let mut accepted = 0;
    for request in requests {
        let status = request.await.unwrap().unwrap().status();
        // More requests at once than a device may have are told so, not lost.
        assert!(status == 204 || status == 429, "{status}");
        accepted += usize::from(status == 204);
    }
    assert!(accepted >= 16);
    assert_eq!(rig.telemetry().len(), accepted);
    assert_eq!(rig.session("dev1").connections, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_closes_after_its_linger_time() {
    let rig = Rig::builder()
        .device("dev1")
        .upstream(|config| config.linger = Duration::from_millis(300))
        .start()
        .await;
    let device = rig.device("dev1");
    assert_eq!(
        device
            .post("messages/events")
            .body("1")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert!(rig.session("dev1").is_connected);
    eventually("the session is closed", async || {
        !rig.session("dev1").is_connected
    })
    .await;
    assert_eq!(
        device
            .post("messages/events")
            .body("2")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(rig.session("dev1").connections, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_comes_back_by_itself_while_it_is_needed() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    assert_eq!(
        device
            .post("messages/events")
            .body("1")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    rig.fault(json!({"device": "dev1", "fault": {"kind": "drop-connection"}}));
    assert_eq!(
        device
            .post("messages/events")
            .body("2")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(rig.telemetry().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_puback_makes_a_duplicate_never_a_loss() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    assert_eq!(
        device
            .post("messages/events")
            .body("0")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    rig.fault(json!({"device": "dev1", "times": 1, "fault": {"kind": "swallow-puback"}}));
    let request = tokio::spawn(
        device
            .post("messages/events")
            .header("iothub-messageid", "m-1")
            .body("1")
            .send(),
    );
    eventually("the hub has it", async || rig.telemetry().len() == 2).await;
    rig.fault(json!({"device": "dev1", "fault": {"kind": "drop-connection"}}));
    assert_eq!(request.await.unwrap().unwrap().status(), 204);
    let telemetry = rig.telemetry();
    assert_eq!(telemetry.len(), 3);
    assert_eq!(telemetry[1].message, telemetry[2].message);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_do_not_disturb_each_other() {
    let rig = Rig::start(&["dev1", "dev2"]).await;
    rig.fault(
        json!({"device": "dev1", "times": 100, "fault": {"kind": "refuse-connect", "code": 5}}),
    );
    let refused = rig
        .device("dev1")
        .post("messages/events")
        .body("1")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 502);
    assert_eq!(
        refused.json::<serde_json::Value>().await.unwrap()["code"],
        "hub_refused"
    );
    assert_eq!(
        rig.device("dev2")
            .post("messages/events")
            .body("1")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
}
