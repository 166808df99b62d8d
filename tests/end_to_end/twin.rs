//! Twin: read, reported patch, desired properties.

use serde_json::{Value, json};
use tombolo_system_tests::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn the_twin_is_read_and_patched() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    rig.patch_desired("dev1", json!({"interval": 5})).await;

    let answer = device.get("twin").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["etag"], "\"d2-r1\"");
    let twin: Value = answer.json().await.unwrap();
    assert_eq!(twin["desired"], json!({"interval": 5, "$version": 2}));
    assert_eq!(twin["reported"], json!({"$version": 1}));

    let patch = device
        .patch("twin/properties/reported")
        .json(&json!({"fw": {"version": "1.0"}, "gone": 1}));
    let answer = patch.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["tombolo-delivery"], "hub");
    assert_eq!(
        answer.json::<Value>().await.unwrap(),
        json!({"$version": 2})
    );
    let patch = device
        .patch("twin/properties/reported")
        .json(&json!({"gone": null}));
    assert_eq!(
        patch.send().await.unwrap().json::<Value>().await.unwrap(),
        json!({"$version": 3})
    );

    let at_the_hub = rig.twin("dev1");
    assert_eq!(
        at_the_hub["properties"]["reported"]["fw"],
        json!({"version": "1.0"})
    );
    assert!(at_the_hub["properties"]["reported"].get("gone").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn desired_properties_answer_304_until_they_change() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");

    let answer = device.get("twin/properties/desired").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["etag"], "\"1\"");

    let again = device
        .get("twin/properties/desired")
        .header("if-none-match", "\"1\"")
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);

    rig.patch_desired("dev1", json!({"interval": 7})).await;
    let changed = device
        .get("twin/properties/desired")
        .header("if-none-match", "\"1\"")
        .send()
        .await
        .unwrap();
    assert_eq!(changed.status(), 200);
    assert_eq!(
        changed.json::<Value>().await.unwrap(),
        json!({"interval": 7, "$version": 2})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_request_gets_the_change_when_it_happens() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    let waiting = device
        .get("twin/properties/desired")
        .header("if-none-match", "\"1\"")
        .header("prefer", "wait=20")
        .send();
    let waiting = tokio::spawn(waiting);
    rig.until_subscribed("dev1", "$iothub/twin/PATCH/properties/desired/#")
        .await;

    rig.patch_desired("dev1", json!({"interval": 9})).await;

    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["etag"], "\"2\"");
    assert_eq!(
        answer.json::<Value>().await.unwrap(),
        json!({"interval": 9, "$version": 2})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_ends_with_304_when_nothing_changes() {
    let rig = Rig::start(&["dev1"]).await;
    let request = rig.device("dev1").get("twin/properties/desired");
    let answer = request
        .header("if-none-match", "\"1\"")
        .header("prefer", "wait=1")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 304);
    assert_eq!(answer.headers()["etag"], "\"1\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn desired_properties_are_right_after_a_reconnect() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    assert_eq!(
        device
            .get("twin/properties/desired")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );

    rig.fault(json!({"device": "dev1", "fault": {"kind": "drop-connection"}}));
    rig.patch_desired("dev1", json!({"missed": true})).await;

    let answer = device.get("twin/properties/desired").send().await.unwrap();
    assert_eq!(
        answer.json::<Value>().await.unwrap(),
        json!({"missed": true, "$version": 2})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_breaks_a_rule_never_reaches_the_hub() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    for bad in [
        json!({"a.b": 1}),
        json!({"$a": 1}),
        json!({"a b": 1}),
        json!({"a": [null]}),
        json!([1]),
        json!(1),
    ] {
        let answer = device
            .patch("twin/properties/reported")
            .json(&bad)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400, "{bad}");
        assert_eq!(
            answer.json::<Value>().await.unwrap()["code"],
            "invalid_request",
            "{bad}"
        );
    }
    let answer = device
        .patch("twin/properties/reported")
        .body("{\"a\":")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(rig.twin("dev1")["properties"]["reported"]["$version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hubs_throttle_is_passed_on() {
    let rig = Rig::start(&["dev1"]).await;
    rig.fault(json!({"device": "dev1", "times": 1, "fault": {"kind": "fail-twin-requests", "status": 429}}));
    let answer = rig.device("dev1").get("twin").send().await.unwrap();
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "throttled");
}
