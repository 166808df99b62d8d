//! Writes that are stored when the hub does not take them in time, and their receipts.

use std::time::{Duration, Instant, SystemTime};

use iothub::Telemetry;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use store::{
    Done, Failure, Scopes, SessionState, TokenHash, TokenId, TokenOrigin, TokenRecord, Work,
};

use crate::{
    hub::message,
    rig::{PATIENCE, Rig, TOKEN, assert_status, identity, module, problem, send, serve},
    signatures,
};

const EVENTS: &str = "/devices/dev1/messages/events";
const REPORTED: &str = "/devices/dev1/twin/properties/reported";
const KEY: &str = "0123456789abcdef";
const LIST: &str = "application/vnd.tombolo.batch+json";
const HUB: &str = "application/vnd.microsoft.iothub.json";
const ID: &str = "iothub-messageid";

fn at_once(rig: &Rig, body: &'static str) -> RequestBuilder {
    let request = rig.request(Method::POST, EVENTS);
    request.header("prefer", "respond-async").body(body)
}

/// Checks that a write is stored, and gives the path of its receipt.
fn stored(answer: &Response) -> String {
    assert_status(answer, StatusCode::ACCEPTED);
    assert_eq!(answer.headers()["tombolo-delivery"], "stored");
    answer.headers()["location"].to_str().unwrap().to_owned()
}

async fn receipt(rig: &Rig, path: &str) -> Value {
    let answer = rig.get(path).await;
    assert_status(&answer, StatusCode::OK);
    answer.json().await.unwrap()
}

async fn until_receipt_is(rig: &Rig, path: &str, state: &str) -> Value {
    let start = Instant::now();
    loop {
        let receipt = receipt(rig, path).await;
        if receipt["state"] == state {
            return receipt;
        }
        assert!(start.elapsed() < PATIENCE, "{receipt} is not {state}");
    }
}

fn sent(rig: &Rig) -> Vec<Telemetry> {
    let taken = rig.hub.taken.lock();
    let telemetry = taken.iter().filter_map(|work| match work {
        Work::Telemetry(telemetry) => Some(telemetry.clone()),
        Work::TwinRead | Work::ReportedPatch(_) | Work::MethodAnswer { .. } => None,
    });
    telemetry.collect()
}

#[tokio::test]
async fn what_the_hub_does_not_take_in_time_is_stored_and_has_a_receipt() {
    let mut rig = Rig::durable().await;
    let start = Instant::now();
    let request = rig.request(Method::POST, EVENTS).header("prefer", "wait=1");
    let answer = send(request.body("x")).await;
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(!answer.headers().contains_key("preference-applied"));
    let path = stored(&answer);
    assert!(path.starts_with("/devices/dev1/receipts/"), "{path}");
    let waiting = receipt(&rig, &path).await;
    assert_eq!(waiting["state"], "stored");
    assert!(path.ends_with(waiting["receipt"].as_str().unwrap()));

    rig.hub.is(SessionState::Refused).await;
    until_receipt_is(&rig, &path, "waiting_for_credential").await;
    rig.hub.is(SessionState::Connected).await;
    rig.hub.settles(|_| None).await;
    until_receipt_is(&rig, &path, "sent").await;
    rig.hub.acknowledges().await;
    let done = until_receipt_is(&rig, &path, "acknowledged").await;
    assert!(done["acknowledged_at"].as_str() >= done["stored_at"].as_str());

    let message = sent(&rig).pop().unwrap();
    assert_eq!(message.system.message_id.unwrap().len(), 32);
    let (name, time) = &message.properties[0];
    assert_eq!(name, "iothub-creation-time-utc");
    assert!(time.parse::<iothub::Timestamp>().is_ok());
}

#[tokio::test]
async fn what_is_asynchronous_is_stored_at_once() {
    let mut rig = Rig::durable().await;
    let start = Instant::now();
    let answer = send(at_once(&rig, "x").header(ID, "own")).await;
    assert!(start.elapsed() < Duration::from_secs(4));
    assert_eq!(answer.headers()["preference-applied"], "respond-async");
    let path = stored(&answer);
    rig.hub.acknowledges().await;
    until_receipt_is(&rig, &path, "acknowledged").await;
    assert_eq!(sent(&rig)[0].system.message_id.as_deref(), Some("own"));
}

