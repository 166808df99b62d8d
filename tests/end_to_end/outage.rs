//! The hub is away, comes back, or is slow.

use serde_json::Value;
use tombolo_system_tests::{Rig, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_hub_is_away_nothing_is_promised() {
    let mut rig = Rig::start(&["dev1"]).await;
    rig.stop_hub().await;
    for path in ["messages/events", "twin"] {
        let device = rig.device("dev1");
        let request = if path == "twin" {
            device.get(path)
        } else {
            device.post(path).body("1")
        };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 503, "{path}");
        assert!(answer.headers().contains_key("retry-after"), "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "hub_unavailable", "{path}");
        assert_eq!(problem["retryable"], true, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_recovers_when_the_hub_comes_back() {
    let mut rig = Rig::start(&["dev1"]).await;
    assert_eq!(
        rig.device("dev1")
            .post("messages/events")
            .body("1")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    rig.stop_hub().await;
    // What is sent before the session notices may have come: that is 504.
    eventually("telemetry is refused", async || {
        rig.device("dev1")
            .post("messages/events")
            .body("2")
            .send()
            .await
            .unwrap()
            .status()
            == 503
    })
    .await;
    rig.start_hub().await;
    eventually("telemetry is accepted again", async || {
        rig.device("dev1")
            .post("messages/events")
            .body("3")
            .send()
            .await
            .unwrap()
            .status()
            == 204
    })
    .await;
}
