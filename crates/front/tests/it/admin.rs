//! The admin API: loopback, a token, no web pages.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::SessionState;
use tombolo_front::{Config, Front, Parts, StartError};

use crate::{
    hub::message,
    rig::{PATIENCE, Rig, assert_status, identity, problem, send},
};

const TOKENS: &str = "/admin/v1/tokens";

#[tokio::test]
async fn health_needs_no_token_and_all_else_does() {
    let rig = Rig::start().await;
    let anonymous = |path: &str| {
        rig.client
            .get(format!("http://{}{path}", rig.handle.admin_address()))
    };
    for path in ["/healthz", "/readyz"] {
        assert_status(&send(anonymous(path)).await, StatusCode::OK);
    }
    for path in ["/metrics", TOKENS, "/admin/v1/devices/dev1", "/nothing"] {
        problem(send(anonymous(path)).await, 401, "unauthenticated").await;
        problem(
            send(anonymous(path).bearer_auth("wrong")).await,
            401,
            "unauthenticated",
        )
        .await;
    }
    let metrics = send(rig.admin(Method::GET, "/metrics")).await;
    assert_eq!(metrics.text().await.unwrap(), "tombolo_test 1\n");
}

#[tokio::test]
async fn whoever_is_ready_says_what_it_stands_on() {
    let rig = Rig::start().await;
    let ready = send(rig.admin(Method::GET, "/readyz")).await;
    // A hub that cannot be reached is told of, and is no reason to send devices elsewhere.
    assert_status(&ready, StatusCode::OK);
    assert_eq!(
        ready.json::<Value>().await.unwrap(),
        json!({
            "listeners": 2,
            "store": "accepting",
            "hubs": [{"hub": "hub.example", "reached": false}],
        })
    );
}

#[tokio::test]
async fn web_pages_and_rebound_names_are_refused() {
    let rig = Rig::start().await;
    for path in ["/healthz", TOKENS] {
        let request = rig
            .admin(Method::GET, path)
            .header("origin", "http://localhost");
        problem(send(request).await, 403, "forbidden").await;
        let request = rig.admin(Method::GET, path).header("host", "evil.example");
        problem(send(request).await, 421, "misdirected").await;
    }
}

#[tokio::test]
async fn a_token_is_made_used_listed_and_revoked() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let body = json!({"device": "dev1", "lifetime_s": 3600}).to_string();
    let response = send(rig.admin(Method::POST, TOKENS).body(body)).await;
    assert_status(&response, StatusCode::CREATED);
    let made: Value = response.json().await.unwrap();
    let (token, id) = (
        made["token"].as_str().unwrap(),
        made["token_id"].as_str().unwrap(),
    );
    assert_eq!(
        (&made["hub"], &made["device"]),
        (&json!("hub.example"), &json!("dev1"))
    );

    let post = || {
        rig.anonymous(Method::POST, "/devices/dev1/messages/events")
            .bearer_auth(token)
    };
    assert_status(&send(post()).await, StatusCode::NO_CONTENT);

    let listed = send(rig.admin(Method::GET, &format!("{TOKENS}?device=dev1")))
        .await
        .text()
        .await
        .unwrap();
    assert!(listed.contains(id) && !listed.contains(token), "{listed}");

    let path = format!("{TOKENS}/{id}?device=dev1");
    assert_status(
        &send(rig.admin(Method::DELETE, &path)).await,
        StatusCode::NO_CONTENT,
    );
    problem(
        send(rig.admin(Method::DELETE, &path)).await,
        404,
        "not_found",
    )
    .await;
    problem(send(post()).await, 401, "unauthenticated").await;
}

#[tokio::test]
async fn a_token_is_for_a_device_that_is_served() {
    let rig = Rig::start().await;
    let create = |body: Value| send(rig.admin(Method::POST, TOKENS).body(body.to_string()));
    problem(create(json!({"device": "dev9"})).await, 404, "not_found").await;
    problem(
        create(json!({"device": "dev1", "hub": "other.example"})).await,
        404,
        "not_found",
    )
    .await;
    problem(
        create(json!({"device": "a/b"})).await,
        400,
        "invalid_request",
    )
    .await;
    problem(
        create(json!({"device": "dev1", "x": 1})).await,
        400,
        "invalid_request",
    )
    .await;
    problem(create(json!({})).await, 400, "invalid_request").await;
    problem(
        send(rig.admin(Method::GET, TOKENS)).await,
        400,
        "invalid_request",
    )
    .await;
}

#[tokio::test]
async fn a_device_is_shown_with_custody_and_session() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.sends(message("x")).await;
    rig.hub.invokes("m", "", PATIENCE).await;
    let shown: Value = send(rig.admin(Method::GET, "/admin/v1/devices/dev1"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(shown["custody"], "hub");
    assert_eq!(shown["method_policy"], "fail-fast");
    assert_eq!(shown["session"]["state"], "settled");
    assert_eq!(shown["session"]["connection"], "3");
    let inbox = &shown["inbox"];
    assert_eq!((&inbox["waiting"], &inbox["bytes"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&inbox["methods"], &inbox["desired_version"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(
        shown["outbox"],
        json!({"waiting": 0, "bytes": 0, "oldest": null, "dead_letters": 0})
    );
    problem(
        send(rig.admin(Method::GET, "/admin/v1/devices/dev9")).await,
        404,
        "not_found",
    )
    .await;
    problem(
        send(rig.admin(Method::POST, "/admin/v1/devices/dev1")).await,
        405,
        "method_not_allowed",
    )
    .await;
}

#[tokio::test]
async fn whoever_has_no_admin_token_is_told_of_that_token() {
    let rig = Rig::start().await;
    let asks = |path: &str| {
        let url = format!("http://{}{path}", rig.handle.admin_address());
        rig.client.get(url)
    };
    for path in ["/nothing", "/admin/v1/store"] {
        let missing = problem(send(asks(path)).await, 401, "unauthenticated").await;
        let wrong = asks(path).header("authorization", "SharedAccessSignature sr=x");
        let wrong = problem(send(wrong).await, 401, "unauthenticated").await;
        for detail in [missing, wrong] {
            assert!(detail.contains("admin.token_file"), "{detail}");
            assert!(!detail.contains("tmb_"), "{detail}");
        }
    }
    let nowhere = send(rig.admin(Method::GET, "/nothing")).await;
    problem(nowhere, 404, "not_found").await;
}

#[tokio::test]
async fn a_front_that_would_be_open_does_not_start() {
    let rig = Rig::start().await;
    let start = async |admin_listen: &str, admin_token: &str| {
        let config = Config {
            admin_listen: admin_listen.parse().unwrap(),
            ..Config::default()
        };
        let parts = Parts {
            store: rig.store.clone(),
            hubs: vec![identity("dev1").hub().clone()],
            admin_token: admin_token.into(),
            render_metrics: std::sync::Arc::new(String::new),
            report_hubs: std::sync::Arc::new(Vec::new),
            report_disk: std::sync::Arc::new(|| None),
        };
        Front::start(config, parts).await.err()
    };
    let open = start("0.0.0.0:0", "x").await;
    assert!(
        matches!(open, Some(StartError::AdminNotLoopback(_))),
        "{open:?}"
    );
    let open = start("127.0.0.1:0", "").await;
    assert!(matches!(open, Some(StartError::NoAdminToken)), "{open:?}");
}
