//! Buying tokens: no more than the credential opens, no longer than what it hangs on.

use std::time::{Duration, SystemTime};

use iothub::Timestamp;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use store::{SessionState, StoreError, TokenHash, TokenId, TokenRecord, Verdict};

use crate::{
    hub::{Hub, message},
    rig::{
        PATIENCE, Rig, TOKEN, assert_status, identity, module, problem, send, serve, serve_device,
    },
    signatures::{appoint, checked, in_an_hour, signature},
};

const TOKENS: &str = "/devices/dev1/token";
const DAY: u64 = 24 * 3600;

fn buys(rig: &Rig, token: &str, wish: &Value) -> RequestBuilder {
    rig.anonymous(Method::POST, TOKENS)
        .bearer_auth(token)
        .body(wish.to_string())
}

/// Buys a token; gives its text and the rest of the answer.
async fn bought(request: RequestBuilder) -> (String, Value) {
    let response = send(request).await;
    assert_status(&response, StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    (body["token"].as_str().unwrap().to_owned(), body)
}

/// Seconds that a token lives.
fn lifetime(body: &Value) -> u64 {
    let end: Timestamp = body["expires_at"].as_str().unwrap().parse().unwrap();
    // Rounded, for some time has passed since it was made.
    (end.saturating_since(SystemTime::now().into()).as_secs() + 30) / 60 * 60
}

async fn with_lifetime(rig: &Rig, token: &str, lifetime: Duration) {
    serve_device(&rig.store, &identity("dev1"), token).await;
    let record = rig.store.registry.token(&TokenHash::of(token)).await;
    let now = Timestamp::from(SystemTime::now());
    let record = TokenRecord {
        expires_at: Some(now.saturating_add(lifetime)),
        ..record.unwrap().unwrap()
    };
    rig.store.registry.put_token(record).await.unwrap();
}

#[tokio::test]
async fn a_token_buys_a_token_for_a_day() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let (token, body) = bought(buys(&rig, TOKEN, &json!({}))).await;
    assert!(token.starts_with("tmb_"));
    assert_eq!(lifetime(&body), DAY);
    assert_eq!(
        body["scope"],
        json!(["telemetry", "messages", "twin", "methods", "files"])
    );
    let request = rig
        .anonymous(Method::POST, "/devices/dev1/messages/events")
        .bearer_auth(&token)
        .body("x");
    assert_status(&send(request).await, StatusCode::NO_CONTENT);
    // Operators see it, and revoke it like every other.
    let id = body["token_id"].as_str().unwrap();
    let path = format!("/admin/v1/tokens/{id}?device=dev1");
    assert_status(
        &send(rig.admin(Method::DELETE, &path)).await,
        StatusCode::NO_CONTENT,
    );
    problem(
        send(buys(&rig, &token, &json!({}))).await,
        401,
        "unauthenticated",
    )
    .await;
}

