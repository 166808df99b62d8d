//! The front stops in order, and in time.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use store::{Done, SessionState};

use crate::rig::{PATIENCE, Rig, assert_status, client, waiting};

const EVENTS: &str = "/devices/dev1/messages/events";

#[tokio::test]
async fn polls_end_with_what_is_known() {
    let rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    let h2 = client(&rig.certificate, &[b"h2"]);
    let path = "/devices/dev1/inbox";
    let polls = [
        waiting(rig.request(Method::GET, path).header("prefer", "wait=50")),
        waiting(
            h2.get(rig.url(path))
                .bearer_auth(crate::rig::TOKEN)
                .header("prefer", "wait=50"),
        ),
    ];
    for poll in &polls {
        assert!(!poll.ends_soon().await);
    }
    let start = Instant::now();
    rig.handle.shutdown(PATIENCE).await.unwrap();
    for poll in polls {
        assert_status(&poll.result().await, StatusCode::NO_CONTENT);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn writes_in_flight_get_their_answers() {
    let mut rig = Rig::start().await;
    let post = waiting(rig.request(Method::POST, EVENTS).body("x"));
    assert!(!post.ends_soon().await);
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
    while rig.hub.taken.lock().is_empty() {
        tokio::task::yield_now().await;
    }
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
