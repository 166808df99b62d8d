//! Direct methods: shown while they can be answered, answered once.

use std::time::{Duration, SystemTime};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{
    Failure, Scope, Scopes, SessionState, TokenHash, TokenId, TokenOrigin, TokenRecord, Work,
};

use crate::rig::{PATIENCE, Rig, assert_status, identity, problem, send, waiting};

const METHODS: &str = "/devices/dev1/methods";

#[tokio::test]
async fn a_method_is_shown_and_answered() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.acknowledges().await;
    let id = rig
        .hub
        .invokes("reboot", r#"{"delay_s":5}"#, PATIENCE)
        .await;

    let response = rig.get(METHODS).await;
    assert_status(&response, StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    let method = &body["methods"][0];
    assert_eq!(method["request_id"], id.to_string());
    assert_eq!(method["name"], "reboot");
    assert_eq!(method["payload"], json!({"delay_s": 5}));
    assert!(method["expires_in_ms"].as_u64().unwrap() <= 20_000);

    let path = format!("{METHODS}/{id}/response");
    let response = rig
        .post(&path, r#"{"status":200,"payload":{"ok":true}}"#)
        .await;
    assert_status(&response, StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["tombolo-delivery"], "hub");
    {
        let taken = rig.hub.taken.lock();
        let [Work::MethodAnswer { request, response }] = taken.as_slice() else {
            panic!("one answer was sent: {taken:?}");
        };
        assert_eq!(*request, id);
        assert_eq!(response.status, 200);
        assert_eq!(&response.payload[..], br#"{"ok":true}"#);
    }
    problem(
        rig.post(&path, r#"{"status":200}"#).await,
        410,
        "method_gone",
    )
    .await;
    assert_status(&rig.get(METHODS).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_waiting_request_gets_the_method_as_it_comes() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    let request = rig
        .request(Method::GET, METHODS)
        .header("prefer", "wait=15");
    let poll = waiting(request);
    rig.hub.until_needed(|needs| needs.methods, true).await;
    rig.hub.invokes("blink", "", PATIENCE).await;
    let body: Value = poll.result().await.json().await.unwrap();
    assert_eq!(body["methods"][0]["payload"], Value::Null);
    rig.hub.until_needed(|needs| needs.methods, false).await;
}

#[tokio::test]
async fn an_answer_to_nothing_is_refused() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.acknowledges().await;
    let answer = r#"{"status":200}"#;
    for no_id in ["nonsense", "3.1%2F2", "03.1", "3."] {
        let response = rig
            .post(&format!("{METHODS}/{no_id}/response"), answer)
            .await;
        problem(response, 404, "not_found").await;
    }
    for not_open in ["3.77", "ffffffffffffffff.1"] {
        let response = rig
            .post(&format!("{METHODS}/{not_open}/response"), answer)
            .await;
        problem(response, 410, "method_gone").await;
    }
    let late = rig.hub.invokes("late", "", Duration::ZERO).await;
    problem(
        rig.post(&format!("{METHODS}/{late}/response"), answer)
            .await,
        410,
        "method_gone",
    )
    .await;
    let lost = rig.hub.invokes("lost", "", PATIENCE).await;
    rig.hub.loses_the_connection().await;
    problem(
        rig.post(&format!("{METHODS}/{lost}/response"), answer)
            .await,
        410,
        "method_gone",
    )
    .await;
    assert!(rig.hub.taken.lock().is_empty());
}

#[tokio::test]
async fn an_answer_whose_connection_ends_on_the_way_is_gone() {
    let mut rig = Rig::start().await;
    rig.hub.settles(|_| Some(Err(Failure::MethodGone))).await;
    let id = rig.hub.invokes("m", "", PATIENCE).await;
    problem(
        rig.post(&format!("{METHODS}/{id}/response"), r#"{"status":200}"#)
            .await,
        410,
        "method_gone",
    )
    .await;
}

#[tokio::test]
async fn an_answer_that_was_not_sent_cannot_be_sent_again() {
    let mut rig = Rig::start().await;
    for (failure, status, code) in [
        (Failure::HubUnavailable, 410, "method_gone"),
        (Failure::CredentialRefused, 410, "method_gone"),
        (Failure::Stopping, 410, "method_gone"),
        // It may have been sent.
        (Failure::HubTimeout, 504, "hub_timeout"),
    ] {
        rig.hub.settles(move |_| Some(Err(failure.clone()))).await;
        let id = rig.hub.invokes("m", "", PATIENCE).await;
        let path = format!("{METHODS}/{id}/response");
        problem(rig.post(&path, r#"{"status":200}"#).await, status, code).await;
    }
}

#[tokio::test]
async fn a_wait_without_a_number_is_the_usual_one() {
    let rig = Rig::with(|config| config.waits.poll = Duration::from_secs(1)).await;
    rig.hub.is(SessionState::Settled).await;
    let start = std::time::Instant::now();
    let request = rig.request(Method::GET, METHODS).header("prefer", "wait");
    // The client has less patience than the longest wait that is allowed.
    assert_status(&send(request).await, StatusCode::NO_CONTENT);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_bad_answer_leaves_the_method_open() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.acknowledges().await;
    let id = rig.hub.invokes("m", "", PATIENCE).await;
    let path = format!("{METHODS}/{id}/response");
    for bad in [
        "",
        "{}",
        "[]",
        "[200]",
        r#"{"status":"200"}"#,
        r#"{"status":200,"paylod":1}"#,
        r#"{"status":3000000000}"#,
    ] {
        problem(rig.post(&path, bad).await, 400, "invalid_request").await;
    }
    // A JSON string of n characters has n + 2 bytes.
    let of_size =
        |bytes: usize| json!({"status": 200, "payload": "x".repeat(bytes - 2)}).to_string();
    problem(
        rig.post(&path, of_size(131_073)).await,
        413,
        "message_too_large",
    )
    .await;
    assert_status(
        &rig.post(&path, of_size(131_072)).await,
        StatusCode::NO_CONTENT,
    );
}

#[tokio::test]
async fn nothing_waiting_is_said_of_a_settled_session_only() {
    let rig = Rig::with(|config| config.waits.hub = Duration::from_millis(300)).await;
    for (state, expected) in [
        (SessionState::Settled, None),
        (SessionState::Connected, Some("partial")),
        (SessionState::Connecting, Some("partial")),
    ] {
        rig.hub.is(state).await;
        let response = rig.get(METHODS).await;
        assert_status(&response, StatusCode::NO_CONTENT);
        let partial = response
            .headers()
            .get("tombolo-inbox")
            .map(|value| value.to_str().unwrap());
        assert_eq!(partial, expected, "{state:?}");
    }
    rig.hub.is(SessionState::Unreachable).await;
    problem(
        send(rig.request(Method::GET, METHODS)).await,
        503,
        "hub_unavailable",
    )
    .await;
    rig.hub.is(SessionState::Refused).await;
    problem(
        send(rig.request(Method::GET, METHODS)).await,
        502,
        "hub_refused",
    )
    .await;
}

#[tokio::test]
async fn nothing_waiting_is_said_only_while_methods_are_offered() {
    let rig = Rig::with(|config| config.waits.hub = Duration::from_millis(300)).await;
    rig.hub.is_offering(SessionState::Settled, false).await;
    for (path, wait, is_partial) in [
        (METHODS, None, true),
        (METHODS, Some("wait=1"), true),
        ("/devices/dev1/inbox", None, true),
        ("/devices/dev1/inbox", Some("wait=1"), true),
        // It carries no methods.
        ("/devices/dev1/messages/devicebound", None, false),
    ] {
        let mut request = rig.request(Method::GET, path);
        if let Some(wait) = wait {
            request = request.header("prefer", wait);
        }
        let response = send(request).await;
        assert_status(&response, StatusCode::NO_CONTENT);
        let headers = response.headers();
        assert_eq!(
            headers.contains_key("tombolo-inbox"),
            is_partial,
            "{path} {wait:?}"
        );
    }
}

#[tokio::test]
async fn a_request_waits_until_methods_are_offered() {
    for path in [METHODS, "/devices/dev1/inbox"] {
        let mut rig = Rig::start().await;
        rig.hub.is_offering(SessionState::Settled, false).await;
        let poll = waiting(rig.request(Method::GET, path));
        rig.hub.until_needed(|needs| needs.methods, true).await;
        assert!(!poll.is_finished());
        rig.hub.is_offering(SessionState::Settled, true).await;
        let response = poll.result().await;
        assert_status(&response, StatusCode::NO_CONTENT);
        assert!(!response.headers().contains_key("tombolo-inbox"));

        // One that waited in the hub comes before they are said to be offered.
        rig.hub.is_offering(SessionState::Settled, false).await;
        let poll = waiting(rig.request(Method::GET, path));
        rig.hub.until_needed(|needs| needs.methods, true).await;
        rig.hub.invokes("waited", "", PATIENCE).await;
        let text = poll.result().await.text().await.unwrap();
        assert!(text.contains("waited"), "{text}");
    }
}

#[tokio::test]
async fn who_has_no_scope_for_methods_does_not_wait_for_them() {
    let rig = Rig::start().await;
    rig.hub.is_offering(SessionState::Settled, false).await;
    let record = TokenRecord {
        id: TokenId("messages".to_owned()),
        identity: identity("dev1"),
        hash: TokenHash::of("tmb_messages"),
        created_at: SystemTime::now().into(),
        expires_at: None,
        scopes: Scopes::from_iter([Scope::Messages]),
        origin: TokenOrigin::Operator,
    };
    rig.store.registry.put_token(record).await.unwrap();
    let request = rig.anonymous(Method::GET, "/devices/dev1/inbox");
    let response = send(request.bearer_auth("tmb_messages")).await;
    assert_status(&response, StatusCode::NO_CONTENT);
    assert!(!response.headers().contains_key("tombolo-inbox"));
}
