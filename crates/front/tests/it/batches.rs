//! Telemetry in batches: IoT Hub's own, all or none, and ours, with a result per message.

use std::sync::Arc;

use iothub::HubError;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use store::{Done, Failure, SessionState, Submission, SubmissionId, Survival, Work};

use crate::rig::{PATIENCE, Rig, assert_status, identity, problem, send};

const EVENTS: &str = "/devices/dev1/messages/events";
const HUB: &str = "application/vnd.microsoft.iothub.json";
const LIST: &str = "application/vnd.tombolo.batch+json";
const LINES: &str = "application/vnd.tombolo.batch+ndjson";

async fn post(rig: &Rig, media_type: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = rig
        .request(Method::POST, EVENTS)
        .header("content-type", media_type);
    send(request.body(body)).await
}

/// The bodies of what was sent, in order.
fn sent(rig: &Rig) -> Vec<String> {
    let taken = std::mem::take(&mut *rig.hub.taken.lock());
    let bodies = taken.into_iter().map(|work| match work {
        Work::Telemetry(telemetry) => String::from_utf8(telemetry.payload.to_vec()).unwrap(),
        Work::TwinRead | Work::ReportedPatch(_) | Work::MethodAnswer { .. } => {
            panic!("only telemetry was sent")
        }
    });
    bodies.collect()
}

/// Acknowledges all but messages with this body.
async fn fails_at(rig: &mut Rig, body: &'static str, failure: Failure) {
    rig.hub
        .settles(move |work| {
            let fails =
                matches!(work, Work::Telemetry(telemetry) if telemetry.payload == body.as_bytes());
            Some(if fails {
                Err(failure.clone())
            } else {
                Ok(Done::Acknowledged)
            })
        })
        .await;
}