#[tokio::test]
async fn a_lifetime_is_between_a_minute_and_thirty_days() {
    let rig = Rig::start().await;
    for (seconds, is_good) in [
        (59, false),
        (60, true),
        (61, true),
        (30 * DAY - 1, true),
        (30 * DAY, true),
        (30 * DAY + 1, false),
    ] {
        let request = buys(&rig, TOKEN, &json!({"lifetime_s": seconds}));
        if is_good {
            let (_, body) = bought(request).await;
            assert_eq!(lifetime(&body), (seconds + 30) / 60 * 60);
        } else {
            problem(send(request).await, 400, "invalid_request").await;
        }
    }
    for bad in ["", "[]", r#"{"lifetime":60}"#, r#"{"scope":["all"]}"#] {
        let request = rig.request(Method::POST, TOKENS).body(bad);
        problem(send(request).await, 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn a_bought_token_does_not_outlive_what_it_was_bought_with() {
    let rig = Rig::start().await;
    with_lifetime(&rig, "tmb_short", Duration::from_secs(3600)).await;
    let (_, body) = bought(buys(&rig, "tmb_short", &json!({"lifetime_s": DAY}))).await;
    assert_eq!(lifetime(&body), 3600);
    let (_, body) = bought(buys(&rig, "tmb_short", &json!({"lifetime_s": 600}))).await;
    assert_eq!(lifetime(&body), 600);

    // What the device's key made is proof of the key; what only the hub can judge is all that there is.
    let with_signature = || {
        let token = signature("hub.example/devices/dev1");
        let request = rig.anonymous(Method::POST, TOKENS);
        request.header("authorization", token).body("{}")
    };
    appoint(&rig, |_, _| Ok(checked()));
    assert_eq!(lifetime(&bought(with_signature()).await.1), DAY);
    appoint(&rig, |_, _| {
        Ok(Verdict::Accepted {
            expires_at: in_an_hour(),
        })
    });
    assert_eq!(lifetime(&bought(with_signature()).await.1), 3600);
}

#[tokio::test]
async fn revoking_a_token_revokes_what_was_bought_with_it() {
    let rig = Rig::start().await;
    let mut chain = vec![TOKEN.to_owned()];
    for _ in 0..4 {
        let newest = chain.last().unwrap();
        chain.push(bought(buys(&rig, newest, &json!({}))).await.0);
    }
    problem(
        send(buys(&rig, &chain[4], &json!({}))).await,
        403,
        "forbidden",
    )
    .await;
    let second = rig
        .store
        .registry
        .token(&TokenHash::of(&chain[2]))
        .await
        .unwrap()
        .unwrap();
    let device = identity("dev1");
    let revoked = rig.store.registry.revoke_token(&device, &second.id);
    assert!(revoked.await.unwrap());
    for (place, token) in chain.iter().enumerate() {
        let request = rig
            .anonymous(Method::POST, "/devices/dev1/inbox/settle")
            .bearer_auth(token)
            .body("[]");
        let status = send(request).await.status().as_u16();
        assert_eq!(status, if place < 2 { 400 } else { 401 }, "{place}");
    }
}

#[tokio::test]
async fn a_token_opens_what_its_scope_says() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.sends(message("x")).await;
    let id = rig.hub.invokes("m", "", PATIENCE).await;
    rig.hub.wants(7, json!({})).await;
    let lock = "00000000-0000-0000-0000-000000000000";
    let calls = [
        ("telemetry", "POST", "messages/events".to_owned(), "x"),
        ("messages", "GET", "messages/devicebound".to_owned(), ""),
        (
            "messages",
            "DELETE",
            format!("messages/devicebound/{lock}"),
            "",
        ),
        (
            "messages",
            "POST",
            format!("messages/devicebound/{lock}/abandon"),
            "",
        ),
        ("messages", "POST", "inbox/settle".to_owned(), "[]"),
        ("twin", "GET", "twin".to_owned(), ""),
        ("twin", "PATCH", "twin/properties/reported".to_owned(), "7"),
        ("twin", "GET", "twin/properties/desired".to_owned(), ""),
        ("methods", "GET", "methods".to_owned(), ""),
        ("methods", "POST", format!("methods/{id}/response"), "7"),
        ("files", "POST", "files".to_owned(), "{}"),
    ];
    for scope in ["telemetry", "messages", "twin", "methods", "files"] {
        let (token, body) = bought(buys(&rig, TOKEN, &json!({"scope": [scope]}))).await;
        assert_eq!(body["scope"], json!([scope]));
        for (needed, method, path, body) in &calls {
            let request = rig
                .anonymous(method.parse().unwrap(), &format!("/devices/dev1/{path}"))
                .bearer_auth(&token)
                .header("prefer", "wait=1")
                .body(*body);
            let status = send(request).await.status();
            let is_open = status != StatusCode::FORBIDDEN;
            assert_eq!(is_open, *needed == scope, "{method} {path} with {scope}");
        }
        // The inbox shows what the token opens.
        let request = rig
            .anonymous(Method::GET, "/devices/dev1/inbox")
            .bearer_auth(&token)
            .header("if-none-match", "\"6\"");
        let response = send(request).await;
        let kind = match scope {
            "messages" => "message",
            "methods" => "method",
            "twin" => "desired",
            _ => {
                problem(response, 403, "forbidden").await;
                continue;
            }
        };
        let body: Value = response.json().await.unwrap();
        let kinds: Vec<&str> = body["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, [kind]);
        // Nobody buys more than he has.
        let wish = json!({"scope": ["telemetry", "twin"]});
        problem(send(buys(&rig, &token, &wish)).await, 403, "forbidden").await;
    }
}

#[tokio::test]
async fn a_device_has_so_many_bought_tokens_at_once() {
    let rig = Rig::with(|config| config.limits.bought_tokens = 2).await;
    let wish = json!({"lifetime_s": 600});
    let (_, first) = bought(buys(&rig, TOKEN, &wish)).await;
    bought(buys(&rig, TOKEN, &wish)).await;
    let response = send(buys(&rig, TOKEN, &wish)).await;
    let seconds: u64 = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((590..=600).contains(&seconds), "{seconds}");
    problem(response, 429, "throttled").await;

    // One that is over leaves its place, and the registry.
    let registry = &rig.store.registry;
    let records = registry.tokens(&identity("dev1")).await.unwrap();
    let record = records
        .iter()
        .find(|record| first["token_id"] == record.id.0.as_str());
    let over = TokenRecord {
        expires_at: Some(SystemTime::now().into()),
        ..record.unwrap().clone()
    };
    let over_id = over.id.clone();
    registry.put_token(over).await.unwrap();
    bought(buys(&rig, TOKEN, &wish)).await;
    let left: Vec<TokenId> = registry
        .tokens(&identity("dev1"))
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.id)
        .collect();
    assert!(left.len() == 3 && !left.contains(&over_id), "{left:?}");
}

#[tokio::test]
async fn a_module_has_a_token_of_its_own() {
    let rig = Rig::start().await;
    let m1 = module("dev1", "m1");
    serve(&rig.store, &m1).await;
    let mut hub = Hub::new(&rig.store, &m1).await;
    hub.acknowledges().await;
    let request = rig
        .request(Method::POST, "/devices/dev1/modules/m1/token")
        .body("{}");
    let (token, _) = bought(request).await;
    let sends = |path: &str| {
        rig.anonymous(Method::POST, path)
            .bearer_auth(&token)
            .body("x")
    };
    let own = send(sends("/devices/dev1/modules/m1/messages/events")).await;
    assert_status(&own, StatusCode::NO_CONTENT);
    for path in [
        "/devices/dev1/messages/events",
        "/devices/dev1/modules/m2/messages/events",
        "/devices/dev2/modules/m1/messages/events",
    ] {
        problem(send(sends(path)).await, 403, "forbidden").await;
    }
}

#[tokio::test]
async fn a_device_that_is_passed_through_needs_no_record() {
    let rig = Rig::start().await;
    appoint(&rig, |_, _| {
        Ok::<_, StoreError>(Verdict::Accepted {
            expires_at: in_an_hour(),
        })
    });
    let mut hub = Hub::new(&rig.store, &identity("dev7")).await;
    hub.acknowledges().await;
    let request = rig
        .anonymous(Method::POST, "/devices/dev7/token")
        .header("authorization", signature("hub.example/devices/dev7"))
        .body("{}");
    let (token, _) = bought(request).await;
    let request = rig
        .anonymous(Method::POST, "/devices/dev7/messages/events")
        .bearer_auth(&token)
        .body("x");
    assert_status(&send(request).await, StatusCode::NO_CONTENT);
}
