//! What the gateway has given up, and what waits, as operators see it.

use std::{sync::Arc, time::Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use iothub::Telemetry;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{
    Failure, Lane, NodeId, OutboxReader, Partition, SessionState, Submission, SubmissionId,
    Survival, Work,
};

use crate::{
    hub::message,
    rig::{PATIENCE, Rig, assert_status, identity, problem, send, serve},
};

const OUTBOX: &str = "/admin/v1/devices/dev1/outbox/dead-letters";
const INBOX: &str = "/admin/v1/devices/dev1/inbox/dead-letters";

async fn get(rig: &Rig, path: &str) -> Value {
    let answer = send(rig.admin(Method::GET, path)).await;
    assert_status(&answer, StatusCode::OK);
    answer.json().await.unwrap()
}

async fn post(rig: &Rig, path: &str) -> reqwest::Response {
    send(rig.admin(Method::POST, path)).await
}

async fn letters(rig: &Rig, path: &str) -> Vec<Value> {
    let list = get(rig, path).await;
    assert_eq!(list["next"], Value::Null);
    list["dead_letters"].as_array().unwrap().clone()
}

/// A message of the device that the hub never takes.
async fn poison(rig: &mut Rig) {
    let request = rig
        .request(Method::POST, "/devices/dev1/messages/events")
        .header("prefer", "respond-async")
        .header("iothub-app-unit", "C")
        .body("poison");
    assert_status(&send(request).await, StatusCode::ACCEPTED);
    let failure = Failure::HubClosedOnPublish;
    rig.hub.settles(move |_| Some(Err(failure.clone()))).await;
    let start = Instant::now();
    while letters(rig, OUTBOX).await.is_empty() {
        assert!(start.elapsed() < PATIENCE, "it is no dead letter");
    }
}

/// A message for the device that it rejects.
async fn reject(rig: &mut Rig, body: &str) {
    rig.hub.is(SessionState::Settled).await;
    let mut rejected = message(body);
    rejected.system.message_id = Some("m-1".to_owned());
    rejected.properties = vec![("level".to_owned(), "2".to_owned())];
    rig.hub.leaves(rejected).await;
    let inbox: Value = rig.get("/devices/dev1/inbox").await.json().await.unwrap();
    let settle = json!([{"token": inbox["entries"][0]["token"], "outcome": "reject"}]);
    let settled = rig.post("/devices/dev1/inbox/settle", settle.to_string());
    assert_status(&settled.await, StatusCode::OK);
}

#[tokio::test]
async fn a_dead_letter_of_the_outbox_is_read_replayed_and_discarded() {
    let mut rig = Rig::durable().await;
    poison(&mut rig).await;
    let listed = letters(&rig, OUTBOX).await;
    assert_eq!(listed, letters(&rig, "/admin/v1/outbox/dead-letters").await);
    let letter = &listed[0];
    assert_eq!(
        (&letter["box"], &letter["kind"], &letter["attempts"]),
        (&json!("outbox"), &json!("telemetry"), &json!(1))
    );
    assert_eq!(letter["dead"]["reason"], "hub_closed_on_publish");
    assert!(letter["dead"]["at"].is_string() && letter["dead"]["detail"].is_string());
    assert_eq!(letter["content"], Value::Null, "a list has no payloads");
    let receipt = format!(
        "/devices/dev1/receipts/{}",
        letter["receipt"].as_str().unwrap()
    );
    let refused: Value = rig.get(&receipt).await.json().await.unwrap();
    assert_eq!(refused["state"], "refused");

    let path = format!("{OUTBOX}/{}", letter["id"]);
    let read = get(&rig, &path).await;
    assert_eq!(read["content"]["payload"], BASE64.encode("poison"));
    assert_eq!(read["content"]["properties"]["unit"], "C");
    assert!(read["content"]["system"]["message_id"].is_string());

    rig.hub.settles(|_| None).await;
    let replayed = post(&rig, &format!("{path}/replay")).await;
    assert_status(&replayed, StatusCode::ACCEPTED);
    assert_eq!(replayed.headers()["tombolo-delivery"], "stored");
    assert_eq!(letters(&rig, OUTBOX).await, [Value::Null; 0]);
    let again = post(&rig, &format!("{path}/replay")).await;
    problem(again, 404, "not_found").await;
    let waiting: Value = rig.get(&receipt).await.json().await.unwrap();
    assert!(["stored", "sent"].contains(&waiting["state"].as_str().unwrap()));

    poison(&mut rig).await;
    let id = &letters(&rig, OUTBOX).await[0]["id"];
    let path = format!("{OUTBOX}/{id}");
    let discarded = send(rig.admin(Method::DELETE, &path)).await;
    assert_status(&discarded, StatusCode::NO_CONTENT);
    for method in [Method::DELETE, Method::GET] {
        problem(send(rig.admin(method, &path)).await, 404, "not_found").await;
    }
}

#[tokio::test]
async fn a_dead_letter_of_the_inbox_is_read_replayed_and_discarded() {
    let mut rig = Rig::durable().await;
    reject(&mut rig, "secret").await;
    let listed = letters(&rig, INBOX).await;
    assert_eq!(listed, letters(&rig, "/admin/v1/inbox/dead-letters").await);
    let letter = &listed[0];
    assert!(!letter.to_string().contains("secret"));
    assert_eq!(
        (&letter["dead"]["reason"], &letter["message_id"]),
        (&json!("Rejected"), &json!("m-1"))
    );
    assert_eq!(
        (&letter["bytes"], &letter["delivery_count"]),
        (&json!(6), &json!(0))
    );
    let path = format!("{INBOX}/{}", letter["id"]);
    let read = get(&rig, &path).await;
    assert_eq!(read["content"]["payload"], BASE64.encode("secret"));
    assert_eq!(read["content"]["properties"], json!({"level": "2"}));
    assert_eq!(read["content"]["system"]["message_id"], "m-1");

    let replayed = post(&rig, &format!("{path}/replay")).await;
    assert_status(&replayed, StatusCode::NO_CONTENT);
    let inbox: Value = rig.get("/devices/dev1/inbox").await.json().await.unwrap();
    assert_eq!(inbox["entries"][0]["body"], "secret");
    assert_eq!(letters(&rig, INBOX).await, [Value::Null; 0]);

    let settle = json!([{"token": inbox["entries"][0]["token"], "outcome": "reject"}]);
    rig.post("/devices/dev1/inbox/settle", settle.to_string())
        .await;
    let id = &letters(&rig, INBOX).await[0]["id"];
    let discarded = send(rig.admin(Method::DELETE, &format!("{INBOX}/{id}"))).await;
    assert_status(&discarded, StatusCode::NO_CONTENT);
    assert_eq!(letters(&rig, INBOX).await, [Value::Null; 0]);
}

#[tokio::test]
async fn without_a_disk_a_dead_letter_says_nothing_and_is_not_replayed() {
    let mut rig = Rig::start().await;
    reject(&mut rig, "gone").await;
    let id = &letters(&rig, INBOX).await[0]["id"];
    let path = format!("{INBOX}/{id}");
    assert_eq!(get(&rig, &path).await["content"], Value::Null);
    let refused = post(&rig, &format!("{path}/replay")).await;
    let detail = problem(refused, 404, "not_found").await;
    assert!(detail.contains("not kept"), "{detail}");
    assert_eq!(letters(&rig, INBOX).await.len(), 1);
}

fn telemetry(device: &str, id: u128) -> Submission {
    let telemetry = Telemetry {
        payload: id.to_string().into(),
        ..Telemetry::default()
    };
    Submission {
        id: SubmissionId(id),
        identity: identity(device),
        work: Arc::new(Work::Telemetry(telemetry)),
        survival: Survival::Durable,
        fingerprint: None,
    }
}

/// Reads a device's entries as its session does.
async fn reader(rig: &Rig, device: &str) -> Box<dyn OutboxReader> {
    let (identity, node) = (identity(device), NodeId::new("hub"));
    let lease = rig.store.leases.acquire(&node, Partition::of(&identity));
    let lease = lease.await.unwrap();
    rig.store.outbox.open(&lease, &identity).await.unwrap()
}

/// Many dead letters of a device, by the store's own contract.
async fn bury(rig: &Rig, device: &str, count: u128) {
    let outbox = &rig.store.outbox;
    for id in 1..=count {
        outbox.submit(telemetry(device, id)).await.unwrap();
    }
    let mut reader = reader(rig, device).await;
    for entry in reader.take(Lane::Telemetry, usize::MAX).await.unwrap() {
        let failed = reader.settle(entry.id, Err(Failure::DoesNotFit));
        failed.await.unwrap();
    }
}

#[tokio::test]
async fn long_lists_come_in_parts_and_nothing_is_left_out() {
    let bounds = store::memory::Config {
        dead_letters: 1000,
        outbox_entries: 210,
        ..store::memory::Config::default()
    };
    let rig = Rig::durable_with(bounds).await;
    for (device, count) in [("dev2", 101), ("dev3", 210), ("dev4", 1)] {
        serve(&rig.store, &identity(device)).await;
        bury(&rig, device, count).await;
    }
    for (list, expected) in [
        ("/admin/v1/outbox/dead-letters", 312),
        ("/admin/v1/devices/dev3/outbox/dead-letters", 210),
        ("/admin/v1/devices/dev4/outbox/dead-letters", 1),
    ] {
        let mut seen = Vec::new();
        let mut path = list.to_owned();
        loop {
            let part = get(&rig, &path).await;
            let letters = part["dead_letters"].as_array().unwrap();
            assert!(letters.len() < 200, "{}", letters.len());
            seen.extend(letters.iter().map(|letter| {
                let number = letter["id"].as_u64().unwrap();
                (letter["device"].as_str().unwrap().to_owned(), number)
            }));
            match part["next"].as_str() {
                Some(next) => path = format!("{list}?after={next}"),
                None => break,
            }
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((count, seen.len()), (expected, expected), "{list}");
    }
    let elsewhere = get(&rig, "/admin/v1/devices/dev3/outbox/dead-letters").await;
    let elsewhere = elsewhere["next"].as_str().unwrap();
    let path = format!("/admin/v1/devices/dev2/outbox/dead-letters?after={elsewhere}");
    let refused = send(rig.admin(Method::GET, &path)).await;
    problem(refused, 400, "invalid_request").await;

    // As many as an answer holds, and the rest with the next request; what does not fit stays what it is.
    let all = "/admin/v1/devices/dev3/outbox/dead-letters/replay";
    let (mut replayed, mut ids) = (0, Vec::new());
    for more in [true, true, false] {
        let answer: Value = post(&rig, all).await.json().await.unwrap();
        let results = answer["results"].as_array().unwrap();
        replayed += results.iter().filter(|one| one["status"] == 202).count();
        ids.extend(results.iter().map(|one| one["id"].as_u64().unwrap()));
        assert_eq!(answer["more"], more);
    }
    assert!(ids.is_sorted(), "{ids:?}");
    assert_eq!((replayed, ids.len()), (210, 210));
    bury_one_more(&rig).await;
    let answer: Value = post(&rig, all).await.json().await.unwrap();
    let result = &answer["results"][0];
    assert_eq!(
        (&result["status"], &result["code"]),
        (&json!(429), &json!("outbox_full"))
    );
    assert_eq!(result["retryable"], true);
    let left = get(&rig, "/admin/v1/devices/dev3/outbox/dead-letters").await;
    assert_eq!(left["dead_letters"].as_array().unwrap().len(), 1);
}

/// Makes a dead letter of an entry of a device whose outbox is full, and fills its place.
async fn bury_one_more(rig: &Rig) {
    let mut reader = reader(rig, "dev3").await;
    let taken = reader.take(Lane::Telemetry, 1).await.unwrap();
    let failed = reader.settle(taken[0].id, Err(Failure::DoesNotFit));
    failed.await.unwrap();
    let filler = telemetry("dev3", 1000);
    rig.store.outbox.submit(filler).await.unwrap();
}

#[tokio::test]
async fn what_waits_is_shown_of_all_and_of_each() {
    let mut rig = Rig::durable().await;
    serve(&rig.store, &identity("dev2")).await;
    bury(&rig, "dev2", 1).await;
    let waits = telemetry("dev2", 100);
    rig.store.outbox.submit(waits).await.unwrap();
    rig.hub.leaves(message("waits")).await;

    let all = get(&rig, "/admin/v1/store").await;
    assert_eq!(all["disk"], Value::Null, "this rig tells of none");
    for side in ["outbox", "inbox"] {
        assert_eq!(all[side]["waiting"], 1, "{all}");
        assert!(all[side]["oldest"].is_string(), "{all}");
    }
    assert_eq!(all["inbox"]["bytes"], 5);
    assert_eq!(all["outbox"]["dead_letters"], 1);
    let of_device = get(&rig, "/admin/v1/devices/dev2").await;
    assert_eq!(of_device["outbox"], all["outbox"]);
    let backlog = get(&rig, "/admin/v1/outbox/devices").await;
    assert_eq!(
        backlog,
        json!({
            "devices": [{
                "hub": "hub.example", "device": "dev2", "outbox": all["outbox"],
                "inbox": {"waiting": 0, "bytes": 0, "oldest": null, "dead_letters": 0},
            }],
            "next": null,
        })
    );
}

#[tokio::test]
async fn calls_that_are_none_are_refused() {
    let rig = Rig::durable().await;
    for (method, path, status, code) in [
        (Method::POST, OUTBOX.to_owned(), 405, "method_not_allowed"),
        (Method::GET, format!("{OUTBOX}/1"), 404, "not_found"),
        (Method::GET, format!("{INBOX}/x"), 404, "not_found"),
        (Method::DELETE, format!("{INBOX}/-1"), 404, "not_found"),
        (Method::POST, format!("{OUTBOX}/1/replay"), 404, "not_found"),
        (
            Method::GET,
            format!("{OUTBOX}/1/replay"),
            405,
            "method_not_allowed",
        ),
        (
            Method::GET,
            format!("{OUTBOX}?after=x"),
            400,
            "invalid_request",
        ),
        (
            Method::GET,
            "/admin/v1/devices/dev1/dead-letters".to_owned(),
            404,
            "not_found",
        ),
        (
            Method::DELETE,
            "/admin/v1/store".to_owned(),
            405,
            "method_not_allowed",
        ),
    ] {
        let answer = send(rig.admin(method, &path)).await;
        problem(answer, status, code).await;
    }
    let nothing = post(&rig, &format!("{OUTBOX}/replay")).await;
    let nothing: Value = nothing.json().await.unwrap();
    assert_eq!(nothing, json!({"results": [], "more": false}));
}
