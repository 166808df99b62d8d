//! `Idempotency-Key`: however often a request comes, it has one effect and one answer.

use std::time::{Duration, SystemTime};

use iothub::Telemetry;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{
    Done, Failure, Scope, Scopes, SessionState, TokenHash, TokenId, TokenOrigin, TokenRecord, Work,
    conformance::Faulty,
};

use crate::{
    hub::message,
    rig::{Rig, assert_status, identity, module, problem, send, serve, serve_device, waiting},
};

const EVENTS: &str = "/devices/dev1/messages/events";
const REPORTED: &str = "/devices/dev1/twin/properties/reported";
const KEY: &str = "0123456789abcdef";
const LIST: &str = "application/vnd.tombolo.batch+json";
const HUB: &str = "application/vnd.microsoft.iothub.json";

fn sent(rig: &Rig) -> Vec<Telemetry> {
    let taken = rig.hub.taken.lock();
    let telemetry = taken.iter().filter_map(|work| match work {
        Work::Telemetry(telemetry) => Some(telemetry.clone()),
        Work::TwinRead | Work::ReportedPatch(_) | Work::MethodAnswer { .. } => None,
    });
    telemetry.collect()
}

async fn each_engine() -> [Rig; 2] {
    let mut rigs = [Rig::start().await, Rig::durable().await];
    for rig in &mut rigs {
        rig.hub.acknowledges().await;
    }
    rigs
}

#[tokio::test]
async fn copies_of_a_message_have_one_effect_whenever_they_come() {
    for rig in each_engine().await {
        let copies: Vec<_> = (0..5)
            .map(|_| waiting(rig.keyed(EVENTS, KEY, "x")))
            .collect();
        for copy in copies {
            let answer = copy.result().await;
            assert_status(&answer, StatusCode::NO_CONTENT);
            assert_eq!(answer.headers()["tombolo-delivery"], "hub");
        }
        // However the path is written, it is the same call.
        let later = rig.keyed("/Devices/dev1/MESSAGES/events/", KEY, "x");
        assert_status(&send(later).await, StatusCode::NO_CONTENT);
        let sent = sent(&rig);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].system.message_id.as_ref().unwrap().len(), 32);
    }
}

