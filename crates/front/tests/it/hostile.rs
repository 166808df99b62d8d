//! Clients that mean ill, or know no better.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::rig::{Certificate, Rig, TOKEN, assert_status, client, read_to_end, send};

async fn still_serves(rig: &Rig) {
    assert_status(
        &send(rig.anonymous(Method::GET, "/openapi.json")).await,
        StatusCode::OK,
    );
}

#[tokio::test]
async fn garbage_on_the_tls_port_is_closed() {
    let rig = Rig::start().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        &[0xff; 4096],
        &[0x16, 3, 1, 0xff, 0xff],
        b"\0",
    ] {
        let mut socket = TcpStream::connect(rig.address).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // An alert, or nothing; what counts is that it ends.
        let _ = socket.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));
    }
    still_serves(&rig).await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_closed() {
    let rig = Rig::with(|config| config.waits.handshake = Duration::from_millis(200)).await;
    let mut socket = TcpStream::connect(rig.address).await.unwrap();
    socket.write_all(&[0x16, 3, 1]).await.unwrap();
    let start = Instant::now();
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_head_that_never_ends_is_closed_however_busily_it_comes() {
    let rig = Rig::with(|config| config.waits.header = Duration::from_millis(300)).await;
    let start = Instant::now();
    let mut stream = rig.connect().await;
    stream
        .write_all(b"GET /openapi.json HTTP/1.1\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 1];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => {
                assert_eq!(read.unwrap_or(0), 0);
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                if stream.write_all(b"x: y\r\n").await.is_err() {
                    break;
                }
            }
        }
    }
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&start.elapsed()));
}

#[tokio::test]
async fn an_idle_connection_outlives_the_limit_of_heads_and_ends_with_its_own() {
    let rig = Rig::with(|config| {
        config.waits.header = Duration::from_millis(200);
        config.waits.idle_http1 = Duration::from_millis(1500);
    })
    .await;
    let mut stream = rig.connect().await;
    let start = Instant::now();
    for _ in 0..2 {
        stream
            .write_all(b"HEAD /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let read = stream.read(&mut [0; 4096]).await.unwrap();
        assert!(read > 0);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(
        read_to_end(&mut stream).await.matches("HTTP/1.1").count(),
        0
    );
    assert!(start.elapsed() > Duration::from_millis(1500));
}

#[tokio::test]
async fn an_idle_http2_connection_is_told_to_go() {
    let rig = Rig::with(|config| config.waits.idle_http2 = Duration::from_millis(300)).await;
    let mut stream = rig.connect_with(&[b"h2"]).await;
    // The preface, and an empty SETTINGS frame.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let start = Instant::now();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    // A GOAWAY frame: type 7 at the fourth byte of a frame that has 8 bytes or more, on stream 0.
    assert!(
        answer
            .windows(9)
            .any(|frame| frame[3] == 7 && frame[5..9] == [0; 4]),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_large_body_without_a_credential_is_refused_before_it_is_read() {
    let rig = Rig::start().await;
    let mut stream = rig.connect().await;
    let head = "POST /devices/dev1/messages/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    // The connection ends with it; a client that is not told so would use it again.
    assert!(answer.contains("connection: close\r\n"), "{answer}");

    let head = format!(
        "{}Authorization: Bearer {TOKEN}\r\n\r\n",
        &head[..head.len() - 2]
    );
    let mut stream = rig.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_not_told_to_go_on_in_vain() {
    let rig = Rig::start().await;
    let head = "POST /devices/dev1/messages/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n";
    let answer = rig
        .exchange(format!("{head}Connection: close\r\n\r\n").as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let mut stream = rig.connect().await;
    stream
        .write_all(format!("{head}Authorization: Bearer {TOKEN}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = [0; 21];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue");
}

#[tokio::test]
async fn a_client_that_sends_on_hears_why_it_should_not() {
    let rig = Rig::start().await;
    let client = client(&rig.certificate, &[b"http/1.1"]);
    for _ in 0..20 {
        let request = client
            .post(rig.url("/devices/dev1/messages/events"))
            .body(vec![b'x'; 300_000]);
        assert_status(&send(request).await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_head_that_is_none_is_refused() {
    let rig = Rig::start().await;
    for head in [
        "\0\0\0\0\r\n\r\n",
        "GET /openapi.json\r\n\r\n",
        "GET /openapi.json HTTP/9.9\r\n\r\n",
        "GET /openapi.json HTTP/1.1\r\nHost : localhost\r\n\r\n",
        "GET /openapi.json HTTP/1.1\r\n Host: localhost\r\n\r\n",
        "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "GET /openapi.json HTTP/1.1\r\n\r\n",
        "POST /openapi.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "POST /openapi.json HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    ] {
        let head = head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let answer = rig.exchange(head.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{head:?}: {answer}"
        );
    }
    still_serves(&rig).await;
}

#[tokio::test]
async fn the_protocol_is_http11_for_who_does_not_say() {
    let rig = Rig::start().await;
    let mut stream = rig.connect_with(&[]).await;
    stream
        .write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_certificate_is_exchanged_while_connections_are_open() {
    let rig = Rig::start().await;
    still_serves(&rig).await;
    let (certificate_file, key_file) = (
        rig.folder.path().join("crt.pem"),
        rig.folder.path().join("key.pem"),
    );
    let fresh = Certificate::write(&certificate_file, &key_file);
    rig.handle.reload_certificate().await.unwrap();
    let url = rig.url("/openapi.json");
    assert_status(
        &send(client(&fresh, &[b"h2"]).get(&url)).await,
        StatusCode::OK,
    );
    assert!(
        client(&rig.certificate, &[b"h2"])
            .get(&url)
            .send()
            .await
            .is_err()
    );
    still_serves(&rig).await;

    std::fs::write(&key_file, "no key").unwrap();
    let error = rig.handle.reload_certificate().await.unwrap_err();
    assert!(error.to_string().contains("private key"), "{error}");
    assert_status(
        &send(client(&fresh, &[b"h2"]).get(&url)).await,
        StatusCode::OK,
    );
}
