//! Faults and throttles as requests meet them.

use std::{num::NonZeroU32, time::Duration};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tombolo_emulator::hub::{Capacity, Operation, Tier};

use crate::rig::{Got, Rig};

async fn fault(rig: &Rig, rule: Value) {
    let answer = rig.cloud.post("/emulator/faults").json(&rule).send().await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK, "{rule}");
}

fn twin(rig: &Rig) -> RequestBuilder {
    rig.cloud.get("/twins/dev1")
}

#[tokio::test]
async fn a_request_fails_as_a_hub_fails() {
    let rig = Rig::start().await;
    for (status, code) in [
        (429, "ThrottlingException"),
        (500, "ServerError"),
        (418, "Fault"),
    ] {
        let rule = json!({"device": "dev1", "times": 1, "fault": {"kind": "fail-requests", "api": "service", "status": status}});
        fault(&rig, rule).await;
        let answer = twin(&rig).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["iothub-errorcode"], code);
        assert_eq!(twin(&rig).send().await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_connection_is_cut_without_an_answer() {
    for rig in [Rig::start().await.http1(), Rig::start().await] {
        let rule = json!({"times": 1, "fault": {"kind": "drop-requests"}});
        fault(&rig, rule).await;
        assert!(twin(&rig).send().await.is_err());
        assert_eq!(twin(&rig).send().await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_unreachable_hub_still_listens_to_who_made_it_so() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    fault(&rig, json!({"fault": {"kind": "unreachable"}})).await;
    assert_eq!(device.next().await, None);
    assert!(twin(&rig).send().await.is_err());
    let cleared = rig.cloud.request(Method::DELETE, "/emulator/faults");
    assert_eq!(cleared.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(twin(&rig).send().await.unwrap().status(), StatusCode::OK);
    let (_, session_present) = rig.connect().await;
    assert!(session_present);
}

#[tokio::test]
async fn a_throttled_request_is_told_so_as_a_hub_does() {
    let rig = Rig::start().await.http1();
    let rule = json!({"times": 1, "fault": {"kind": "throttle", "millis": 50}});
    fault(&rig, rule).await;
    let answer = twin(&rig).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        answer.headers()["iothub-errorcode"],
        "ThrottlingBacklogTimeout"
    );
    assert_eq!(answer.headers()["connection"], "close");
    assert!(!answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn a_thawed_connection_answers_what_came_meanwhile() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    fault(
        &rig,
        json!({"fault": {"kind": "freeze-connection", "millis": 300}}),
    )
    .await;
    device
        .publish("devices/dev1/messages/events/", b"late", 1)
        .await;
    assert_eq!(device.next().await, Some(Got::Puback(1)));
    device
        .publish("devices/dev1/messages/events/", b"later", 2)
        .await;
    assert_eq!(device.next().await, Some(Got::Puback(2)));
}

#[tokio::test]
async fn the_clock_jumps_for_the_running_emulator() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    fault(
        &rig,
        json!({"fault": {"kind": "jump-clock", "by_millis": 7_200_000}}),
    )
    .await;
    assert_eq!(device.next().await, None, "its token has an hour");
}

#[tokio::test]
async fn a_rule_that_cannot_be_read_is_answered_with_all_there_is() {
    let rig = Rig::start().await;
    let request = rig
        .cloud
        .post("/emulator/faults")
        .body(r#"{"fault":{"kind":"drop"}}"#);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let kinds = answer["help"]["kinds"].as_array().unwrap();
    assert!(
        kinds
            .iter()
            .any(|kind| kind["fault"]["kind"] == "drop-connection")
    );
    assert!(answer["help"]["rule"]["after_millis"].is_string());
}

#[tokio::test]
async fn a_tier_throttles_requests_and_shows_what_was_used() {
    let rig = Rig::with(|config| {
        config.hub.capacity = Capacity::new(Tier::S1, NonZeroU32::MIN).ok();
    })
    .await;
    rig.emulator.with_hub(|hub, now| {
        hub.throttle(Operation::Queries, 20, now).unwrap();
        hub.throttle(Operation::Registry, 100, now).unwrap();
        hub.charge([4096 * 399_999], now).unwrap();
    });
    // One more than the hundred of a minute: late, and let through.
    let registry = rig.cloud.get("/devices/dev1").send().await.unwrap();
    assert_eq!(registry.status(), StatusCode::OK);
    let refused = rig
        .emulator
        .with_hub(|hub, now| hub.throttle(Operation::Registry, 10, now));
    assert!(refused.is_err());

    assert_eq!(
        twin(&rig).send().await.unwrap().status(),
        StatusCode::OK,
        "the last of the day"
    );
    let answer = twin(&rig).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(answer.headers()["iothub-errorcode"], "IotHubQuotaExceeded");

    let usage: Value = rig
        .cloud
        .get("/emulator/usage")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(usage["tier"], "S1");
    assert_eq!(usage["messagesToday"], 400_000);
    assert_eq!(usage["messagesLimit"], 400_000);
    let registry = &usage["throttles"][Operation::Registry as usize];
    assert_eq!(registry["passed"], 101);
    assert_eq!(registry["delayed"], 1);
    assert_eq!(registry["refused"], 10);
    assert_eq!(registry["limit"], 100);
    assert_eq!(registry["perSeconds"], 60);
}

#[tokio::test]
async fn faults_are_there_from_the_start() {
    let rule = json!({"after_millis": 100, "fault": {"kind": "drop-connection"}});
    let rig = Rig::with(|config| {
        config.faults.push(serde_json::from_value(rule).unwrap());
    })
    .await;
    let (mut device, _) = rig.connect().await;
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(20), device.next()).await,
        Ok(None)
    );
}

#[tokio::test]
async fn a_body_that_is_too_large_costs_no_more_than_the_largest() {
    let rig = Rig::start().await;
    let body = vec![b' '; 2 * 1024 * 1024];
    // The answer may come before the body is through.
    let _ = rig
        .cloud
        .request(Method::PATCH, "/twins/dev1")
        .body(body)
        .send()
        .await;
    let usage = rig.emulator.with_hub(|hub, now| hub.usage(now));
    assert_eq!(usage.messages_today, 1024 * 1024 / 4096);
}
