//! `POST .../sync`: everything in one request.

use std::time::{Duration, Instant, SystemTime};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{
    Done, Failure, Scope, Scopes, SessionState, TokenHash, TokenId, TokenOrigin, TokenRecord, Work,
};

use crate::{
    hub::message,
    rig::{Rig, assert_status, identity, problem, send},
};

const SYNC: &str = "/devices/dev1/sync";
const KEY: &str = "0123456789abcdef";

async fn sync(rig: &Rig, body: &Value) -> Value {
    let answer = rig.post(SYNC, body.to_string()).await;
    assert_status(&answer, StatusCode::OK);
    answer.json().await.unwrap()
}

async fn with_hub(rig: &mut Rig) {
    rig.hub.is(SessionState::Settled).await;
    rig.hub
        .settles(|work| {
            Some(Ok(match work {
                Work::ReportedPatch(_) => Done::ReportedPatched {
                    version: Some(iothub::twin::TwinVersion(13)),
                },
                Work::Telemetry(_) | Work::MethodAnswer { .. } => Done::Acknowledged,
                Work::TwinRead => panic!("nobody reads the twin"),
            }))
        })
        .await;
}

#[tokio::test]
async fn an_empty_sync_says_what_there_is() {
    let mut rig = Rig::start().await;
    with_hub(&mut rig).await;
    let answer = sync(&rig, &json!({"request_id": "r-1"})).await;
    assert_eq!(answer["request_id"], "r-1");
    assert_eq!(answer["complete"], true);
    assert_eq!(answer["more"], false);
    assert_eq!(answer["next_sync_after_s"], 900);
    assert!(answer["server_time"].is_string() && answer["desired"].is_null());
}

#[tokio::test]
async fn everything_goes_up_and_down_at_once_and_a_copy_goes_up_no_more() {
    for mut rig in [Rig::start().await, Rig::durable().await] {
        with_hub(&mut rig).await;
        rig.hub.invokes("first", "1", Duration::from_secs(30)).await;
        rig.hub.wants(8, json!({"interval_s": 5})).await;
        let before = sync(&rig, &json!({"desired_version": 7})).await;
        assert_eq!(before["desired"], json!({"interval_s": 5, "$version": 8}));
        let method = &before["methods"][0]["request_id"];

        let body = json!({
            "telemetry": [{"body": "a"}, {"body": "!", "encoding": "base64"}],
            "reported": {"battery": 1},
            "answers": [{"request_id": method, "status": 200}, {"request_id": "none", "status": 200}],
            "settle": [{"token": "t", "outcome": "complete"}],
            "desired_version": 8,
        });
        rig.hub.sends(message("new")).await;
        let copy = || rig.keyed(SYNC, KEY, body.to_string());
        for _ in 0..3 {
            let answer: Value = send(copy()).await.json().await.unwrap();
            let statuses = |part: &str| -> Vec<Value> {
                let results = answer[part].as_array().unwrap().iter();
                results.map(|result| result["status"].clone()).collect()
            };
            assert_eq!(statuses("telemetry"), [204, 400], "{answer}");
            assert_eq!(answer["reported"]["$version"], 13);
            assert_eq!(statuses("answers"), [204, 404]);
            assert_eq!(statuses("settled"), [412]);
            assert_eq!(answer["settled"][0]["token"], "t");
            assert!(answer["desired"].is_null());
            assert_eq!(answer["methods"], json!([]));
            assert_eq!(answer["messages"].as_array().unwrap().len(), 1);
            assert_eq!(answer["messages"][0]["body"], "new");
        }
        assert_eq!(rig.hub.taken.lock().len(), 3);
        let other = rig.keyed(SYNC, KEY, r#"{"telemetry":[{"body":"b"}]}"#);
        problem(send(other).await, 422, "key_reused").await;
    }
}

#[tokio::test]
async fn a_copy_tries_again_what_may_fare_better_and_nothing_else() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    let failing = std::sync::atomic::AtomicU32::new(2);
    rig.hub
        .settles(move |work| {
            let is_failing = |text: &str| {
                let left = failing.load(std::sync::atomic::Ordering::Relaxed);
                if text == "b" && left > 0 {
                    failing.store(left - 1, std::sync::atomic::Ordering::Relaxed);
                }
                text == "b" && left > 0
            };
            Some(match work {
                Work::Telemetry(telemetry) => {
                    let text = String::from_utf8_lossy(&telemetry.payload);
                    if is_failing(&text) {
                        Err(Failure::HubUnavailable)
                    } else {
                        Ok(Done::Acknowledged)
                    }
                }
                Work::ReportedPatch(_) => Ok(Done::ReportedPatched {
                    version: Some(iothub::twin::TwinVersion(13)),
                }),
                Work::MethodAnswer { .. } => Ok(Done::Acknowledged),
                Work::TwinRead => panic!("nobody reads the twin"),
            })
        })
        .await;
    let method = rig.hub.invokes("first", "1", Duration::from_secs(30)).await;
    rig.hub.sends(message("abandoned")).await;
    let before = sync(&rig, &json!({})).await;
    let token = &before["messages"][0]["token"];
    let body = json!({
        "telemetry": [{"body": "a"}, {"body": "b"}],
        "reported": {"battery": 1},
        "answers": [{"request_id": method.to_string(), "status": 200}],
        "settle": [{"token": token, "outcome": "abandon"}],
    });
    for of_b in [503, 503, 204, 204] {
        let copy = rig.keyed(SYNC, KEY, body.to_string());
        let answer: Value = send(copy).await.json().await.unwrap();
        assert_eq!(answer["telemetry"][0]["status"], 204);
        assert_eq!(answer["telemetry"][1]["status"], of_b, "{answer}");
        assert_eq!(answer["reported"]["$version"], 13);
        assert_eq!(answer["answers"][0]["status"], 204);
        assert_eq!(answer["settled"][0]["status"], 204);
        assert_eq!(answer["messages"][0]["delivery_count"], 1);
    }
    // a, b three times, the patch, the answer.
    assert_eq!(rig.hub.taken.lock().len(), 6);
}

