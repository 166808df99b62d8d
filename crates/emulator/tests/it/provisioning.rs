//! The provisioning service as devices and operators see it, with two hubs behind it.

mod operators;
mod rig;
mod state;

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use futures_util::{SinkExt as _, StreamExt as _};
use iothub::{DeviceId, Identity, connect::Username, sas};
use mqtt_protocol_core::mqtt::packet::v3_1_1;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};
use tombolo_emulator::{Emulator, hub::TwinChange};

use self::rig::{HUBS, Proof, Rig, SCOPE, certificate, connect, group_key, in_an_hour, token};
use crate::rig::{BOUND, Device, Got};

#[tokio::test]
async fn a_device_of_a_group_finds_its_hub_and_connects_there() {
    let rig = Rig::start().await;
    rig.enroll_group(json!({
        "initialTwin": { "tags": { "site": "x" }, "properties": { "desired": { "interval": 5 } } },
    }))
    .await;
    let state = rig.provision("reg-1").await;
    assert_eq!(state["status"], "assigned");
    assert_eq!(state["substatus"], "initialAssignment");
    assert_eq!(state["deviceId"], "reg-1");
    let name = HUBS.into_iter().find(|hub| state["assignedHub"] == *hub);
    let name = name.unwrap();
    let hub = rig.hub(name);
    let twin = twin(hub, "reg-1").unwrap();
    assert_eq!(twin["tags"], json!({ "site": "x" }));
    assert_eq!(twin["properties"]["desired"]["interval"], 5);

    let identity = Identity::device(name.parse().unwrap(), "reg-1".parse().unwrap());
    let key = group_key().derive("reg-1");
    let token = key.sign(&sas::resource(&identity), None, in_an_hour());
    assert!(connects(&rig, name, "reg-1", Proof::Token(token)).await);
}

#[tokio::test]
async fn a_device_registers_over_https() {
    let rig = Rig::start().await;
    rig.enroll_group(json!({})).await;
    let token = token(&group_key().derive("reg-1"), "reg-1");
    let body = json!({ "registrationId": "reg-1", "payload": { "a": 1 } });
    let request = rig.device(Method::PUT, "reg-1/register?api-version=2019-03-31", &token);
    let answer = request.json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.headers()["retry-after"], "3");
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["status"], "assigning");
    let operation = body["operationId"].as_str().unwrap();
    assert_eq!(
        location,
        format!("/{SCOPE}/registrations/reg-1/operations/{operation}")
    );
    let path = format!("reg-1/operations/{operation}?api-version=2019-03-31");
    let answer = rig.device(Method::GET, &path, &token).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["status"], "assigned");

    let looked_up = rig.device(Method::POST, "reg-1", &token).json(&json!({}));
    let looked_up: Value = looked_up.send().await.unwrap().json().await.unwrap();
    assert_eq!(looked_up, body["registrationState"]);
}

