//! Telemetry goes up, and 204 means that the hub has it.

use std::{sync::Arc, time::Duration};

use iothub::HubError;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use store::{Done, Failure, SessionState, Survival, Work};

use crate::rig::{PATIENCE, Rig, assert_status, client, problem, send, until, waiting};

const EVENTS: &str = "/devices/dev1/messages/events";

#[tokio::test]
async fn a_message_is_answered_when_the_hub_has_acknowledged_it() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let request = rig
        .request(
            Method::POST,
            "/devices/dev1/messages/events?api-version=2020-03-13",
        )
        .header("iothub-messageid", "m-1")
        .header("IoTHub-App-Zeta", "a b%20")
        .header("iothub-contenttype", "application/json")
        .header("content-type", "text/plain")
        .body("{\"t\":21.5}");
    let response = send(request).await;
    assert_status(&response, StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["tombolo-delivery"], "hub");

    let taken = rig.hub.taken.lock();
    let [Work::Telemetry(telemetry)] = taken.as_slice() else {
        panic!("one message was sent: {taken:?}");
    };
    assert_eq!(&telemetry.payload[..], b"{\"t\":21.5}");
    assert_eq!(telemetry.system.message_id.as_deref(), Some("m-1"));
    assert_eq!(
        telemetry.system.content_type.as_deref(),
        Some("application/json")
    );
    assert_eq!(
        telemetry.properties,
        [("zeta".to_owned(), "a b%20".to_owned())]
    );
}

#[tokio::test]
async fn both_http_versions_and_chunked_bodies_are_spoken() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let client = client(&rig.certificate, &[alpn]);
        let chunks = ["{\"t\":", "21.5}"].map(Ok::<_, std::io::Error>);
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        let request = client
            .post(rig.url(EVENTS))
            .bearer_auth(crate::rig::TOKEN)
            .body(body);
        let response = send(request).await;
        assert_status(&response, StatusCode::NO_CONTENT);
        let version = if alpn == b"h2" {
            reqwest::Version::HTTP_2
        } else {
            reqwest::Version::HTTP_11
        };
        assert_eq!(response.version(), version);
    }
    for work in rig.hub.taken.lock().iter() {
        assert!(
            matches!(work, Work::Telemetry(telemetry) if &telemetry.payload[..] == b"{\"t\":21.5}")
        );
    }
}