#[tokio::test]
async fn a_copy_does_and_shows_what_its_token_has_a_scope_for() {
    let mut rig = Rig::start().await;
    with_hub(&mut rig).await;
    let narrow = "tmb_that-syncs-telemetry";
    let record = TokenRecord {
        id: TokenId("narrow".to_owned()),
        identity: identity("dev1"),
        hash: TokenHash::of(narrow),
        created_at: SystemTime::now().into(),
        expires_at: None,
        scopes: [Scope::Telemetry].into_iter().collect::<Scopes>(),
        origin: TokenOrigin::Operator,
    };
    rig.store.registry.put_token(record).await.unwrap();
    let body = r#"{"telemetry":[{"body":"a"}],"reported":{"a":1}}"#;
    for (token, of_reported) in [
        (narrow, 403),
        (narrow, 403),
        (crate::rig::TOKEN, 204),
        (narrow, 403),
        (crate::rig::TOKEN, 204),
    ] {
        let copy = rig
            .anonymous(Method::POST, SYNC)
            .bearer_auth(token)
            .header("idempotency-key", KEY)
            .body(body);
        let answer: Value = send(copy).await.json().await.unwrap();
        assert_eq!(answer["telemetry"][0]["status"], 204);
        assert_eq!(answer["reported"]["status"], of_reported, "{answer}");
        assert_eq!(answer["reported"]["$version"].is_null(), of_reported == 403);
    }
    assert_eq!(rig.hub.taken.lock().len(), 2);
}

#[tokio::test]
async fn at_the_deadline_what_goes_up_is_stored() {
    let rig = Rig::durable().await;
    rig.hub.is(SessionState::Connecting).await;
    let start = Instant::now();
    let request = rig
        .request(Method::POST, SYNC)
        .header("prefer", "wait=1")
        .body(
            r#"{"telemetry":[{"body":"a"},{"body":"b"}],"reported":{"x":1},"desired_version":0}"#,
        );
    let answer: Value = send(request).await.json().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(answer["complete"], false);
    assert_eq!(answer["next_sync_after_s"], 60);
    let receipts = [
        &answer["telemetry"][0]["receipt"],
        &answer["telemetry"][1]["receipt"],
        &answer["reported"]["receipt"],
    ];
    for receipt in receipts {
        let path = format!("/devices/dev1/receipts/{}", receipt.as_str().unwrap());
        let receipt: Value = rig.get(&path).await.json().await.unwrap();
        assert_eq!(receipt["state"], "stored");
    }
}

