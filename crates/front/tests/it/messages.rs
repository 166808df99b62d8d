//! Cloud-to-device messages by IoT Hub's own calls.

use iothub::AckRequest;
use reqwest::{Method, StatusCode};
use store::{Conclusion, Need, SessionState, Settlement};

use crate::{
    hub::message,
    rig::{Rig, assert_status, problem, send, waiting},
};

const DEVICEBOUND: &str = "/devices/dev1/messages/devicebound";

#[tokio::test]
async fn a_message_is_received_with_all_it_carries() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    let mut sent = message("hello");
    sent.ack = AckRequest::Full;
    sent.system.message_id = Some("m-1".to_owned());
    sent.system.to = Some("/devices/dev1/messages/deviceBound".to_owned());
    sent.system.content_type = Some("text/plain".to_owned());
    sent.properties = vec![
        ("level".to_owned(), "2 %20 ü".to_owned()),
        ("a b".to_owned(), "x\ny".to_owned()),
    ];
    rig.hub.sends(sent).await;

    let response = rig
        .get("/devices/dev1/messages/deviceBound?api-version=2020-03-13")
        .await;
    assert_status(&response, StatusCode::OK);
    let header = |name: &str| std::str::from_utf8(response.headers()[name].as_bytes()).unwrap();
    let tag = header("etag");
    assert_eq!(tag.len(), 38, "a GUID in quotes: {tag}");
    assert_eq!(header("iothub-messageid"), "m-1");
    assert_eq!(header("iothub-to"), "/devices/dev1/messages/deviceBound");
    assert_eq!(header("iothub-ack"), "full");
    assert_eq!(header("iothub-deliverycount"), "0");
    assert_eq!(header("contenttype"), "text/plain");
    assert_eq!(header("iothub-app-level"), "2 %20 ü");
    assert_eq!(header("iothub-app-a%20b"), "x%0Ay");
    assert!(header("iothub-enqueuedtime").ends_with('Z'));
    header("iothub-sequencenumber").parse::<u64>().unwrap();
    assert_eq!(response.text().await.unwrap(), "hello");
    // It is locked, so this call shows it no more.
    assert_status(&rig.get(DEVICEBOUND).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn completing_and_rejecting_reach_the_hub() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    for (query, settlement, conclusion, delivery) in [
        ("", Settlement::Complete, Conclusion::Hub, "hub"),
        (
            "?api-version=2020-03-13&reject",
            Settlement::Reject,
            Conclusion::Hub,
            "hub",
        ),
        (
            "?reject=&api-version=2020-03-13",
            Settlement::Reject,
            Conclusion::Gateway,
            "gateway",
        ),
    ] {
        let (id, settled) = rig.hub.sends(message("x")).await;
        let lock = received(&rig).await;
        let path = format!("{DEVICEBOUND}/{lock}{query}");
        let request = rig
            .request(Method::DELETE, &path)
            .header("if-match", format!("\"{lock}\""));
        let answer = waiting(request);
        assert_eq!(settled.await.unwrap(), settlement);
        rig.hub.concludes(id, conclusion).await;
        let response = answer.result().await;
        assert_status(&response, StatusCode::NO_CONTENT);
        assert_eq!(response.headers()["tombolo-delivery"], delivery);
        // A client whose answer was lost asks again; it hears the same, and nothing happens twice.
        let again = send(rig.request(Method::DELETE, &path)).await;
        assert_eq!(again.headers()["tombolo-delivery"], delivery);
        let response = rig.post(&format!("{DEVICEBOUND}/{lock}/abandon"), "").await;
        problem(response, 412, "lock_lost").await;
    }
}

#[tokio::test]
async fn an_abandoned_message_comes_again() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.sends(message("x")).await;
    let lock = received(&rig).await;
    let response = rig.post(&format!("{DEVICEBOUND}/{lock}/abandon"), "").await;
    assert_status(&response, StatusCode::NO_CONTENT);
    let again = rig.get(DEVICEBOUND).await;
    assert_eq!(again.headers()["iothub-deliverycount"], "1");
}

#[tokio::test]
async fn a_message_whose_connection_ends_is_lost_to_its_lock() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    let (_, settled) = rig.hub.sends(message("x")).await;
    let lock = received(&rig).await;
    let request = rig.request(Method::DELETE, &format!("{DEVICEBOUND}/{lock}"));
    let answer = waiting(request);
    assert_eq!(settled.await.unwrap(), Settlement::Complete);
    rig.hub.loses_the_connection().await;
    problem(answer.result().await, 412, "lock_lost").await;
}

#[tokio::test]
async fn a_hub_that_says_nothing_of_a_settlement_is_a_timeout() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.sends(message("x")).await;
    let lock = received(&rig).await;
    let request = rig
        .request(Method::DELETE, &format!("{DEVICEBOUND}/{lock}"))
        .header("prefer", "wait=1");
    problem(send(request).await, 504, "hub_timeout").await;
}

#[tokio::test]
async fn a_lock_lasts_as_long_as_was_asked() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.sends(message("x")).await;
    for bad in ["0", "301", "x", "", "-1", "1.5"] {
        let request = rig
            .request(Method::GET, DEVICEBOUND)
            .header("iothub-messagelocktimeout", bad);
        problem(send(request).await, 400, "invalid_request").await;
        let path = format!("{DEVICEBOUND}?iothub-messagelocktimeout={bad}");
        problem(rig.get(&path).await, 400, "invalid_request").await;
    }
    for good in ["1", "300"] {
        let (_, _) = rig.hub.sends(message("x")).await;
        let request = rig
            .request(Method::GET, DEVICEBOUND)
            .header("iothub-messagelocktimeout", good);
        assert_status(&send(request).await, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_unknown_lock_is_lost() {
    let rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    for lock in ["00000000-0000-0000-0000-000000000000", "nonsense", "a%2Fb"] {
        let path = format!("{DEVICEBOUND}/{lock}");
        problem(
            send(rig.request(Method::DELETE, &path)).await,
            412,
            "lock_lost",
        )
        .await;
        problem(
            rig.post(&format!("{path}/abandon"), "").await,
            412,
            "lock_lost",
        )
        .await;
    }
}

#[tokio::test]
async fn a_dead_lock_needs_no_session() {
    let mut rig = Rig::start().await;
    let lock = "00000000-0000-0000-0000-000000000000";
    let path = format!("{DEVICEBOUND}/{lock}");
    problem(
        send(rig.request(Method::DELETE, &path)).await,
        412,
        "lock_lost",
    )
    .await;
    let list = format!(r#"[{{"token":"{lock}","outcome":"complete"}}]"#);
    assert_status(
        &rig.post("/devices/dev1/inbox/settle", list).await,
        StatusCode::OK,
    );
    assert_eq!(rig.hub.needs().session, Need::Never);
}

#[tokio::test]
async fn a_wait_ends_with_the_message() {
    let mut rig = Rig::start().await;
    rig.hub.is(SessionState::Settled).await;
    let poll = waiting(
        rig.request(Method::GET, DEVICEBOUND)
            .header("prefer", "wait=15"),
    );
    rig.hub.until_needed(|needs| needs.session, true).await;
    assert!(!poll.is_finished());
    rig.hub.sends(message("late")).await;
    assert_eq!(poll.result().await.text().await.unwrap(), "late");
}

async fn received(rig: &Rig) -> String {
    let response = rig.get(DEVICEBOUND).await;
    assert_status(&response, StatusCode::OK);
    response.headers()["etag"]
        .to_str()
        .unwrap()
        .trim_matches('"')
        .to_owned()
}
