//! The HTTPS device API, as the SDKs use it.

use std::time::Duration;

use iothub::{Timestamp, sas::Key};
use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN},
};
use serde_json::{Value, json};

use crate::rig::{HUB, Rig, device_key};

/// A request with a token of the device, as for the path.
fn request(rig: &Rig, method: Method, path: &str) -> RequestBuilder {
    let token = sign(&device_key(), &format!("{HUB}/devices/dev1"));
    let request = rig.cloud.anonymous(method, path);
    request.header(AUTHORIZATION, token)
}

fn sign(key: &Key, resource: &str) -> String {
    let now = Timestamp::from(std::time::SystemTime::now());
    key.sign(
        resource,
        None,
        now.saturating_add(Duration::from_secs(3600)),
    )
}

async fn send_down(rig: &Rig, body: &'static str, headers: &[(&str, &str)]) {
    let mut request = rig.cloud.post("/emulator/devices/dev1/messages");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let sent = request.body(body).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::OK);
}

/// Receives and returns the lock token without its quotes.
async fn lock(rig: &Rig) -> String {
    let got = request(rig, Method::GET, BOUND).send().await.unwrap();
    assert_eq!(got.status(), StatusCode::OK);
    got.headers()["etag"]
        .to_str()
        .unwrap()
        .trim_matches('"')
        .to_owned()
}

async fn telemetry(rig: &Rig) -> Vec<Value> {
    let answer = rig.cloud.get("/emulator/telemetry").send().await.unwrap();
    let text = answer.text().await.unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const EVENTS: &str = "/devices/dev1/messages/events?api-version=2021-04-12";
const BOUND: &str = "/devices/dev1/messages/deviceBound?api-version=2021-04-12";
const BATCH: &str = "application/vnd.microsoft.iothub.json";

#[tokio::test]
async fn headers_become_properties() {
    let rig = Rig::start().await.http1();
    // As the Node SDK was captured.
    let sent = request(&rig, Method::POST, EVENTS)
        .header("iothub-to", "/devices/dev1/messages/events")
        .header("iothub-app-zeta", "a b")
        .header("IoTHub-MessageId", "id 1/:+")
        .header("iothub-contenttype", "application/json")
        .header("dt-subject", "thermostat")
        .body("{\"t\":1}")
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), StatusCode::NO_CONTENT);
    assert!(sent.headers().contains_key("x-ms-request-id"));
    let record = telemetry(&rig).await.remove(0);
    assert_eq!(record["body"], "{\"t\":1}");
    assert_eq!(record["properties"], json!({"zeta": "a b"}));
    let system = &record["systemProperties"];
    assert_eq!(system["message-id"], "id 1/:+");
    assert_eq!(system["content-type"], "application/json");
    assert_eq!(system["dt-subject"], "thermostat");
    assert!(system.get("to").is_none());
    assert_eq!(system["iothub-connection-device-id"], "dev1");
}

#[tokio::test]
async fn a_batch_in_every_sdks_spelling() {
    let rig = Rig::start().await;
    let batch = json!([
        {"body": "eyJ0IjoxfQ==", "properties": {"iothub-app-zeta": "a b", "iothub-app-alpha1": "x=y&z"}},
        {"body": "YjI="},
        {"body": "YjM=", "base64Encoded": true, "properties": {"iothub-messageid": "m"}},
        {"body": "plain text", "base64Encoded": false, "properties": {}},
    ]);
    let sent = request(&rig, Method::POST, EVENTS)
        .header(CONTENT_TYPE, BATCH)
        .body(batch.to_string())
        .send();
    assert_eq!(sent.await.unwrap().status(), StatusCode::NO_CONTENT);
    let records = telemetry(&rig).await;
    let bodies: Vec<_> = records
        .iter()
        .map(|r| r["body"].as_str().unwrap())
        .collect();
    assert_eq!(bodies, ["{\"t\":1}", "b2", "b3", "plain text"]);
    assert_eq!(
        records[0]["properties"],
        json!({"zeta": "a b", "alpha1": "x=y&z"})
    );
    assert_eq!(records[2]["systemProperties"]["message-id"], "m");
}

