//! The twin: read, patched, followed.

use std::{sync::Arc, time::Duration};

use iothub::twin::{Twin, TwinVersion};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{Done, SessionState, Work};

use crate::rig::{Rig, assert_status, problem, send, waiting};

const TWIN: &str = "/devices/dev1/twin";
const REPORTED: &str = "/devices/dev1/twin/properties/reported";
const DESIRED: &str = "/devices/dev1/twin/properties/desired";

#[tokio::test]
async fn the_twin_has_both_sections_and_a_tag() {
    let mut rig = Rig::start().await;
    let twin = Arc::new(
        Twin::parse(br#"{"desired":{"a":1,"$version":7},"reported":{"b":2,"$version":12}}"#)
            .unwrap(),
    );
    rig.hub
        .settles(move |_| Some(Ok(Done::TwinRead(twin.clone()))))
        .await;
    let response = rig.get(TWIN).await;
    assert_status(&response, StatusCode::OK);
    assert_eq!(response.headers()["etag"], "\"d7-r12\"");
    assert_eq!(
        response.json::<Value>().await.unwrap(),
        json!({"desired": {"a": 1, "$version": 7}, "reported": {"b": 2, "$version": 12}})
    );
    let request = rig
        .request(Method::GET, TWIN)
        .header("if-none-match", "\"d7-r12\"");
    assert_status(&send(request).await, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_patch_is_answered_with_the_new_version_if_the_hub_names_one() {
    let mut rig = Rig::start().await;
    for (version, body) in [(Some(13), json!({"$version": 13})), (None, json!({}))] {
        let done = Done::ReportedPatched {
            version: version.map(TwinVersion),
        };
        rig.hub.settles(move |_| Some(Ok(done.clone()))).await;
        let response = send(
            rig.request(Method::PATCH, REPORTED)
                .body(r#"{"battery":0.8,"old":null}"#),
        )
        .await;
        assert_status(&response, StatusCode::OK);
        assert_eq!(response.headers()["tombolo-delivery"], "hub");
        assert_eq!(response.json::<Value>().await.unwrap(), body);
    }
    let taken = rig.hub.taken.lock();
    let Work::ReportedPatch(patch) = &taken[0] else {
        panic!("a patch was sent");
    };
    assert_eq!(
        Value::Object(patch.as_map().clone()),
        json!({"battery": 0.8, "old": null})
    );
}

#[tokio::test]
async fn a_broken_rule_is_named_before_anything_leaves() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    for (body, part) in [
        (r#"{"a":{"b$":1}}"#, "a.b$"),
        (r#"{"":1}"#, "empty"),
        (r#"{"a.b":1}"#, "'.'"),
        (r#"{"a":9007199254740993}"#, "integer"),
        (r#"{"a":[null]}"#, "null"),
        ("[1]", "object"),
        ("{", "JSON"),
        ("", "JSON"),
    ] {
        let response = send(rig.request(Method::PATCH, REPORTED).body(body)).await;
        let detail = problem(response, 400, "invalid_request").await;
        assert!(detail.contains(part), "{detail}");
    }
    let large: serde_json::Map<_, _> = (0..9)
        .map(|n| (n.to_string(), "x".repeat(4000).into()))
        .collect();
    let response = send(
        rig.request(Method::PATCH, REPORTED)
            .body(Value::Object(large).to_string()),
    )
    .await;
    problem(response, 413, "message_too_large").await;
    assert!(rig.hub.taken.lock().is_empty());
}

#[tokio::test]
async fn desired_properties_come_from_memory_while_they_are_followed() {
    let rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.wants(7, json!({"interval_s": 60})).await;
    let response = rig.get(DESIRED).await;
    assert_status(&response, StatusCode::OK);
    assert_eq!(response.headers()["etag"], "\"7\"");
    assert_eq!(
        response.json::<Value>().await.unwrap(),
        json!({"interval_s": 60, "$version": 7})
    );
    assert!(rig.hub.taken.lock().is_empty());
    for (tag, status) in [
        ("\"7\"", StatusCode::NOT_MODIFIED),
        ("W/\"7\"", StatusCode::NOT_MODIFIED),
        ("\"6\"", StatusCode::OK),
    ] {
        let response = send(
            rig.request(Method::GET, DESIRED)
                .header("if-none-match", tag),
        )
        .await;
        assert_status(&response, status);
        assert_eq!(response.headers()["etag"], "\"7\"");
    }
}

#[tokio::test]
async fn a_wait_ends_with_another_version() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.wants(7, json!({"interval_s": 60})).await;
    let request = rig
        .request(Method::GET, DESIRED)
        .header("if-none-match", "\"7\"")
        .header("prefer", "wait=15");
    let poll = waiting(request);
    rig.hub.until_needed(|needs| needs.desired, true).await;
    assert!(!poll.is_finished());
    rig.hub.wants(8, json!({"interval_s": 5})).await;
    let response = poll.result().await;
    assert_eq!(
        response.json::<Value>().await.unwrap(),
        json!({"interval_s": 5, "$version": 8})
    );
}

#[tokio::test]
async fn a_wait_without_change_ends_with_304() {
    let rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.wants(7, json!({})).await;
    let request = rig
        .request(Method::GET, DESIRED)
        .header("if-none-match", "\"7\"")
        .header("prefer", "wait=1");
    let start = std::time::Instant::now();
    assert_status(&send(request).await, StatusCode::NOT_MODIFIED);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn desired_properties_of_an_older_connection_are_stale() {
    let mut rig = Rig::with(|config| config.waits.hub = Duration::from_millis(300)).await;
    rig.hub.wants(7, json!({})).await;
    rig.hub.loses_the_connection().await;
    rig.hub.is(SessionState::Connected).await;
    problem(rig.get(DESIRED).await, 504, "hub_timeout").await;
    rig.hub.is(SessionState::Unreachable).await;
    problem(rig.get(DESIRED).await, 503, "hub_unavailable").await;
    rig.hub.is(SessionState::Refused).await;
    problem(rig.get(DESIRED).await, 502, "hub_refused").await;
}

#[tokio::test]
async fn a_wait_during_which_the_session_is_lost_does_not_end_with_304() {
    for (state, status, code) in [
        (SessionState::Unreachable, 503, "hub_unavailable"),
        (SessionState::Connecting, 504, "hub_timeout"),
    ] {
        let mut rig = Rig::with(|config| config.waits.hub = Duration::from_millis(300)).await;
        rig.hub.is(SessionState::Settled).await;
        rig.hub.wants(7, json!({})).await;
        let request = rig
            .request(Method::GET, DESIRED)
            .header("if-none-match", "\"7\"")
            .header("prefer", "wait=1");
        let poll = waiting(request);
        rig.hub.until_needed(|needs| needs.desired, true).await;
        rig.hub.loses_the_connection().await;
        rig.hub.is(state).await;
        problem(poll.result().await, status, code).await;
    }
}

#[tokio::test]
async fn a_wait_goes_on_over_a_new_connection() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.wants(7, json!({})).await;
    let request = rig
        .request(Method::GET, DESIRED)
        .header("if-none-match", "\"7\"")
        .header("prefer", "wait=2");
    let poll = waiting(request);
    rig.hub.until_needed(|needs| needs.desired, true).await;
    rig.hub.loses_the_connection().await;
    rig.hub.is(SessionState::Connecting).await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.wants(7, json!({})).await;
    assert_status(&poll.result().await, StatusCode::NOT_MODIFIED);
}
