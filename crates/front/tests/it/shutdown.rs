//! The front stops in order, and in time.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{Done, SessionState};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    hub::message,
    rig::{PATIENCE, Rig, TOKEN, assert_status, client, problem, read_to_end, until, waiting},
};

const EVENTS: &str = "/devices/dev1/messages/events";
const DEVICEBOUND: &str = "/devices/dev1/messages/devicebound";

#[tokio::test]
async fn polls_end_with_what_is_known() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.wants(7, json!({})).await;
    let h2 = client(&rig.certificate, &[b"h2"]);
    let methods = rig
        .request(Method::GET, "/devices/dev1/methods")
        .header("prefer", "wait=50");
    let desired = h2
        .get(rig.url("/devices/dev1/twin/properties/desired"))
        .bearer_auth(TOKEN)
        .header("prefer", "wait=50")
        .header("if-none-match", "\"7\"");
    let (methods, desired) = (waiting(methods), waiting(desired));
    rig.hub.until_needed(|needs| needs.methods, true).await;
    rig.hub.until_needed(|needs| needs.desired, true).await;
    // They would wait longer than the front is given.
    rig.handle.shutdown(PATIENCE).await.unwrap();
    assert_status(&methods.result().await, StatusCode::NO_CONTENT);
    assert_status(&desired.result().await, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn writes_in_flight_get_their_answers() {
    let mut rig = Rig::start().await;
    let post = waiting(rig.request(Method::POST, EVENTS).body("x"));
    rig.hub.until_submitted().await;
    let (stopped, ()) = tokio::join!(rig.handle.shutdown(PATIENCE), async {
        rig.hub.settles(|_| Some(Ok(Done::Acknowledged))).await;
    });
    stopped.unwrap();
    assert_status(&post.result().await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn writes_that_the_hub_leaves_open_end_as_not_known() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.settles(|_| None).await;
    let id = rig.hub.invokes("m", "", PATIENCE).await;
    let _settlement = rig.hub.sends(message("m")).await;
    let lock = rig.get(DEVICEBOUND).await.headers()["etag"]
        .to_str()
        .unwrap()
        .trim_matches('"')
        .to_owned();
    let request = |method, path: &str| {
        waiting(
            rig.request(method, path)
                .header("prefer", "wait=50")
                .body(r#"{"status":200}"#),
        )
    };
    let writes = [
        request(Method::POST, EVENTS),
        request(
            Method::POST,
            &format!("/devices/dev1/methods/{id}/response"),
        ),
        request(Method::DELETE, &format!("{DEVICEBOUND}/{lock}")),
    ];
    until(|| rig.hub.taken.lock().len() == 2).await;
    rig.hub.until_all_settled().await;
    // They would wait longer than the front is given.
    rig.handle.shutdown(PATIENCE).await.unwrap();
    for write in writes {
        problem(write.result().await, 504, "hub_timeout").await;
    }
}

#[tokio::test]
async fn a_batch_ends_where_it_is() {
    let mut rig = Rig::start().await;
    rig.hub.settles(|_| None).await;
    let batch = vec![json!({"body": "x"}); 300];
    let request = rig
        .request(Method::POST, EVENTS)
        .header("prefer", "wait=15")
        .header("content-type", "application/vnd.tombolo.batch+json")
        .body(json!(batch).to_string());
    let post = waiting(request);
    until(|| !rig.hub.taken.lock().is_empty()).await;
    rig.handle.shutdown(PATIENCE).await.unwrap();
    let body: Value = post.result().await.json().await.unwrap();
    let results = body["results"].as_array().unwrap();
    let is = |result: &Value, code: &str| result["code"] == code;
    let unknown = results
        .iter()
        .take_while(|result| is(result, "hub_timeout"));
    let untouched = results
        .iter()
        .rev()
        .take_while(|result| is(result, "stopping"));
    let (unknown, untouched) = (unknown.count(), untouched.count());
    assert_eq!(unknown + untouched, 300);
    assert!(unknown > 0 && untouched > 0, "{unknown} {untouched}");
}

#[tokio::test]
async fn a_body_that_does_not_end_is_not_waited_for() {
    let rig = Rig::start().await;
    let mut stream = rig.connect().await;
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The body is read from here on.
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    stream.write_all(b"unend").await.unwrap();
    let (stopped, answer) = tokio::join!(rig.handle.shutdown(PATIENCE), read_to_end(&mut stream));
    stopped.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\"stopping\""), "{answer}");
}

#[tokio::test]
async fn a_handshake_is_not_waited_for() {
    // It may take longer than the front is given.
    let rig = Rig::with(|config| config.waits.handshake = 2 * PATIENCE).await;
    let mut silent = TcpStream::connect(rig.address).await.unwrap();
    let mut begun = TcpStream::connect(rig.address).await.unwrap();
    begun.write_all(&[0x16, 3, 1]).await.unwrap();
    // Connections are accepted in their order.
    drop(rig.connect().await);
    rig.handle.shutdown(PATIENCE).await.unwrap();
    for socket in [&mut silent, &mut begun] {
        assert_eq!(socket.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn nobody_listens_afterwards() {
    let rig = Rig::start().await;
    let (address, admin) = (rig.address, rig.handle.admin_address());
    rig.handle.shutdown(PATIENCE).await.unwrap();
    for address in [address, admin] {
        assert!(TcpStream::connect(address).await.is_err());
    }
}