#[tokio::test]
async fn an_answer_is_no_larger_than_was_asked_but_has_one_message() {
    let mut rig = Rig::start().await;
    with_hub(&mut rig).await;
    for _ in 0..12 {
        rig.hub.sends(message(&"m".repeat(3000))).await;
    }
    rig.hub.wants(8, json!({"a": "x".repeat(2000)})).await;
    for (max_bytes, at_least) in [(16_384, 4), (8192, 1), (1024, 1)] {
        let body = json!({"max_bytes": max_bytes, "desired_version": 1});
        let answer = rig.post(SYNC, body.to_string()).await.text().await.unwrap();
        let shown: Value = serde_json::from_str(&answer).unwrap();
        let messages = shown["messages"].as_array().unwrap().len();
        assert!(messages >= at_least && shown["more"] == true, "{max_bytes}");
        assert_eq!(shown["next_sync_after_s"], 0);
        if max_bytes == 1024 {
            assert_eq!(messages, 1);
            assert_eq!(shown["desired"]["$version"], 8);
            assert!(shown["desired"]["$too_large"].as_u64() > Some(2000));
        } else {
            assert!(answer.len() <= max_bytes, "{} of {max_bytes}", answer.len());
            assert!(shown["desired"]["a"].is_string());
        }
    }
    let default: String = rig.post(SYNC, "{}").await.text().await.unwrap();
    assert!(default.len() <= 16_384 && default.len() > 12_000);
}

#[tokio::test]
async fn a_sync_has_bounds() {
    let mut rig = Rig::start().await;
    with_hub(&mut rig).await;
    let list = |item: Value, items: usize| Value::from(vec![item; items]);
    let answer = json!({"request_id": "none", "status": 1});
    let settle = json!({"token": "t", "outcome": "reject"});
    for (body, status) in [
        (json!({"max_bytes": 1023}), 400),
        (json!({"max_bytes": 1024}), 200),
        (json!({"request_id": "r".repeat(128)}), 200),
        (json!({"request_id": "r".repeat(129)}), 400),
        (json!({"answers": list(answer.clone(), 64)}), 200),
        (json!({"answers": list(answer, 65)}), 413),
        (json!({"settle": list(settle.clone(), 500)}), 200),
        (json!({"settle": list(settle, 501)}), 413),
        (json!({"telemetry": list(json!({"body": ""}), 500)}), 200),
        (json!({"telemetry": list(json!({"body": ""}), 501)}), 413),
        (json!({"telemetry": [["x"]]}), 400),
        (json!([]), 400),
    ] {
        let answer = rig.post(SYNC, body.to_string()).await;
        assert_eq!(answer.status().as_u16(), status, "{:.60}", body.to_string());
    }
    // 1 MiB, all of it.
    for (bytes, status) in [(1_048_576, 200), (1_048_577, 413)] {
        let answer = rig
            .post(SYNC, format!("{{}}{}", " ".repeat(bytes - 2)))
            .await;
        assert_eq!(answer.status().as_u16(), status);
    }
}

#[tokio::test]
async fn a_token_syncs_what_it_has_a_scope_for() {
    let mut rig = Rig::start().await;
    with_hub(&mut rig).await;
    rig.hub.sends(message("a")).await;
    let token = "tmb_that-sends-telemetry";
    let record = TokenRecord {
        id: TokenId("sends".to_owned()),
        identity: identity("dev1"),
        hash: TokenHash::of(token),
        created_at: SystemTime::now().into(),
        expires_at: None,
        scopes: [Scope::Telemetry].into_iter().collect::<Scopes>(),
        origin: TokenOrigin::Operator,
    };
    rig.store.registry.put_token(record).await.unwrap();
    let body = json!({
        "telemetry": [{"body": "x"}], "reported": {"a": 1}, "desired_version": 0,
        "settle": [{"token": "t", "outcome": "reject"}], "answers": [{"request_id": "r", "status": 1}],
    });
    let request = rig.anonymous(Method::POST, SYNC).bearer_auth(token);
    let answer: Value = send(request.body(body.to_string()))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(answer["telemetry"][0]["status"], 204);
    for part in [
        &answer["reported"],
        &answer["settled"][0],
        &answer["answers"][0],
    ] {
        assert_eq!(part["code"], "forbidden", "{answer}");
    }
    assert_eq!(answer["messages"], json!([]));
    assert!(answer["desired"].is_null());
}

#[tokio::test]
async fn a_hub_that_is_away_is_no_reason_to_say_nothing() {
    let rig = Rig::start().await;
    rig.hub.is(SessionState::Unreachable).await;
    let request = rig
        .request(Method::POST, SYNC)
        .header("prefer", "wait=1")
        .body(r#"{"telemetry":[{"body":"a"}]}"#);
    let answer: Value = send(request).await.json().await.unwrap();
    assert_eq!(answer["telemetry"][0]["retryable"], true);
    assert_eq!(answer["complete"], false);
}