async fn results(response: Response) -> Vec<Value> {
    assert_status(&response, StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    body["results"].as_array().unwrap().clone()
}

fn statuses(results: &[Value]) -> Vec<u64> {
    let statuses = results.iter().map(|result| result["status"].as_u64());
    statuses.collect::<Option<_>>().unwrap()
}

#[tokio::test]
async fn the_hubs_own_batch_is_sent_as_single_messages() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    // As Azure's Node and C SDKs write them.
    let body = r#"[{"body":"eyJ0IjoxfQ==","properties":{"iothub-app-zeta":"a b","iothub-messageid":"m-1"}},
        {"body":"plain text","base64Encoded":false,"properties":{}},{"body":""}]"#;
    let response = post(&rig, HUB, body).await;
    assert_status(&response, StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["tombolo-delivery"], "hub");
    {
        let taken = rig.hub.taken.lock();
        let Work::Telemetry(first) = &taken[0] else {
            panic!("telemetry was sent");
        };
        assert_eq!(first.system.message_id.as_deref(), Some("m-1"));
        assert_eq!(first.properties, [("zeta".to_owned(), "a b".to_owned())]);
    }
    assert_eq!(sent(&rig), [r#"{"t":1}"#, "plain text", ""]);
}

#[tokio::test]
async fn one_bad_message_keeps_all_of_the_hubs_batch_back() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let good = r#"{"body":"YQ=="}"#;
    for bad in [
        r#"{"body":"no base64!"}"#,
        r#"{"properties":{}}"#,
        r#"["YQ=="]"#,
        r#"{"body":7}"#,
        r#"{"body":"YQ==","properties":{"iothub-app-a":7}}"#,
        "7",
    ] {
        let body = format!("[{good},{bad},{good}]");
        problem(post(&rig, HUB, body).await, 400, "invalid_request").await;
    }
    for bad in ["", "[]", "{}", "[", "null"] {
        problem(post(&rig, HUB, bad).await, 400, "invalid_request").await;
    }
    let id = "m".repeat(129);
    let long = format!(r#"[{good},{{"body":"","properties":{{"iothub-messageid":"{id}"}}}}]"#);
    let detail = problem(post(&rig, HUB, long).await, 400, "invalid_request").await;
    assert!(detail.starts_with("message 2 of the batch"), "{detail}");
    let wide =
        json!([{"body": ""}, {"body": "", "properties": {"iothub-app-a": "/".repeat(21_900)}}]);
    problem(
        post(&rig, HUB, wide.to_string()).await,
        413,
        "message_too_large",
    )
    .await;
    assert!(sent(&rig).is_empty());
}

#[tokio::test]
async fn a_hub_that_fails_in_the_middle_of_its_batch_is_told_truthfully() {
    let mut rig = Rig::start().await;
    fails_at(&mut rig, "b", Failure::HubUnavailable).await;
    let body = r#"[{"body":"YQ=="},{"body":"Yg=="},{"body":"Yw=="}]"#;
    let detail = problem(post(&rig, HUB, body).await, 503, "hub_unavailable").await;
    assert!(detail.contains("2 of the 3 messages"), "{detail}");
}

#[tokio::test]
async fn the_hubs_own_batch_has_262144_bytes() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let of_size = |bytes: usize| {
        let item = r#"{"body":"","base64Encoded":false}"#;
        let frame = item.len() + 2;
        let text = "x".repeat(bytes - frame);
        format!(r#"[{{"body":"{text}","base64Encoded":false}}]"#)
    };
    for (bytes, fits) in [(262_143, true), (262_144, true), (262_145, false)] {
        let body = of_size(bytes);
        assert_eq!(body.len(), bytes);
        let response = post(&rig, HUB, body).await;
        if fits {
            assert_status(&response, StatusCode::NO_CONTENT);
        } else {
            problem(response, 413, "message_too_large").await;
        }
    }
}

#[tokio::test]
async fn ours_has_a_result_for_each_message() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let large = "x".repeat(262_145);
    let items = [
        r#"{"body":"first","properties":{"a":"1"},"system":{"message_id":"m"}}"#.to_owned(),
        r#"{"body":"/wA","encoding":"base64"}"#.to_owned(),
        r#"["x"]"#.to_owned(),
        format!(r#"{{"body":"{large}"}}"#),
        r#"{"body":"bGFzdA==","encoding":"base64"}"#.to_owned(),
    ];
    for (media_type, body) in [
        (LIST, format!("[{}]", items.join(","))),
        (LINES, items.join("\n") + "\n"),
    ] {
        let results = results(post(&rig, media_type, body).await).await;
        assert_eq!(statuses(&results), [204, 400, 400, 413, 204], "{results:?}");
        assert_eq!(results[0]["delivery"], "hub");
        assert_eq!(results[1]["code"], "invalid_request");
        assert_eq!(results[3]["code"], "message_too_large");
        assert_eq!(results[3]["retryable"], false);
        assert_eq!(sent(&rig), ["first", "last"], "{media_type}");
    }
}

#[tokio::test]
async fn what_the_hub_does_to_one_message_is_said_of_that_one() {
    let mut rig = Rig::start().await;
    let throttled = Failure::HubError {
        status: 429,
        error: Some(Box::new(HubError {
            error_code: 429_001,
            tracking_id: String::new(),
            message: "slow down".to_owned(),
            timestamp_utc: String::new(),
            info: Value::Null,
        })),
    };
    fails_at(&mut rig, "b", throttled).await;
    let body = r#"[{"body":"a"},{"body":"b"},{"body":"c"}]"#;
    let results = results(post(&rig, LIST, body).await).await;
    assert_eq!(statuses(&results), [204, 429, 204]);
    assert_eq!(results[1]["code"], "throttled");
    assert_eq!(results[1]["retry_after_s"], 10);
}

#[tokio::test]
async fn ours_has_500_messages_and_they_keep_their_order() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    for (count, fits) in [(1, true), (499, true), (500, true), (501, false)] {
        let bodies: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        let items: Vec<String> = bodies
            .iter()
            .map(|body| format!(r#"{{"body":"{body}"}}"#))
            .collect();
        for (media_type, body) in [
            (LIST, format!("[{}]", items.join(","))),
            (LINES, items.join("\n")),
        ] {
            let response = post(&rig, media_type, body).await;
            if fits {
                let results = results(response).await;
                assert_eq!(statuses(&results), vec![204; count]);
                assert_eq!(sent(&rig), bodies);
            } else {
                problem(response, 413, "message_too_large").await;
                assert!(sent(&rig).is_empty());
            }
        }
    }
    for (media_type, body) in [(LIST, "[]"), (LIST, "{}"), (LIST, ""), (LINES, " \n\n")] {
        problem(post(&rig, media_type, body).await, 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn ours_has_a_mebibyte() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let item = format!(r#"{{"body":"{}"}}"#, "x".repeat(200_000));
    let five = format!("[{item},{item},{item},{item},{item}]");
    for (bytes, fits) in [(1_048_575, true), (1_048_576, true), (1_048_577, false)] {
        let body = format!("{five}{}", " ".repeat(bytes - five.len()));
        let response = post(&rig, LIST, body).await;
        if fits {
            assert_eq!(statuses(&results(response).await), [204; 5]);
        } else {
            problem(response, 413, "message_too_large").await;
        }
    }
}

#[tokio::test]
async fn a_batch_larger_than_the_outbox_waits_for_its_own_messages() {
    let config = store::memory::Config {
        outbox_entries: 10,
        ..store::memory::Config::default()
    };
    let mut rig = Rig::over(store::memory::open(config).unwrap(), |_| {}).await;
    rig.hub.acknowledges().await;
    let bodies: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let items: Vec<Value> = bodies.iter().map(|body| json!({"body": body})).collect();
    let response = post(&rig, LIST, Value::from(items).to_string()).await;
    assert_eq!(statuses(&results(response).await), vec![204; 300]);
    assert_eq!(sent(&rig), bodies);
}

#[tokio::test]
async fn where_there_is_no_room_for_one_those_behind_it_do_not_overtake() {
    let config = store::memory::Config {
        outbox_entries: 1,
        ..store::memory::Config::default()
    };
    let rig = Rig::over(store::memory::open(config).unwrap(), |_| {}).await;
    rig.hub.is(SessionState::Connecting).await;
    let other = Submission {
        id: SubmissionId(1),
        identity: identity("dev1"),
        work: Arc::new(Work::TwinRead),
        survival: Survival::Ephemeral {
            deadline: std::time::Instant::now() + PATIENCE,
        },
        fingerprint: None,
    };
    let _ticket = rig.store.outbox.submit(other).await.unwrap();
    let body = r#"[{"body":"a"},{"bodi":"b"},{"body":"c"}]"#;
    let results = results(post(&rig, LIST, body).await).await;
    assert_eq!(statuses(&results), [429, 400, 429]);
    assert_eq!(results[2]["code"], "outbox_full");
    // IoT Hub's own has one answer for all.
    let body = r#"[{"body":"YQ=="},{"body":"Yg=="}]"#;
    let detail = problem(post(&rig, HUB, body).await, 429, "outbox_full").await;
    assert!(detail.contains("0 of the 2 messages"), "{detail}");
}