#[tokio::test]
async fn a_bad_batch_leaves_nothing() {
    let rig = Rig::start().await;
    let padded = |size: usize| {
        let frame = json!([{"body": "", "base64Encoded": false}]).to_string();
        let text = "x".repeat(size - frame.len());
        json!([{"body": text, "base64Encoded": false}]).to_string()
    };
    for (body, status, code) in [
        ("[".to_owned(), 400, "IotHubFormatError"),
        ("{}".to_owned(), 400, "IotHubFormatError"),
        ("[]".to_owned(), 400, "ArgumentInvalid"),
        (
            r#"[{"body":"YjI="},{"body":"?"}]"#.to_owned(),
            400,
            "ArgumentInvalid",
        ),
        (
            r#"[{"body":"YjI=","properties":{"iothub-app-a":1}}]"#.to_owned(),
            400,
            "ArgumentInvalid",
        ),
        (padded(256 * 1024 + 1), 413, "MessageTooLarge"),
    ] {
        let sent = request(&rig, Method::POST, EVENTS)
            .header(CONTENT_TYPE, BATCH)
            .body(body);
        let answer = sent.send().await.unwrap();
        assert_eq!(answer.status(), status, "{code}");
        assert_eq!(answer.headers()["iothub-errorcode"], code);
    }
    assert_eq!(telemetry(&rig).await.len(), 0);
    let largest = request(&rig, Method::POST, EVENTS)
        .header(CONTENT_TYPE, format!("{BATCH}; charset=utf-8"))
        .body(padded(256 * 1024));
    assert_eq!(
        largest.send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn a_message_has_a_size() {
    let rig = Rig::start().await;
    let of = |size: usize| {
        // Names and values of application properties count, and values of system properties.
        request(&rig, Method::POST, EVENTS)
            .header("iothub-app-ab", "cd")
            .header("iothub-messageid", "m")
            .body(vec![b'x'; size - 5])
            .send()
    };
    assert_eq!(of(256 * 1024).await.unwrap().status(), 204);
    let refused = of(256 * 1024 + 1).await.unwrap();
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.headers()["iothub-errorcode"], "MessageTooLarge");
}

#[tokio::test]
async fn a_message_comes_with_its_properties_and_is_completed() {
    let rig = Rig::start().await;
    let empty = request(&rig, Method::GET, BOUND).send().await.unwrap();
    assert_eq!(empty.status(), StatusCode::NO_CONTENT);
    send_down(
        &rig,
        "{\"on\":true}",
        &[
            ("iothub-messageid", "m-1"),
            ("iothub-correlationid", "c"),
            ("iothub-userid", "u"),
            ("iothub-contenttype", "application/json"),
            ("iothub-contentencoding", "utf-8"),
            ("iothub-expiry", "2099-12-31T13:05:09Z"),
            ("iothub-ack", "full"),
            ("iothub-app-level", "a b"),
        ],
    )
    .await;
    let got = request(&rig, Method::GET, BOUND).send().await.unwrap();
    assert_eq!(got.status(), StatusCode::OK);
    let headers = got.headers().clone();
    let header = |name: &str| headers[name].to_str().unwrap();
    for (name, value) in [
        ("iothub-messageid", "m-1"),
        ("iothub-correlationid", "c"),
        ("iothub-userid", "u"),
        ("iothub-to", "/devices/dev1/messages/deviceBound"),
        ("iothub-ack", "full"),
        ("iothub-sequencenumber", "1"),
        ("iothub-deliverycount", "0"),
        ("iothub-expiry", "12/31/2099 01:05:09 PM"),
        ("contenttype", "application/json"),
        ("contentencoding", "utf-8"),
        ("iothub-app-level", "a b"),
    ] {
        assert_eq!(header(name), value, "{name}");
    }
    assert!(header("iothub-enqueuedtime").ends_with('M'));
    let tag = header("etag");
    assert_eq!((tag.len(), &tag[..1], &tag[37..]), (38, "\"", "\""));
    let lock = tag.trim_matches('"').to_owned();
    assert_eq!(got.text().await.unwrap(), "{\"on\":true}");

    // As the Node SDK completes: the token once more in If-Match, without quotes.
    let path = format!("/devices/dev1/messages/devicebound/{lock}?api-version=2021-04-12");
    let complete = || request(&rig, Method::DELETE, &path).header("if-match", &lock);
    let done = complete().send().await.unwrap();
    assert_eq!(done.status(), StatusCode::NO_CONTENT);
    let again = complete().send().await.unwrap();
    assert_eq!(again.status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(again.headers()["iothub-errorcode"], "DeviceMessageLockLost");
    let records: Value = rig
        .cloud
        .get("/emulator/feedback")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(records[0]["statusCode"], "Success");
}

#[tokio::test]
async fn reject_and_abandon_in_their_spellings() {
    let rig = Rig::start().await;
    let spellings = [
        "?api-version=2021-04-12&reject",
        "?reject&api-version=2016-11-14",
        "?reject=",
    ];
    for query in spellings {
        send_down(&rig, "x", &[("iothub-ack", "negative")]).await;
        let lock = lock(&rig).await;
        let abandon = format!("/devices/dev1/messages/deviceBound/{lock}/abandon/");
        let abandoned = request(&rig, Method::POST, &abandon).send().await.unwrap();
        assert_eq!(abandoned.status(), StatusCode::NO_CONTENT);
        let again = request(&rig, Method::GET, BOUND).send().await.unwrap();
        assert_eq!(again.headers()["iothub-deliverycount"], "1");
        let lock = again.headers()["etag"].to_str().unwrap().trim_matches('"');
        let reject = format!("/devices/dev1/messages/devicebound/{lock}{query}");
        let rejected = request(&rig, Method::DELETE, &reject).send().await.unwrap();
        assert_eq!(rejected.status(), StatusCode::NO_CONTENT);
    }
    let records = rig.emulator.with_hub(|hub, _| hub.feedback(1));
    let statuses: Vec<_> = records.iter().map(|r| r.status.as_str()).collect();
    assert_eq!(statuses, ["Rejected"; 3]);
}

#[tokio::test]
async fn the_time_of_a_lock_comes_in_a_header_or_in_the_query() {
    let rig = Rig::start().await;
    let with_header = |value: &str| {
        let request = request(&rig, Method::GET, BOUND);
        request.header("iothub-messagelocktimeout", value).send()
    };
    let with_query = |value: &str| {
        let path = format!("{BOUND}&iothub-messagelocktimeout={value}");
        request(&rig, Method::GET, &path).send()
    };
    for (value, status) in [
        ("1", 204),
        ("300", 204),
        ("0", 400),
        ("301", 400),
        ("x", 400),
    ] {
        let answer = with_header(value).await.unwrap();
        assert_eq!(answer.status(), status, "header {value}");
        let answer = with_query(value).await.unwrap();
        assert_eq!(answer.status(), status, "query {value}");
    }
}

#[tokio::test]
async fn words_of_a_path_have_no_case_and_ids_have() {
    let rig = Rig::start().await;
    for (path, status) in [
        ("/Devices/dev1/Messages/Events/", 204),
        ("/devices/dev1/messages/events", 204),
        ("/devices/DEV1/messages/events", 401),
        ("/devices/dev1/messages/event", 404),
        ("/devices/a%2Fb/messages/events", 400),
    ] {
        let answer = request(&rig, Method::POST, path).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
}

#[tokio::test]
async fn the_device_api_wants_a_devices_token() {
    let rig = Rig::start().await;
    let post = |header: String| {
        let request = rig.cloud.anonymous(Method::POST, EVENTS);
        request.header(AUTHORIZATION, header).send()
    };
    let own = sign(&device_key(), "localhost/devices/dev1");
    assert_eq!(post(own).await.unwrap().status(), 204, "by the host's name");
    let other = Key::from_bytes(vec![3; 32]).unwrap();
    for header in [
        sign(&other, &format!("{HUB}/devices/dev1")),
        sign(&device_key(), "gateway.example/devices/dev1"),
        rig.sas("service"),
        format!("Bearer {}", crate::rig::TOKEN),
    ] {
        let refused = post(header).await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            refused.headers()["iothub-errorcode"],
            "IotHubUnauthorizedAccess"
        );
        let body: Value = refused.json().await.unwrap();
        assert_eq!(
            body["Message"],
            "ErrorCode:IotHubUnauthorizedAccess;Unauthorized"
        );
    }
    assert_eq!(post(rig.sas("device")).await.unwrap().status(), 204);
    let page = request(&rig, Method::POST, EVENTS).header(ORIGIN, "https://localhost");
    assert_eq!(page.send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_refusal_that_leaves_a_body_unread_ends_the_connection() {
    let rig = Rig::start().await.http1();
    let large = || vec![0; 512 * 1024];
    let refused = rig
        .cloud
        .anonymous(Method::POST, EVENTS)
        .body(large())
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["connection"], "close");
    for (path, status) in [(EVENTS, 204), (BOUND, 204)] {
        let method = if path == EVENTS {
            Method::POST
        } else {
            Method::GET
        };
        let answer = request(&rig, method, path).body("").send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(answer.headers().get("connection").is_none());
    }
}

#[tokio::test]
async fn a_module_sends_with_its_own_key_and_receives_nothing() {
    let rig = Rig::start().await;
    let create = rig
        .cloud
        .request(Method::PUT, "/devices/dev1/modules/mod1")
        .body("{}");
    let module: Value = create.send().await.unwrap().json().await.unwrap();
    let key = module["authentication"]["symmetricKey"]["primaryKey"].as_str();
    let key = Key::from_base64(key.unwrap()).unwrap();
    let token = sign(&key, &format!("{HUB}/devices/dev1/modules/mod1"));
    let post = |path: &str| {
        let request = rig.cloud.anonymous(Method::POST, path);
        request.header(AUTHORIZATION, &token).body("x").send()
    };
    let sent = post("/devices/dev1/modules/mod1/messages/events").await;
    assert_eq!(sent.unwrap().status(), StatusCode::NO_CONTENT);
    let record = telemetry(&rig).await.remove(0);
    assert_eq!(record["moduleId"], "mod1");
    assert_eq!(
        record["systemProperties"]["iothub-connection-module-id"],
        "mod1"
    );
    let as_device = post("/devices/dev1/messages/events").await.unwrap();
    assert_eq!(as_device.status(), StatusCode::UNAUTHORIZED);
    let bound = "/devices/dev1/modules/mod1/messages/devicebound";
    let bound = request(&rig, Method::GET, bound).send().await.unwrap();
    assert_eq!(bound.status(), StatusCode::NOT_FOUND);
}
