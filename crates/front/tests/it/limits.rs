//! Every limit below, at and above.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::json;
use store::{SessionState, Work};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::{
    Background, PATIENCE, Rig, TOKEN, assert_status, client, identity, problem, send, serve_device,
    until, waiting,
};

const EVENTS: &str = "/devices/dev1/messages/events";
const METHODS: &str = "/devices/dev1/methods";
const DESIRED: &str = "/devices/dev1/twin/properties/desired";
const INBOX: &str = "/devices/dev1/inbox";

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
        // Read as a whole, and found empty.
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
async fn bodies_share_what_memory_they_may_have() {
    let mut rig = Rig::with(|config| config.limits.body_bytes_in_all = 1000).await;
    rig.hub.acknowledges().await;
    let of_size = |bytes: usize| vec![b'x'; bytes];
    for (bytes, fits) in [(999, true), (1000, true), (1001, false)] {
        let response = rig.post(EVENTS, of_size(bytes)).await;
        if fits {
            assert_status(&response, StatusCode::NO_CONTENT);
        } else {
            problem(response, 503, "overloaded").await;
        }
    }
    let mut stream = rig.connect().await;
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 601\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&of_size(600)).await.unwrap();
    let start = std::time::Instant::now();
    while rig.post(EVENTS, of_size(401)).await.status() == StatusCode::NO_CONTENT {
        assert!(start.elapsed() < PATIENCE);
    }
    assert_status(
        &rig.post(EVENTS, of_size(400)).await,
        StatusCode::NO_CONTENT,
    );
    stream.write_all(b"x").await.unwrap();
    let answer = crate::rig::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert_status(
        &rig.post(EVENTS, of_size(1000)).await,
        StatusCode::NO_CONTENT,
    );
}

#[tokio::test]
async fn a_request_has_64_headers() {
    let rig = Rig::start().await;
    let with = |headers: usize| {
        // Host and Connection are two of them.
        let more: String = (2..headers).map(|n| format!("x-{n}: 1\r\n")).collect();
        format!("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
    };
    for (headers, expected) in [
        (63, "200"),
        (64, "200"),
        (65, "431"),
        (100, "431"),
        (101, "431"),
    ] {
        let answer = rig.exchange(with(headers).as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{headers}: {answer}"
        );
        // Beyond 100 it is hyper that refuses, and says nothing more.
        assert_eq!(
            answer.contains("\"code\":\"headers_too_large\""),
            (65..=100).contains(&headers)
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

/// Opens long-polls of a device until it has this many requests in flight.
async fn polls(rig: &mut Rig, paths: &[&str]) -> Vec<Background<Response>> {
    rig.hub.is(SessionState::Settled).await;
    rig.hub.wants(7, json!({})).await;
    let mut polls = Vec::new();
    for path in paths {
        let request = rig
            .request(Method::GET, path)
            .header("prefer", "wait=15")
            .header("if-none-match", "\"7\"");
        polls.push(waiting(request));
        match *path {
            METHODS => rig.hub.until_needed(|needs| needs.methods, true).await,
            DESIRED => rig.hub.until_needed(|needs| needs.desired, true).await,
            other => panic!("nobody could see when {other} waits"),
        }
    }
    polls
}

#[tokio::test]
async fn a_device_has_its_share_of_requests() {
    // With one poll open there is room below the limit of 3, with two there is room for the last one, with a limit of 2
    // there is none.
    for (limit, open, fits) in [
        (3, &[METHODS][..], true),
        (3, &[METHODS, DESIRED], true),
        (2, &[METHODS, DESIRED], false),
    ] {
        let mut rig = Rig::with(|config| config.limits.requests_per_device = limit).await;
        let polls = polls(&mut rig, open).await;
        let response = rig.get(INBOX).await;
        if fits {
            assert_status(&response, StatusCode::NO_CONTENT);
            continue;
        }
        assert_eq!(response.headers()["retry-after"], "1");
        problem(response, 429, "throttled").await;
        // Another device has its own share.
        serve_device(&rig.store, &identity("dev2"), "tmb_of-dev2").await;
        let request = rig
            .anonymous(Method::GET, "/devices/dev2/methods")
            .bearer_auth("tmb_of-dev2")
            .header("prefer", "wait=0");
        assert_status(&send(request).await, StatusCode::NO_CONTENT);
        drop(polls);
        // The front notices that a client is gone when it next looks at the connection.
        let start = std::time::Instant::now();
        while rig.get(INBOX).await.status() != StatusCode::NO_CONTENT {
            assert!(start.elapsed() < PATIENCE);
        }
    }
}

#[tokio::test]
async fn all_devices_have_a_share_together() {
    for (limit, open, fits) in [
        (3, &[METHODS][..], true),
        (3, &[METHODS, DESIRED], true),
        (2, &[METHODS, DESIRED], false),
    ] {
        let mut rig = Rig::with(|config| config.limits.requests = limit).await;
        let _polls = polls(&mut rig, open).await;
        let response = send(rig.anonymous(Method::GET, "/openapi.json")).await;
        if fits {
            assert_status(&response, StatusCode::OK);
        } else {
            problem(response, 503, "overloaded").await;
        }
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let rig = Rig::with(|config| config.limits.connections = 2).await;
    // The first leaves room for one more, the second takes it.
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
    for posts in [3, 4, 5] {
        let mut rig = Rig::with(|config| config.limits.streams = 4).await;
        // The hub takes messages and says nothing of them, so their requests stay open.
        rig.hub.settles(|_| None).await;
        let client = client(&rig.certificate, &[b"h2"]);
        // The first request learns the limit from the front's settings.
        assert_status(
            &send(client.get(rig.url("/openapi.json"))).await,
            StatusCode::OK,
        );
        let post = |body: &'static str| {
            let request = client.post(rig.url(EVENTS)).bearer_auth(TOKEN);
            waiting(request.header("prefer", "wait=15").body(body))
        };
        let _posts: Vec<_> = (0..posts).map(|_| post("stream")).collect();
        until(|| rig.hub.taken.lock().len() == posts.min(4)).await;
        // What comes on a connection of its own overtakes the stream that waits.
        let other = waiting(rig.request(Method::POST, EVENTS).body("other"));
        until(|| rig.hub.taken.lock().len() == posts.min(4) + 1).await;
        let is_other =
            |work: &Work| matches!(work, Work::Telemetry(sent) if sent.payload == "other");
        assert!(rig.hub.taken.lock().last().is_some_and(is_other), "{posts}");
        drop(other);
        // Once the hub acknowledges, all of them have their turn.
        let (taken, expected) = (rig.hub.taken.clone(), posts.max(4));
        rig.hub.acknowledges().await;
        until(|| taken.lock().len() > expected).await;
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