/// .NET opens `/`, Java `/mqtt`, the others a hub's path.
#[tokio::test]
async fn a_websocket_opens_at_any_path() {
    let rig = Rig::start().await;
    let token = token(&group_key(), "reg-1");
    for path in ["/", "/mqtt", "/$iothub/websocket"] {
        let address = rig.provisioning.https_address();
        let stream = rig.tls(address, "dps.example", None).await;
        let url = format!("wss://dps.example{path}");
        let mut request = url.into_client_request().unwrap();
        let protocol = "mqtt".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let (mut socket, _) = client_async(request, stream).await.unwrap();
        let hello = connect("reg-1", Some(&token));
        socket.send(Message::Binary(hello.into())).await.unwrap();
        let got = timeout(BOUND, socket.next()).await.unwrap();
        assert_eq!(got.unwrap().unwrap().into_data(), &b"\x20\x02\x00\x00"[..]);
    }
    let elsewhere = rig.cloud.get("/mqtt").send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_wrong_key_and_an_unknown_registration_get_one_answer() {
    let rig = Rig::start().await;
    rig.enroll_group(json!({})).await;
    for (id, key) in [
        ("reg-1", group_key()),
        ("reg-1", group_key().derive("reg-2")),
        ("stranger", group_key().derive("other")),
    ] {
        let token = token(&key, id);
        let (topic, body) = rig.register(id, Proof::Token(token.clone())).await;
        assert_eq!(topic, "$dps/registrations/res/401/?$rid=1");
        assert_eq!(body["errorCode"], 401_002);
        let answer = rig.device(Method::PUT, &format!("{id}/register"), &token);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers()["x-ms-error-code"], "401002");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["errorCode"], 401_002);
        assert_eq!(body["message"], "Unauthorized");
    }
    let token = token(&group_key().derive("reg-1"), "reg-1");
    let path = "/0ne00000001/registrations/reg-1/register";
    let elsewhere = rig.cloud.anonymous(Method::PUT, path);
    let elsewhere = elsewhere.header("authorization", token).send().await;
    assert_eq!(elsewhere.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_certificate_is_judged_at_the_register() {
    let rig = Rig::start().await;
    let (ours, theirs) = (certificate("reg-1"), certificate("reg-1"));
    let text = BASE64.encode(&ours.0[0]);
    rig.enroll(
        "/enrollments/reg-1",
        json!({ "attestation": {
            "type": "x509",
            "x509": { "clientCertificates": { "primary": { "certificate": text } } },
        } }),
    )
    .await;
    let (topic, body) = rig.register("reg-1", Proof::Certificate(theirs)).await;
    assert_eq!(topic, "$dps/registrations/res/401/?$rid=1");
    assert_eq!(body["errorCode"], 401_002);
    assert_eq!(body["message"], "Invalid certificate.");
    let key = ours.1.clone_key();
    let (topic, body) = rig
        .register("reg-1", Proof::Certificate((ours.0.clone(), key)))
        .await;
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=2");
    let state = &body["registrationState"];
    let name = HUBS.into_iter().find(|hub| state["assignedHub"] == *hub);
    assert!(connects(&rig, name.unwrap(), "reg-1", Proof::Certificate(ours)).await);
}

#[tokio::test]
async fn a_disabled_enrollment_assigns_no_hub() {
    let rig = Rig::start().await;
    rig.enroll_group(json!({ "provisioningStatus": "disabled" }))
        .await;
    let state = rig.provision("reg-1").await;
    assert_eq!(state["status"], "disabled");
    assert!(rig.hubs.iter().all(|hub| twin(hub, "reg-1").is_none()));
}

#[tokio::test]
async fn devices_are_spread_over_the_hubs() {
    let rig = Rig::start().await;
    rig.enroll_group(json!({})).await;
    let mut hubs = BTreeSet::new();
    for n in 0..20 {
        let id = format!("reg-{n}");
        let state = rig.provision(&id).await;
        let hub = state["assignedHub"].as_str().unwrap().to_owned();
        assert!(twin(rig.hub(&hub), &id).is_some());
        hubs.insert(hub);
    }
    assert_eq!(Vec::from_iter(hubs), HUBS);
}

#[tokio::test]
async fn a_device_moves_with_its_twin_or_without() {
    let rig = Rig::start().await;
    let target = async |hub: &str, migrate: bool| {
        rig.enroll_group(json!({
            "allocationPolicy": "static",
            "iotHubs": [hub],
            "initialTwin": { "tags": { "from": "enrollment" } },
            "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": migrate },
        }))
        .await;
    };
    target("a.example", true).await;
    rig.provision("reg-1").await;
    rig.hub("a.example").with_hub(|hub, now| {
        let identity = hub.identity(device(), None);
        let desired = json!({ "interval": 9 });
        let change = TwinChange::Merge {
            tags: None,
            desired: desired.as_object().cloned(),
        };
        hub.update_twin(&identity, change, None, now).unwrap();
        let reported = json!({ "fw": "1" });
        let reported = reported.as_object().unwrap();
        hub.restore_reported(&identity, reported, now).unwrap();
    });

    target("b.example", true).await;
    let state = rig.provision("reg-1").await;
    assert_eq!(state["substatus"], "deviceDataMigrated");
    assert_eq!(state["assignedHub"], "b.example");
    assert!(twin(rig.hub("a.example"), "reg-1").is_none());
    let moved = twin(rig.hub("b.example"), "reg-1").unwrap();
    assert_eq!(moved["tags"]["from"], "enrollment");
    assert_eq!(moved["properties"]["desired"]["interval"], 9);
    assert_eq!(moved["properties"]["reported"]["fw"], "1");

    target("a.example", false).await;
    let state = rig.provision("reg-1").await;
    assert_eq!(state["substatus"], "deviceDataReset");
    assert!(twin(rig.hub("b.example"), "reg-1").is_none());
    let reset = twin(rig.hub("a.example"), "reg-1").unwrap();
    assert_eq!(reset["tags"]["from"], "enrollment");
    assert!(reset["properties"]["desired"].get("interval").is_none());
    assert!(reset["properties"]["reported"].get("fw").is_none());
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let rig = Rig::with(|config| config.service.limits.registrations_per_minute = 1).await;
    rig.enroll_group(json!({})).await;
    rig.provision("reg-1").await;
    let second = token(&group_key().derive("reg-2"), "reg-2");
    let (topic, body) = rig.register("reg-2", Proof::Token(second.clone())).await;
    assert!(
        topic.starts_with("$dps/registrations/res/429/?$rid=1&retry-after="),
        "{topic}"
    );
    assert_eq!(body["errorCode"], 429_000);
    let answer = rig.device(Method::PUT, "reg-2/register", &second).send();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u32 = answer.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=61).contains(&seconds));
}

/// Whether a device may connect to its hub.
async fn connects(rig: &Rig, hub: &'static str, id: &str, proof: Proof) -> bool {
    let identity = Identity::device(hub.parse().unwrap(), id.parse().unwrap());
    let packet = v3_1_1::Connect::builder()
        .client_id(id)
        .unwrap()
        .user_name(Username::new(identity, None).encode())
        .unwrap();
    let (packet, certificate) = match proof {
        Proof::Token(token) => (packet.password(token.into_bytes()).unwrap(), None),
        Proof::Certificate(certificate) => (packet, Some(certificate)),
    };
    let address = rig.hub(hub).mqtt_address();
    let mut device = Device::over(rig.tls(address, hub, certificate).await);
    let packet = packet.build().unwrap();
    device.send(&packet.to_continuous_buffer()).await;
    matches!(device.next().await, Some(Got::Connack { code: 0, .. }))
}

fn twin(hub: &Emulator, device: &str) -> Option<Value> {
    hub.with_hub(|hub, _| {
        let identity = hub.identity(device.parse().unwrap(), None);
        hub.twin(&identity).ok()
    })
}

fn device() -> DeviceId {
    "reg-1".parse().unwrap()
}
