//! The inbox: everything in one list, shown until it is settled.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{Conclusion, SessionState};

use crate::{
    hub::message,
    rig::{PATIENCE, Rig, assert_status, problem, send, waiting},
};

const INBOX: &str = "/devices/dev1/inbox";
const SETTLE: &str = "/devices/dev1/inbox/settle";

#[tokio::test]
async fn everything_is_shown_in_order_and_stays() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.sends(message("first")).await;
    rig.hub.invokes("second", "7", PATIENCE).await;
    let mut binary = message("");
    binary.payload = vec![0xff, 0].into();
    rig.hub.sends(binary).await;
    rig.hub.wants(8, json!({"interval_s": 5})).await;

    let mut seen = None;
    for _ in 0..3 {
        let response = send(
            rig.request(Method::GET, INBOX)
                .header("if-none-match", "\"7\""),
        )
        .await;
        assert_status(&response, StatusCode::OK);
        assert!(!response.headers().contains_key("tombolo-inbox"));
        let mut body: Value = response.json().await.unwrap();
        assert_eq!(body["complete"], true);
        let entries = body["entries"].as_array_mut().unwrap();
        let kinds: Vec<&str> = entries
            .iter()
            .map(|entry| entry["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["message", "method", "message", "desired"]);
        assert_eq!(entries[0]["body"], "first");
        assert_eq!(entries[1]["payload"], 7);
        assert_eq!(
            (&entries[2]["body"], &entries[2]["encoding"]),
            (&json!("/wA="), &json!("base64"))
        );
        assert_eq!(
            entries[3]["properties"],
            json!({"interval_s": 5, "$version": 8})
        );
        entries[1]["expires_in_ms"] = Value::Null;
        assert_eq!(
            seen.get_or_insert_with(|| body.clone()),
            &body,
            "reading changes nothing"
        );
    }
    // Without a version to compare with, and with the newest one, the desired properties are no news.
    for tag in [None, Some("\"8\"")] {
        let mut request = rig.request(Method::GET, INBOX);
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        let body: Value = send(request).await.json().await.unwrap();
        assert_eq!(body["entries"].as_array().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn many_are_settled_at_once_and_each_has_its_result() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    let (first, _) = rig.hub.sends(message("1")).await;
    rig.hub.sends(message("2")).await;
    let body: Value = rig.get(INBOX).await.json().await.unwrap();
    let token = |place: usize| body["entries"][place]["token"].clone();
    rig.hub.concludes(first, Conclusion::Hub).await;

    let settlements = json!([
        {"token": token(0), "outcome": "complete"},
        {"token": token(1), "outcome": "abandon"},
        {"token": "nonsense", "outcome": "reject"},
    ]);
    let request = rig
        .request(Method::POST, SETTLE)
        .header("prefer", "wait=1")
        .body(settlements.to_string());
    let answer = waiting(request);
    // Concluding is harmless before and after the settlement; which of the two it is here is not fixed.
    while !answer.is_finished() {
        rig.hub.concludes(first, Conclusion::Hub).await;
        tokio::task::yield_now().await;
    }
    let response = answer.result().await;
    assert_status(&response, StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    let results = body["results"].as_array().unwrap();
    assert_eq!(
        (&results[0]["status"], &results[0]["delivery"]),
        (&json!(204), &json!("hub")),
        "{body}"
    );
    assert_eq!(results[1]["status"], 204, "{body}");
    assert_eq!(
        (&results[2]["status"], &results[2]["code"]),
        (&json!(412), &json!("lock_lost")),
        "{body}"
    );
    assert_eq!(results[2]["token"], "nonsense");

    let body: Value = rig.get(INBOX).await.json().await.unwrap();
    assert_eq!(body["entries"][0]["body"], "2");
    assert_eq!(body["entries"][0]["delivery_count"], 1);
}

#[tokio::test]
async fn a_list_of_settlements_has_limits() {
    let rig = Rig::start().await;
    let list = |length: usize| {
        let item = json!({"token": "t", "outcome": "complete"});
        Value::from(vec![item; length]).to_string()
    };
    problem(rig.post(SETTLE, list(0)).await, 400, "invalid_request").await;
    for length in [1, 499, 500] {
        let body: Value = rig.post(SETTLE, list(length)).await.json().await.unwrap();
        assert_eq!(body["results"].as_array().unwrap().len(), length);
    }
    problem(rig.post(SETTLE, list(501)).await, 413, "message_too_large").await;
    for bad in [
        "",
        "{}",
        r#"[{"token":"t"}]"#,
        r#"[["t","complete"]]"#,
        r#"[{"token":"t","outcome":"ack"}]"#,
    ] {
        problem(rig.post(SETTLE, bad).await, 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn an_empty_inbox_is_partial_until_the_session_is_settled() {
    let rig = Rig::with(|config| config.waits.hub = Duration::from_millis(300)).await;
    rig.hub.is(SessionState::Connected).await;
    let response = rig.get(INBOX).await;
    assert_status(&response, StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["tombolo-inbox"], "partial");
    rig.hub.is(SessionState::Settled).await;
    let response = rig.get(INBOX).await;
    assert_status(&response, StatusCode::NO_CONTENT);
    assert!(!response.headers().contains_key("tombolo-inbox"));
}

#[tokio::test]
async fn what_is_shown_before_the_desired_properties_are_known_is_not_all() {
    let mut rig = Rig::with(|config| config.waits.hub = Duration::from_millis(300)).await;
    rig.hub.is(SessionState::Settled).await;
    let request = rig
        .request(Method::GET, INBOX)
        .header("if-none-match", "\"7\"");
    let again = request.try_clone().unwrap();
    let response = send(request).await;
    assert_status(&response, StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["tombolo-inbox"], "partial");
    rig.hub.sends(message("early")).await;
    let response = send(again).await;
    assert_eq!(response.headers()["tombolo-inbox"], "partial");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["complete"], false);
}

#[tokio::test]
async fn a_request_waits_for_the_session_to_settle() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Connecting).await;
    let poll = waiting(rig.request(Method::GET, INBOX));
    rig.hub.until_needed(|needs| needs.session, true).await;
    assert!(!poll.is_finished());
    rig.hub.is(SessionState::Settled).await;
    let response = poll.result().await;
    assert_status(&response, StatusCode::NO_CONTENT);
    assert!(!response.headers().contains_key("tombolo-inbox"));
}

#[tokio::test]
async fn what_is_shown_before_the_session_settles_is_not_all() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Connected).await;
    rig.hub.sends(message("early")).await;
    let response = rig.get(INBOX).await;
    assert_eq!(response.headers()["tombolo-inbox"], "partial");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["complete"], false);
}

#[tokio::test]
async fn a_wait_ends_in_time() {
    let rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    let start = std::time::Instant::now();
    let request = rig.request(Method::GET, INBOX).header("prefer", "wait=1");
    // The client has less patience than a poll that does not say how long it waits.
    assert_status(&send(request).await, StatusCode::NO_CONTENT);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_wait_is_cut_to_the_longest_allowed() {
    let rig = Rig::with(|config| config.waits.most = Duration::from_secs(1)).await;
    rig.hub.is(SessionState::Settled).await;
    let request = rig
        .request(Method::GET, INBOX)
        .header("prefer", "wait=3600");
    // Within the client's patience.
    assert_status(&send(request).await, StatusCode::NO_CONTENT);
}