#[tokio::test]
async fn what_its_session_fails_is_stored_unless_it_fails_for_good() {
    let mut rig = Rig::durable().await;
    for failure in [
        Failure::HubUnavailable,
        Failure::CredentialRefused,
        Failure::Stopping,
        Failure::HubTimeout,
    ] {
        let told = parking_lot::Mutex::new(Some(failure.clone()));
        rig.hub.settles(move |_| told.lock().take().map(Err)).await;
        let path = stored(&rig.post(EVENTS, "x").await);
        rig.hub.acknowledges().await;
        until_receipt_is(&rig, &path, "acknowledged").await;
        let sent = sent(&rig);
        let [.., first, again] = sent.as_slice() else {
            panic!("it was sent twice");
        };
        assert_eq!(first, again, "{failure}");
    }
    rig.hub.settles(|_| Some(Err(Failure::DoesNotFit))).await;
    problem(rig.post(EVENTS, "x").await, 413, "message_too_large").await;
    rig.hub.settles(|_| None).await;
    let path = stored(&send(at_once(&rig, "x")).await);
    rig.hub.settles(|_| Some(Err(Failure::DoesNotFit))).await;
    let refused = until_receipt_is(&rig, &path, "refused").await;
    assert_eq!(refused["code"], "message_too_large");
    assert!(refused["refused_at"].is_string() && refused["detail"].is_string());
}

