//! The front stops in order, and in time.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;
use store::{Done, SessionState};

use crate::rig::{PATIENCE, Rig, TOKEN, assert_status, client, until, waiting};

const EVENTS: &str = "/devices/dev1/messages/events";

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
    let start = Instant::now();
    rig.handle.shutdown(PATIENCE).await.unwrap();
    assert_status(&methods.result().await, StatusCode::NO_CONTENT);
    assert_status(&desired.result().await, StatusCode::NOT_MODIFIED);
    assert!(start.elapsed() < Duration::from_secs(5));
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
async fn what_does_not_end_is_cut_off_at_the_deadline() {
    let mut rig = Rig::start().await;
    rig.hub.settles(|_| None).await;
    let request = rig
        .request(Method::POST, EVENTS)
        .header("prefer", "wait=15")
        .body("x");
    let mut requests = tokio::task::JoinSet::new();
    requests.spawn(request.send());
    until(|| !rig.hub.taken.lock().is_empty()).await;
    let start = Instant::now();
    let cut_off = rig
        .handle
        .shutdown(Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(cut_off.connections > 0);
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(requests.join_next().await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn nobody_listens_afterwards() {
    let rig = Rig::start().await;
    let (address, admin) = (rig.address, rig.handle.admin_address());
    rig.handle.shutdown(PATIENCE).await.unwrap();
    for address in [address, admin] {
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}