#[tokio::test]
async fn an_answer_has_what_every_answer_has() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let response = rig.post(EVENTS, "x").await;
    let headers = response.headers();
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["x-ms-request-id"].len(), 36);
    assert!(headers.contains_key("date"));
    assert!(!headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn what_the_hub_does_not_do_is_said() {
    let mut rig = Rig::start().await;
    let quota = HubError {
        error_code: 403_002,
        tracking_id: String::new(),
        message: "the day is spent".to_owned(),
        timestamp_utc: String::new(),
        info: Value::Null,
    };
    let throttled = Failure::HubError {
        status: 429,
        error: None,
    };
    for (failure, status, code) in [
        (Failure::HubUnavailable, 503, "hub_unavailable"),
        (Failure::CredentialRefused, 502, "hub_refused"),
        (Failure::HubTimeout, 504, "hub_timeout"),
        (Failure::NoSession, 503, "overloaded"),
        (Failure::DoesNotFit, 413, "message_too_large"),
        (Failure::Stopping, 503, "stopping"),
        (throttled, 429, "throttled"),
        (
            Failure::HubError {
                status: 403,
                error: Some(Box::new(quota)),
            },
            429,
            "throttled",
        ),
    ] {
        rig.hub.settles(move |_| Some(Err(failure.clone()))).await;
        problem(rig.post(EVENTS, "x").await, status, code).await;
    }
}

#[tokio::test]
async fn silence_of_the_hub_is_a_timeout_after_the_wait() {
    // The client would not wait for the usual time.
    let mut rig = Rig::with(|config| config.waits.hub = 2 * PATIENCE).await;
    rig.hub.settles(|_| None).await;
    let start = std::time::Instant::now();
    let request = rig
        .request(Method::POST, EVENTS)
        .header("prefer", "wait=1")
        .body("x");
    problem(send(request).await, 504, "hub_timeout").await;
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn what_no_session_takes_in_time_is_taken_back_and_may_come_again() {
    let mut rig = Rig::start().await;
    let telemetry = rig
        .request(Method::POST, EVENTS)
        .header("prefer", "wait=1")
        .body("x");
    let batch = rig
        .request(Method::POST, EVENTS)
        .header("prefer", "wait=1")
        .header("content-type", "application/vnd.tombolo.batch+json")
        .body(r#"[{"body":"y"}]"#);
    let twin = rig
        .request(Method::GET, "/devices/dev1/twin")
        .header("prefer", "wait=1");
    let (telemetry, batch, twin) = (waiting(telemetry), waiting(batch), waiting(twin));
    for refused in [telemetry, twin] {
        let refused = refused.result().await;
        assert!(refused.headers().contains_key("retry-after"));
        problem(refused, 503, "overloaded").await;
    }
    let batch: Value = batch.result().await.json().await.unwrap();
    assert_eq!(batch["results"][0]["code"], "overloaded");
    assert_eq!(batch["results"][0]["retryable"], true);

    // A session that comes later finds nothing of it.
    rig.hub.acknowledges().await;
    assert_status(&rig.post(EVENTS, "z").await, StatusCode::NO_CONTENT);
    let taken = rig.hub.taken.lock();
    assert!(matches!(taken.as_slice(), [Work::Telemetry(message)] if message.payload == "z"));
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_its_message() {
    let mut rig = Rig::start().await;
    let request = rig
        .request(Method::POST, EVENTS)
        .body("x")
        .timeout(Duration::from_millis(500));
    assert!(request.send().await.unwrap_err().is_timeout());
    rig.hub.acknowledges().await;
    until(|| !rig.hub.taken.lock().is_empty()).await;
}

#[tokio::test]
async fn a_preference_that_cannot_be_followed_is_passed_over() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let request = rig
        .request(Method::POST, EVENTS)
        .header("prefer", "respond-async, return=minimal")
        .body("x");
    let response = send(request).await;
    assert_status(&response, StatusCode::NO_CONTENT);
    assert!(!response.headers().contains_key("preference-applied"));
}

#[tokio::test]
async fn a_full_outbox_asks_to_come_back() {
    let config = store::memory::Config {
        outbox_entries: 1,
        ..store::memory::Config::default()
    };
    let rig = Rig::over(store::memory::open(config).unwrap(), |_| {}).await;
    rig.hub.is(SessionState::Connecting).await;
    let waiting = store::Submission {
        id: store::SubmissionId(1),
        identity: crate::rig::identity("dev1"),
        work: Arc::new(Work::TwinRead),
        survival: Survival::Ephemeral {
            deadline: std::time::Instant::now() + PATIENCE,
        },
        fingerprint: None,
    };
    let _ticket = rig.store.outbox.submit(waiting).await.unwrap();
    problem(rig.post(EVENTS, "x").await, 429, "outbox_full").await;
}

#[tokio::test]
async fn messages_of_one_device_keep_their_order_on_one_connection() {
    let mut rig = Rig::start().await;
    rig.hub.settles(|_| Some(Ok(Done::Acknowledged))).await;
    for number in 0..20 {
        assert_status(
            &rig.post(EVENTS, number.to_string()).await,
            StatusCode::NO_CONTENT,
        );
    }
    let taken = rig.hub.taken.lock();
    let bodies = taken.iter().map(|work| match work {
        Work::Telemetry(telemetry) => String::from_utf8(telemetry.payload.to_vec()).unwrap(),
        Work::TwinRead | Work::ReportedPatch(_) | Work::MethodAnswer { .. } => {
            panic!("only telemetry was sent")
        }
    });
    assert!(bodies.eq((0..20).map(|number: i32| number.to_string())));
}
