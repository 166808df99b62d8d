//! Bad credentials, ids, headers and bodies: each with its status, none with an effect.

use std::time::{Duration, SystemTime};

use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderValue};
use store::{Scopes, SessionState, TokenHash, TokenId, TokenOrigin, TokenRecord};

use crate::rig::{Rig, TOKEN, assert_status, identity, problem, send, serve_device};

const EVENTS: &str = "/devices/dev1/messages/events";

async fn unauthenticated(request: RequestBuilder) -> String {
    problem(send(request).await, 401, "unauthenticated").await
}

#[tokio::test]
async fn a_credential_that_is_none_speaks_for_nobody() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let post = || rig.anonymous(Method::POST, EVENTS).body("x");
    unauthenticated(post()).await;
    for credential in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer tmb_wrong",
        "tmb_of-dev1",
        "Basic ZGV2MTp0bWI=",
    ] {
        unauthenticated(post().header("authorization", credential)).await;
    }
    assert!(rig.hub.taken.lock().is_empty());
}

#[tokio::test]
async fn an_expired_or_revoked_token_speaks_for_nobody() {
    let rig = Rig::start().await;
    let expired = TokenRecord {
        id: TokenId("old".to_owned()),
        identity: identity("dev1"),
        hash: TokenHash::of("tmb_old"),
        created_at: SystemTime::UNIX_EPOCH.into(),
        expires_at: Some((SystemTime::now() - Duration::from_secs(1)).into()),
        scopes: Scopes::ALL,
        origin: TokenOrigin::Operator,
    };
    rig.store.registry.put_token(expired).await.unwrap();
    let detail = unauthenticated(rig.anonymous(Method::POST, EVENTS).bearer_auth("tmb_old")).await;
    assert!(detail.contains("expired"), "{detail}");

    let id = TokenId(format!("id-of-the-token-of-{}", identity("dev1")));
    assert!(
        rig.store
            .registry
            .revoke_token(&identity("dev1"), &id)
            .await
            .unwrap()
    );
    unauthenticated(rig.request(Method::POST, EVENTS)).await;
}

#[tokio::test]
async fn apples_clients_have_a_header_of_their_own() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let bearer = format!("Bearer {TOKEN}");
    let own = || {
        rig.anonymous(Method::POST, EVENTS)
            .header("tombolo-authorization", &bearer)
    };
    assert_status(&send(own()).await, StatusCode::NO_CONTENT);
    assert_status(
        &send(own().bearer_auth(TOKEN)).await,
        StatusCode::NO_CONTENT,
    );
    problem(
        send(own().bearer_auth("tmb_other")).await,
        400,
        "invalid_request",
    )
    .await;
}

#[tokio::test]
async fn another_device_is_forbidden_whether_it_exists_or_not() {
    let rig = Rig::start().await;
    serve_device(&rig.store, &identity("dev2"), "tmb_of-dev2").await;
    let mut details = Vec::new();
    for device in ["dev2", "dev3", "DEV1", "dev1%252F"] {
        let response = rig
            .post(&format!("/devices/{device}/messages/events"), "x")
            .await;
        details.push(problem(response, 403, "forbidden").await);
    }
    assert!(
        details.iter().all(|detail| detail == &details[0]),
        "{details:?}"
    );
}

#[tokio::test]
async fn an_id_outside_the_alphabet_is_a_bad_request_of_whoever_is_known() {
    let rig = Rig::start().await;
    for id in [
        "dev1%2Ftwin",
        "dev%201",
        "dev%00",
        "dev%0d%0a",
        "d%23",
        "%2e%2e%2f",
        "dev%zz",
        "%ff",
    ] {
        let path = format!("/devices/{id}/messages/events");
        problem(rig.post(&path, "x").await, 400, "invalid_request").await;
        unauthenticated(rig.anonymous(Method::POST, &path)).await;
    }
    let long = "d".repeat(129);
    problem(
        rig.post(&format!("/devices/{long}/messages/events"), "x")
            .await,
        400,
        "invalid_request",
    )
    .await;
}

#[tokio::test]
async fn a_header_with_a_grammar_keeps_to_it() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    rig.hub.is(SessionState::Settled).await;
    for (name, value) in [
        ("prefer", "wait=soon"),
        ("prefer", "wait=1.5"),
        ("idempotency-key", "too-short"),
        ("idempotency-key", "with a space in it"),
    ] {
        let request = rig
            .request(Method::POST, EVENTS)
            .header(name, value)
            .body("x");
        problem(send(request).await, 400, "invalid_request").await;
    }
    let request = rig
        .request(Method::GET, "/devices/dev1/methods")
        .header("prefer", "wait=soon");
    problem(send(request).await, 400, "invalid_request").await;
    for (path, name) in [
        ("/devices/dev1/methods", "prefer"),
        ("/devices/dev1/twin/properties/desired", "prefer"),
        ("/devices/dev1/twin/properties/desired", "if-none-match"),
        ("/devices/dev1/twin", "if-none-match"),
        ("/devices/dev1/inbox", "if-none-match"),
    ] {
        let beyond_ascii = HeaderValue::from_bytes("\"7\u{e9}\"".as_bytes()).unwrap();
        let request = rig.request(Method::GET, path).header(name, beyond_ascii);
        let detail = problem(send(request).await, 400, "invalid_request").await;
        assert!(detail.contains(name), "{detail}");
    }
    assert!(rig.hub.taken.lock().is_empty());
    let request = rig
        .request(Method::POST, EVENTS)
        .header("idempotency-key", "0123456789abcdef")
        .body("x");
    assert_status(&send(request).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn properties_that_do_not_fit_a_topic_are_too_large() {
    let mut rig = Rig::with(|config| config.limits.header_bytes = 64 * 1024).await;
    rig.hub.acknowledges().await;
    let with = |length: usize| {
        let request = rig
            .request(Method::POST, EVENTS)
            .header("iothub-app-a", "/".repeat(length));
        request.body("x")
    };
    // "devices/dev1/messages/events/a=" and three bytes for each slash.
    let most = (65_535 - "devices/dev1/messages/events/a=".len()) / 3;
    assert_status(&send(with(most)).await, StatusCode::NO_CONTENT);
    problem(send(with(most + 1)).await, 413, "message_too_large").await;
}

#[tokio::test]
async fn a_session_that_is_up_does_not_notice_bad_requests() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.acknowledges().await;
    for _ in 0..20 {
        problem(
            rig.post("/devices/dev1/inbox/settle", "{").await,
            400,
            "invalid_request",
        )
        .await;
        unauthenticated(rig.anonymous(Method::GET, "/devices/dev1/twin")).await;
    }
    assert_eq!(
        rig.store
            .signals
            .status(&identity("dev1"))
            .await
            .unwrap()
            .state,
        SessionState::Settled
    );
    assert_status(&rig.post(EVENTS, "x").await, StatusCode::NO_CONTENT);
    assert_eq!(rig.hub.taken.lock().len(), 1);
}
