//! Every limit below, at and above.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use store::SessionState;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::{PATIENCE, Rig, TOKEN, assert_status, client, problem, send, waiting};

const EVENTS: &str = "/devices/dev1/messages/events";

#[tokio::test]
async fn a_message_has_262144_bytes() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    for (bytes, fits) in [
        (262_143, true),
        (262_144, true),
        (262_145, false),
        (1_000_000, false),
    ] {
        for is_declared in [true, false] {
            let body = vec![b'x'; bytes];
            let body = if is_declared {
                reqwest::Body::from(body)
            } else {
                reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(
                    body,
                )]))
            };
            let response = rig.post(EVENTS, body).await;
            if fits {
                assert_status(&response, StatusCode::NO_CONTENT);
            } else {
                problem(response, 413, "message_too_large").await;
            }
        }
    }
    // Names and values of properties count too.
    let with_property = |bytes: usize| {
        let request = rig
            .request(Method::POST, EVENTS)
            .header("iothub-app-ab", "cd");
        request.body(vec![b'x'; bytes])
    };
    assert_status(&send(with_property(262_140)).await, StatusCode::NO_CONTENT);
    problem(send(with_property(262_141)).await, 413, "message_too_large").await;
}

#[tokio::test]
async fn a_json_body_has_its_own_limit() {
    let rig = Rig::with(|config| config.limits.json_bytes = 100).await;
    let body = |bytes: usize| format!("[{}]", " ".repeat(bytes - 2));
    for bytes in [99, 100] {
        problem(
            rig.post("/devices/dev1/inbox/settle", body(bytes)).await,
            400,
            "invalid_request",
        )
        .await;
    }
    problem(
        rig.post("/devices/dev1/inbox/settle", body(101)).await,
        413,
        "message_too_large",
    )
    .await;
}

#[tokio::test]
async fn a_request_has_64_headers() {
    let rig = Rig::start().await;
    let with = |headers: usize| {
        // Host and Connection are two of them.
        let more: String = (2..headers).map(|n| format!("x-{n}: 1\r\n")).collect();
        format!("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
    };
    for (headers, expected) in [(63, "200"), (64, "200"), (65, "431"), (129, "431")] {
        let answer = rig.exchange(with(headers).as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{headers}: {answer}"
        );
        // hyper's own limit, which is twice as wide, says nothing more.
        assert_eq!(
            answer.contains("\"code\":\"headers_too_large\""),
            headers == 65
        );
    }
}

#[tokio::test]
async fn a_request_has_16384_bytes_of_headers() {
    let rig = Rig::start().await;
    // GET, the path, and three headers with four bytes around each.
    let fixed = "GET/openapi.jsonhostlocalhostconnectionclosex-".len() + 3 * 4;
    let with = |bytes: usize| {
        let value = "v".repeat(bytes - fixed);
        format!(
            "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nx-: {value}\r\n\r\n"
        )
    };
    for (bytes, expected) in [
        (16_383, "200"),
        (16_384, "200"),
        (16_385, "431"),
        (40_000, "431"),
    ] {
        let answer = rig.exchange(with(bytes).as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{bytes}: {answer}"
        );
        assert_eq!(
            answer.contains("\"code\":\"headers_too_large\""),
            bytes == 16_385
        );
    }
}

#[tokio::test]
async fn a_device_has_its_share_of_requests() {
    let mut rig = Rig::with(|config| config.limits.requests_per_device = 2).await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.wants(7, json!({})).await;
    let poll = |path: &str| {
        let request = rig.request(Method::GET, path);
        waiting(
            request
                .header("prefer", "wait=15")
                .header("if-none-match", "\"7\""),
        )
    };
    let polls = [
        poll("/devices/dev1/methods"),
        poll("/devices/dev1/twin/properties/desired"),
    ];
    rig.hub.until_needed(|needs| needs.methods, true).await;
    rig.hub.until_needed(|needs| needs.desired, true).await;
    let response = rig.get("/devices/dev1/inbox").await;
    assert_eq!(response.headers()["retry-after"], "1");
    problem(response, 429, "throttled").await;
    drop(polls);
    // The front notices that a client is gone when it next looks at the connection.
    let start = std::time::Instant::now();
    while rig.get("/devices/dev1/inbox").await.status() != StatusCode::NO_CONTENT {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn all_devices_have_a_share_together() {
    let mut rig = Rig::with(|config| config.limits.requests = 1).await;
    rig.hub.is(SessionState::Settled).await;
    let poll = waiting(
        rig.request(Method::GET, "/devices/dev1/inbox")
            .header("prefer", "wait=15"),
    );
    rig.hub.until_needed(|needs| needs.session, true).await;
    problem(rig.get("/devices/dev1/inbox").await, 503, "overloaded").await;
    assert!(!poll.is_finished());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let rig = Rig::with(|config| config.limits.connections = 2).await;
    let mut open = vec![rig.connect().await, rig.connect().await];
    let mut third = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    assert_eq!(
        third.read(&mut [0; 1]).await.unwrap_or(0),
        0,
        "closed before any handshake"
    );
    // Operators are not shut out with the devices.
    assert_status(
        &send(rig.admin(Method::GET, "/healthz")).await,
        StatusCode::OK,
    );
    open.pop().unwrap().shutdown().await.unwrap();
    let start = std::time::Instant::now();
    while rig
        .anonymous(Method::GET, "/openapi.json")
        .send()
        .await
        .is_err()
    {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn http2_streams_beyond_the_limit_wait_for_their_turn() {
    let mut rig = Rig::with(|config| config.limits.streams = 4).await;
    rig.hub.acknowledges().await;
    let client = client(&rig.certificate, &[b"h2"]);
    let posts: Vec<_> = (0..12)
        .map(|number| {
            waiting(
                client
                    .post(rig.url(EVENTS))
                    .bearer_auth(TOKEN)
                    .body(number.to_string()),
            )
        })
        .collect();
    for post in posts {
        assert_status(&post.result().await, StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn sixteen_large_bodies_share_one_http2_connection() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let client = client(&rig.certificate, &[b"h2"]);
    let posts: Vec<_> = (0..16)
        .map(|_| {
            waiting(
                client
                    .post(rig.url(EVENTS))
                    .bearer_auth(TOKEN)
                    .body(vec![0; 200_000]),
            )
        })
        .collect();
    for post in posts {
        assert_status(&post.result().await, StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn a_body_too_slow_is_a_timeout() {
    let rig = Rig::with(|config| config.waits.body_grace = Duration::from_millis(200)).await;
    let mut stream = rig.connect().await;
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\nonly this"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = crate::rig::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"request_timeout\""), "{answer}");
}