#[tokio::test]
async fn a_patch_is_stored_after_all_rules_are_checked() {
    let mut rig = Rig::durable().await;
    let patch = |body: String| {
        let request = rig.request(Method::PATCH, REPORTED);
        request.header("prefer", "respond-async").body(body)
    };
    for (bad, status, code) in [
        (r#"{"a.b":1}"#.to_owned(), 400, "invalid_request"),
        (r#"{"a":[null]}"#.to_owned(), 400, "invalid_request"),
        (
            r#"{"a":4503599627370496}"#.to_owned(),
            400,
            "invalid_request",
        ),
        (
            format!(r#"{{"a":"{}"}}"#, "x".repeat(4097)),
            400,
            "invalid_request",
        ),
        (
            format!(
                "{{{}}}",
                (0..9)
                    .map(|n| format!(r#""{n}":"{}""#, "x".repeat(4000)))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
            413,
            "message_too_large",
        ),
    ] {
        problem(send(patch(bad)).await, status, code).await;
    }
    let path = stored(&send(patch(r#"{"a":1}"#.to_owned())).await);
    rig.hub
        .settles(|_| Some(Ok(Done::ReportedPatched { version: None })))
        .await;
    until_receipt_is(&rig, &path, "acknowledged").await;
}

#[tokio::test]
async fn what_is_stamped_counts_among_the_bytes_of_a_message() {
    let rig = Rig::durable().await;
    // A message id of 32 characters, and a property with its time.
    let stamps = 32 + "iothub-creation-time-utc2026-01-01T00:00:00.000Z".len();
    for (bytes, fits) in [(262_144 - stamps, true), (262_144, false)] {
        let request = rig
            .request(Method::POST, EVENTS)
            .header("prefer", "respond-async");
        let answer = send(request.body(vec![0; bytes])).await;
        if fits {
            stored(&answer);
        } else {
            problem(answer, 413, "message_too_large").await;
        }
    }
    let own = rig
        .request(Method::POST, EVENTS)
        .header("prefer", "respond-async")
        .header(ID, "m")
        .header("iothub-creationtimeutc", "2026")
        .body(vec![0; 262_144 - 5]);
    stored(&send(own).await);
}

#[tokio::test]
async fn a_batch_is_stored_in_its_order() {
    let mut rig = Rig::durable().await;
    let bodies: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let items: Vec<Value> = bodies
        .iter()
        .map(|body| serde_json::json!({"body": body}))
        .collect();
    let batch = rig
        .request(Method::POST, EVENTS)
        .header("prefer", "respond-async")
        .header("content-type", LIST)
        .body(Value::from(items).to_string());
    let answer: Value = send(batch).await.json().await.unwrap();
    let results = answer["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result["status"] == 202));
    let hubs = rig
        .request(Method::POST, EVENTS)
        .header("prefer", "wait=1")
        .header("content-type", HUB)
        .body(r#"[{"body":"YQ=="},{"body":"Yg=="}]"#);
    let last = stored(&send(hubs).await);

    rig.hub.acknowledges().await;
    until_receipt_is(&rig, &last, "acknowledged").await;
    for result in results {
        let path = format!(
            "/devices/dev1/receipts/{}",
            result["receipt"].as_str().unwrap()
        );
        assert_eq!(receipt(&rig, &path).await["state"], "acknowledged");
    }
    let sent = sent(&rig).into_iter();
    let sent: Vec<_> = sent
        .map(|sent| String::from_utf8(sent.payload.to_vec()).unwrap())
        .collect();
    assert_eq!(sent[..300], bodies);
    assert_eq!(sent[300..], ["a", "b"]);
}

#[tokio::test]
async fn a_copy_of_what_is_stored_waits_for_the_same() {
    let mut rig = Rig::durable().await;
    let copy = || rig.keyed(EVENTS, KEY, "x").header("prefer", "wait=1");
    let batch = || {
        let batch = rig.keyed(
            EVENTS,
            KEY.to_uppercase().as_str(),
            r#"[{"body":"a"},{"body":"b"}]"#,
        );
        batch
            .header("content-type", LIST)
            .header("prefer", "wait=1")
    };
    let first = stored(&send(copy()).await);
    assert_eq!(stored(&send(copy()).await), first);
    let of_batch: Value = send(batch()).await.json().await.unwrap();
    assert_eq!(of_batch["results"][1]["status"], 202);
    rig.hub.acknowledges().await;
    until_receipt_is(&rig, &first, "acknowledged").await;
    let copy = rig.keyed(EVENTS, KEY, "x");
    assert_status(&send(copy).await, StatusCode::NO_CONTENT);
    let batch = rig
        .keyed(
            EVENTS,
            KEY.to_uppercase().as_str(),
            r#"[{"body":"a"},{"body":"b"}]"#,
        )
        .header("content-type", LIST);
    let again: Value = send(batch).await.json().await.unwrap();
    assert_eq!(again, of_batch);
    assert_eq!(sent(&rig).len(), 3);
}

#[tokio::test]
async fn answers_and_settlements_are_never_stored() {
    let mut rig = Rig::durable().await;
    rig.hub.is(SessionState::Settled).await;
    rig.hub.settles(|_| None).await;
    let id = rig
        .hub
        .invokes("reboot", "{}", Duration::from_secs(30))
        .await;
    let answer = rig
        .request(
            Method::POST,
            &format!("/devices/dev1/methods/{id}/response"),
        )
        .header("prefer", "respond-async, wait=1")
        .body(r#"{"status":200}"#);
    problem(send(answer).await, 504, "hub_timeout").await;
    let _settlement = rig.hub.sends(message("a")).await;
    let received = rig.get("/devices/dev1/messages/devicebound").await;
    let token = received.headers()["etag"]
        .to_str()
        .unwrap()
        .trim_matches('"')
        .to_owned();
    let complete = rig
        .request(
            Method::DELETE,
            &format!("/devices/dev1/messages/devicebound/{token}"),
        )
        .header("prefer", "respond-async, wait=1");
    problem(send(complete).await, 504, "hub_timeout").await;
}

#[tokio::test]
async fn what_the_gateway_could_not_deliver_is_not_stored() {
    let rig = Rig::durable().await;
    let token = "tmb_bought-with-a-signature";
    let record = TokenRecord {
        id: TokenId("bought".to_owned()),
        identity: identity("dev1"),
        hash: TokenHash::of(token),
        created_at: SystemTime::now().into(),
        expires_at: None,
        scopes: Scopes::ALL,
        origin: TokenOrigin::Hub,
    };
    rig.store.registry.put_token(record).await.unwrap();
    for key in [None, Some(KEY)] {
        let request = rig
            .anonymous(Method::POST, EVENTS)
            .bearer_auth(token)
            .header("prefer", "respond-async, wait=1");
        let request = match key {
            None => request,
            Some(key) => request.header("idempotency-key", key),
        };
        let answer = send(request.body("x")).await;
        assert!(answer.headers().contains_key("retry-after"));
        problem(answer, 503, "overloaded").await;
    }
}

#[tokio::test]
async fn a_receipt_is_for_whom_it_was_given() {
    let rig = Rig::durable().await;
    serve(&rig.store, &module("dev1", "m")).await;
    let path = stored(&send(at_once(&rig, "x")).await);
    let id = path.rsplit('/').next().unwrap();
    for other in [
        format!("/devices/dev1/modules/m/receipts/{id}"),
        format!("/devices/dev1/receipts/{}", "0".repeat(32)),
        "/devices/dev1/receipts/none".to_owned(),
    ] {
        problem(rig.get(&other).await, 404, "not_found").await;
    }
    let of_module = rig
        .request(Method::POST, "/devices/dev1/modules/m/messages/events")
        .header("prefer", "respond-async")
        .body("x");
    let path = stored(&send(of_module).await);
    assert!(
        path.starts_with("/devices/dev1/modules/m/receipts/"),
        "{path}"
    );
    assert_eq!(receipt(&rig, &path).await["state"], "stored");
}

/// A token that the hub took, one that was bought with it, and one that an operator made: with none of them the gateway has
/// something to show the hub when the device has gone, unless it keeps what the device has shown.
#[tokio::test]
async fn nothing_is_stored_for_a_device_that_is_passed_through_unless_its_token_is_kept() {
    let rig = Rig::durable().await;
    rig.pass_through("dev1").await;
    signatures::accepts(&rig, None);
    let shown = signatures::signature("hub.example/devices/dev1");
    let wish = rig.anonymous(Method::POST, "/devices/dev1/token");
    let wish = wish.header("authorization", &shown).body("{}");
    let bought: Value = send(wish).await.json().await.unwrap();
    let bought = bought["token"].as_str().unwrap().to_owned();
    let credentials = [shown, format!("Bearer {bought}"), format!("Bearer {TOKEN}")];
    let write = |credential: &str| {
        let request = rig.anonymous(Method::POST, EVENTS);
        let request = request.header("authorization", credential);
        request.header("prefer", "respond-async, wait=1").body("x")
    };
    for credential in &credentials {
        problem(send(write(credential)).await, 503, "overloaded").await;
    }

    let until = signatures::in_an_hour();
    signatures::accepts(&rig, Some(until));
    for credential in &credentials {
        let path = stored(&send(write(credential)).await);
        let receipt = receipt(&rig, &path).await;
        assert_eq!(receipt["state"], "stored");
        assert_eq!(receipt["deliverable_until"], until.to_string());
    }
    let path = stored(&send(write(&credentials[0])).await);
    signatures::accepts(&rig, None);
    let left = receipt(&rig, &path).await;
    assert!(left.get("deliverable_until").is_none(), "{left}");
}

/// What the gateway keeps when the request comes need not be good when the write is to be stored: the hub has refused it
/// meanwhile, or it is about to end.
#[tokio::test]
async fn a_write_is_not_stored_on_a_token_that_the_hub_has_refused_meanwhile() {
    let mut rig = Rig::durable().await;
    let shown = signatures::signature("hub.example/devices/dev1");
    rig.pass_through("dev1").await;
    let write = |rig: &Rig| {
        let request = rig.anonymous(Method::POST, EVENTS);
        request.header("authorization", &shown).body("x")
    };
    let soon = |seconds| {
        let now = iothub::Timestamp::from(SystemTime::now());
        Some(now.saturating_add(Duration::from_secs(seconds)))
    };
    signatures::accepts(&rig, soon(30));
    let request = write(&rig).header("prefer", "respond-async, wait=1");
    problem(send(request).await, 503, "overloaded").await;
    let judge = signatures::accepts(&rig, soon(3600));
    rig.hub
        .settles(move |_| {
            judge.keeps_no_more();
            Some(Err(Failure::CredentialRefused))
        })
        .await;
    problem(send(write(&rig)).await, 502, "hub_refused").await;

    rig.hub.settles(|_| None).await;
    signatures::accepts(&rig, soon(90));
    let request = write(&rig).header("prefer", "respond-async, wait=1");
    stored(&send(request).await);
}