#[tokio::test]
async fn a_patch_is_answered_with_its_version_again() {
    for mut rig in each_engine().await {
        rig.hub
            .settles(|_| {
                let version = Some(iothub::twin::TwinVersion(13));
                Some(Ok(Done::ReportedPatched { version }))
            })
            .await;
        for _ in 0..3 {
            let patch = rig
                .request(Method::PATCH, REPORTED)
                .header("idempotency-key", KEY)
                .body(r#"{"a":1}"#);
            let answer: Value = send(patch).await.json().await.unwrap();
            assert_eq!(answer, json!({"$version": 13}));
        }
        assert_eq!(rig.hub.taken.lock().len(), 1);
    }
}

#[tokio::test]
async fn another_request_cannot_use_the_key() {
    for rig in each_engine().await {
        let first = rig.keyed(EVENTS, KEY, "x").header("iothub-app-a", "1");
        assert_status(&send(first).await, StatusCode::NO_CONTENT);
        let with_query = format!("{EVENTS}?api-version=2020-03-13");
        for other in [
            rig.keyed(EVENTS, KEY, "y").header("iothub-app-a", "1"),
            rig.keyed(EVENTS, KEY, "x").header("iothub-app-a", "2"),
            rig.keyed(&with_query, KEY, "x").header("iothub-app-a", "1"),
        ] {
            problem(send(other).await, 422, "key_reused").await;
        }
        // A key of one message is none of a batch, and the other way round.
        let batch = r#"[{"body":"YQ=="}]"#;
        for media_type in [LIST, HUB] {
            let of_batch = rig
                .keyed(EVENTS, KEY, batch)
                .header("content-type", media_type);
            problem(send(of_batch).await, 422, "key_reused").await;
        }
        for (media_type, place) in [(LIST, "b"), (HUB, "c")] {
            let key = format!("{KEY}{place}");
            let batch = |body| {
                rig.keyed(EVENTS, &key, body)
                    .header("content-type", media_type)
            };
            assert!(
                send(batch(r#"[{"body":"YQ=="}]"#))
                    .await
                    .status()
                    .is_success()
            );
            problem(send(batch(r#"[{"body":"Yg=="}]"#)).await, 422, "key_reused").await;
            problem(send(rig.keyed(EVENTS, &key, "x")).await, 422, "key_reused").await;
        }
    }
}

#[tokio::test]
async fn a_key_belongs_to_its_call_and_to_its_device() {
    for rig in each_engine().await {
        serve(&rig.store, &module("dev1", "m")).await;
        let token = "tmb_of-dev2";
        serve_device(&rig.store, &identity("dev2"), token).await;
        assert_status(
            &send(rig.keyed(EVENTS, KEY, "x")).await,
            StatusCode::NO_CONTENT,
        );
        for (path, token) in [
            ("/devices/dev1/modules/m/messages/events", crate::rig::TOKEN),
            ("/devices/dev2/messages/events", token),
        ] {
            // Nobody takes it, so it is not the answer to the first.
            let other = rig
                .anonymous(Method::POST, path)
                .bearer_auth(token)
                .header("idempotency-key", KEY)
                .header("prefer", "wait=1")
                .body("x");
            assert_ne!(send(other).await.status(), StatusCode::NO_CONTENT, "{path}");
        }
        let settle = rig.keyed(
            "/devices/dev1/inbox/settle",
            KEY,
            r#"[{"token":"t","outcome":"reject"}]"#,
        );
        assert_status(&send(settle).await, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_key_has_16_to_128_visible_characters() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    for (length, is_good) in [
        (15, false),
        (16, true),
        (17, true),
        (127, true),
        (128, true),
        (129, false),
    ] {
        let answer = send(rig.keyed(EVENTS, &"k".repeat(length), "x")).await;
        if is_good {
            assert_status(&answer, StatusCode::NO_CONTENT);
        } else {
            problem(answer, 400, "invalid_request").await;
        }
    }
    problem(
        send(rig.keyed(EVENTS, "0123456789 abcdef", "x")).await,
        400,
        "invalid_request",
    )
    .await;
}

#[tokio::test]
async fn a_device_has_so_many_keys() {
    let bounds = store::memory::Config {
        keys: 3,
        ..store::memory::Config::default()
    };
    let volatile = Rig::over(store::memory::open(bounds.clone()).unwrap(), |_| {}).await;
    for mut rig in [volatile, Rig::durable_with(bounds).await] {
        rig.hub.acknowledges().await;
        let key = |number: u32| format!("{KEY}{number}");
        for number in 1..=3 {
            let path = if number == 2 {
                "/devices/dev1/inbox/settle"
            } else {
                EVENTS
            };
            let body = r#"[{"token":"t","outcome":"reject"}]"#;
            assert!(
                send(rig.keyed(path, &key(number), body))
                    .await
                    .status()
                    .is_success()
            );
        }
        let body = r#"[{"token":"t","outcome":"reject"}]"#;
        for path in [EVENTS, "/devices/dev1/inbox/settle"] {
            let one_more = send(rig.keyed(path, &key(4), body)).await;
            problem(one_more, 429, "too_many_keys").await;
        }
        assert_status(
            &send(rig.keyed(EVENTS, &key(1), body)).await,
            StatusCode::NO_CONTENT,
        );
        assert_status(&rig.post(EVENTS, "no key").await, StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn what_came_to_nothing_may_come_again_with_its_key() {
    let mut rig = Rig::start().await;
    for failure in [
        Failure::HubUnavailable,
        Failure::HubTimeout,
        Failure::Stopping,
    ] {
        rig.hub.settles(move |_| Some(Err(failure.clone()))).await;
        let answer = send(rig.keyed(EVENTS, KEY, "x")).await;
        assert!(answer.status().is_server_error());
    }
    rig.hub.acknowledges().await;
    assert_status(
        &send(rig.keyed(EVENTS, KEY, "x")).await,
        StatusCode::NO_CONTENT,
    );
    let ids: Vec<_> = sent(&rig)
        .into_iter()
        .map(|sent| sent.system.message_id)
        .collect();
    assert_eq!(ids.len(), 4);
    assert!(
        ids.iter().all(|id| id.is_some() && *id == ids[0]),
        "{ids:?}"
    );
}

#[tokio::test]
async fn a_batch_needs_one_key_and_is_answered_alike() {
    for rig in each_engine().await {
        let body = r#"[{"body":"a"},{"body":"!","encoding":"base64"},{"body":"b","system":{"message_id":"own"}}]"#;
        let batch = || rig.keyed(EVENTS, KEY, body).header("content-type", LIST);
        let copies: Vec<_> = (0..3).map(|_| waiting(batch())).collect();
        for copy in copies {
            let answer: Value = copy.result().await.json().await.unwrap();
            let of = |member: &str| -> Vec<Value> {
                let results = answer["results"].as_array().unwrap().iter();
                results.map(|result| result[member].clone()).collect()
            };
            assert_eq!(of("status"), [204, 400, 204]);
            assert_eq!(
                of("code"),
                [Value::Null, json!("invalid_request"), Value::Null]
            );
        }
        let sent = sent(&rig);
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[0].system.message_id.as_ref().unwrap().len(), 32);
        assert_eq!(sent[1].system.message_id.as_deref(), Some("own"));

        let hubs = || {
            let body = r#"[{"body":"YQ=="},{"body":"Yg=="}]"#;
            rig.keyed(EVENTS, "another-key-of-16", body)
                .header("content-type", HUB)
        };
        for _ in 0..2 {
            assert_status(&send(hubs()).await, StatusCode::NO_CONTENT);
        }
        assert_eq!(rig.hub.taken.lock().len(), 4);
    }
}

/// A hub side that does everything but for these messages, as often as it is told.
async fn fails(rig: &mut Rig, bodies: &'static [&'static str], times: u32) {
    let left = parking_lot::Mutex::new(vec![times; bodies.len()]);
    rig.hub
        .settles(move |work| {
            let Work::Telemetry(telemetry) = work else {
                return Some(Ok(Done::Acknowledged));
            };
            let place = bodies.iter().position(|body| telemetry.payload == body);
            let mut left = left.lock();
            let left = place.map(|place| &mut left[place]);
            Some(match left.filter(|left| **left > 0) {
                None => Ok(Done::Acknowledged),
                Some(left) => {
                    *left -= 1;
                    Err(Failure::HubUnavailable)
                }
            })
        })
        .await;
}

#[tokio::test]
async fn a_copy_of_a_batch_sends_only_what_has_failed() {
    let mut rig = Rig::start().await;
    let bodies: Vec<_> = (100..140).map(|body| body.to_string()).collect();
    let list: Vec<_> = bodies.iter().map(|body| json!({"body": body})).collect();
    let hubs = bodies.iter();
    let hubs: Vec<_> = hubs
        .map(|body| json!({"body": body, "base64Encoded": false}))
        .collect();
    for (media_type, key, body) in [(LIST, KEY, list), (HUB, "another-key-of-16", hubs)] {
        fails(&mut rig, &["103", "120", "139"], 2).await;
        rig.hub.taken.lock().clear();
        let body = Value::from(body).to_string();
        let copy = || {
            rig.keyed(EVENTS, key, body.clone())
                .header("content-type", media_type)
        };
        for sent_before in [0, 40, 43, 46] {
            assert_eq!(sent(&rig).len(), sent_before);
            let answer = send(copy()).await;
            let is_done = sent_before >= 43;
            if media_type == HUB {
                let expected = if is_done { 204 } else { 503 };
                assert_eq!(answer.status(), expected);
                continue;
            }
            let answer: Value = answer.json().await.unwrap();
            for (place, result) in answer["results"].as_array().unwrap().iter().enumerate() {
                let is_failed = !is_done && matches!(place, 3 | 20 | 39);
                assert_eq!(
                    result["status"],
                    if is_failed { 503 } else { 204 },
                    "{place}"
                );
            }
        }
        // Each again under its own message id.
        let sent = sent(&rig);
        assert_eq!(sent.len(), 46);
        for again in &sent[40..] {
            let first = sent.iter().find(|first| first.payload == again.payload);
            assert_eq!(first.unwrap().system.message_id, again.system.message_id);
        }
    }
}

#[tokio::test]
async fn a_batch_that_came_to_nothing_leaves_its_key() {
    let mut rig = Rig::start().await;
    fails(&mut rig, &["a"], 1).await;
    let batch = |body| rig.keyed(EVENTS, KEY, body).header("content-type", LIST);
    for (body, status) in [(r#"[{"body":"a"}]"#, 503), (r#"[{"body":"b"}]"#, 204)] {
        let answer: Value = send(batch(body)).await.json().await.unwrap();
        assert_eq!(answer["results"][0]["status"], status, "{answer}");
    }
    problem(send(batch(r#"[{"body":"a"}]"#)).await, 422, "key_reused").await;
}

#[tokio::test]
async fn an_abandoned_message_is_abandoned_once() {
    for mut rig in each_engine().await {
        rig.hub.is(SessionState::Settled).await;
        rig.hub.sends(message("a")).await;
        let received = rig.get("/devices/dev1/messages/devicebound").await;
        let token = received.headers()["etag"]
            .to_str()
            .unwrap()
            .trim_matches('"')
            .to_owned();
        let path = format!("/devices/dev1/messages/devicebound/{token}/abandon");
        let copies: Vec<_> = (0..3).map(|_| waiting(rig.keyed(&path, KEY, ""))).collect();
        for copy in copies {
            assert_status(&copy.result().await, StatusCode::NO_CONTENT);
        }
        let again = rig.get("/devices/dev1/messages/devicebound").await;
        assert_eq!(again.headers()["iothub-deliverycount"], "1");
        assert_status(
            &send(rig.keyed(&path, KEY, "")).await,
            StatusCode::NO_CONTENT,
        );
    }
}

#[tokio::test]
async fn the_answer_to_a_method_is_answered_alike() {
    for mut rig in each_engine().await {
        rig.hub.is(SessionState::Settled).await;
        let id = rig
            .hub
            .invokes("reboot", "{}", Duration::from_secs(30))
            .await;
        let path = format!("/devices/dev1/methods/{id}/response");
        for _ in 0..2 {
            let answer = send(rig.keyed(&path, KEY, r#"{"status":200}"#)).await;
            assert_status(&answer, StatusCode::NO_CONTENT);
        }
        let other = send(rig.keyed(&path, KEY, r#"{"status":500}"#)).await;
        problem(other, 422, "key_reused").await;
        problem(
            rig.post(&path, r#"{"status":200}"#).await,
            410,
            "method_gone",
        )
        .await;
        assert_eq!(rig.hub.taken.lock().len(), 1);
    }
}

#[tokio::test]
async fn who_may_not_make_a_call_does_not_hear_its_answer() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    assert_status(
        &send(rig.keyed(EVENTS, KEY, "x")).await,
        StatusCode::NO_CONTENT,
    );
    let token = "tmb_that-reads-messages";
    let record = TokenRecord {
        id: TokenId("reads".to_owned()),
        identity: identity("dev1"),
        hash: TokenHash::of(token),
        created_at: SystemTime::now().into(),
        expires_at: None,
        scopes: [Scope::Messages].into_iter().collect::<Scopes>(),
        origin: TokenOrigin::Operator,
    };
    rig.store.registry.put_token(record).await.unwrap();
    let copy = rig
        .anonymous(Method::POST, EVENTS)
        .bearer_auth(token)
        .header("idempotency-key", KEY)
        .body("x");
    problem(send(copy).await, 403, "forbidden").await;
}

#[tokio::test]
async fn a_store_that_loses_replies_does_not_double_effects() {
    for seed in 0..12 {
        let store = store::memory::open(store::memory::Config::default()).unwrap();
        let mut rig = Rig::behind(store, |store| Faulty::wrap(store, seed), |_| {}).await;
        rig.hub.acknowledges().await;
        let until_done = |body: &'static str, media_type: &'static str, key: &'static str| {
            let rig = &rig;
            async move {
                for _ in 0..50 {
                    let copy = rig
                        .keyed(EVENTS, key, body)
                        .header("content-type", media_type);
                    let answer = send(copy).await;
                    if answer.status().is_success() {
                        return;
                    }
                    assert!(answer.status().is_server_error(), "{answer:?}");
                }
                panic!("50 copies have come to nothing");
            }
        };
        let batch = r#"[{"body":"a"},{"body":"b"}]"#;
        futures_util::join!(
            until_done("x", "text/plain", KEY),
            until_done("x", "text/plain", KEY),
            until_done(batch, LIST, "another-key-of-16"),
            until_done(batch, LIST, "another-key-of-16"),
        );
        let mut bodies: Vec<_> = sent(&rig).into_iter().map(|sent| sent.payload).collect();
        bodies.sort();
        assert_eq!(bodies, ["a", "b", "x"], "seed {seed}");
    }
}
