//! Devices whose keys the gateway does not hold: their own tokens, judged by the hub.

use std::time::SystemTime;

use iothub::{Timestamp, sas::Key};
use reqwest::header::AUTHORIZATION;
use tombolo_system_tests::{HUB_NAME, Rig, key_of};

/// Sends telemetry with a token; the answer's status and code.
async fn send(rig: &Rig, device: &str, token: &str, body: &'static str) -> (u16, String) {
    let signature = token
        .split("&sig=")
        .nth(1)
        .and_then(|rest| rest.split('&').next());
    leaks::mark("signature of a device", signature.unwrap());
    let port = rig.gateway.port();
    let url = format!("https://localhost:{port}/devices/{device}/messages/events");
    let request = rig.http.post(url).header(AUTHORIZATION, token).body(body);
    let answer = request.send().await.unwrap();
    let code = answer.headers().get("iothub-errorcode");
    let code = code.map_or("", |code| code.to_str().unwrap()).to_owned();
    (answer.status().as_u16(), code)
}

/// A token for a device of the hub that ends so many seconds from now.
fn token(key: &Key, device: &str, seconds: i64) -> String {
    let now = Timestamp::from(SystemTime::now()).unix_seconds();
    let end = Timestamp::from_unix_seconds(now + seconds);
    key.sign(&format!("{HUB_NAME}/devices/{device}"), None, end)
}

fn wrong_key() -> Key {
    Key::from_bytes(vec![1; 32]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_judges_every_token_and_a_wrong_one_disturbs_nobody() {
    let rig = Rig::builder().stranger("dev1").start().await;
    let key = key_of(&"dev1".parse().unwrap());
    let refused = (401, "IotHubUnauthorizedAccess".to_owned());

    let wrong = token(&wrong_key(), "dev1", 600);
    assert_eq!(send(&rig, "dev1", &wrong, "no").await, refused);
    let (status, code) = send(&rig, "dev1", &token(&key, "dev1", 600), "first").await;
    assert_eq!(status, 204, "{code}");

    // From here on there is a session, which no other token ends.
    rig.until_connected("dev1").await;
    let wrong = token(&wrong_key(), "dev1", 700);
    assert_eq!(send(&rig, "dev1", &wrong, "no").await, refused);
    let (status, code) = send(&rig, "dev1", &token(&key, "dev1", 800), "second").await;
    assert_eq!(status, 204, "{code}");
    let other_key = key_of(&"dev2".parse().unwrap());
    let unknown = token(&other_key, "dev2", 600);
    assert_eq!(send(&rig, "dev2", &unknown, "no").await, refused);

    let telemetry = rig.telemetry();
    let payloads: Vec<_> = telemetry
        .iter()
        .map(|record| record.message.payload.as_ref())
        .collect();
    assert_eq!(payloads, [b"first".as_slice(), b"second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_key_is_held_is_checked_beside_those_that_are_passed_through() {
    let rig = Rig::builder().device("dev1").stranger("dev2").start().await;
    for device in ["dev1", "dev2"] {
        let key = key_of(&device.parse().unwrap());
        let (status, code) = send(&rig, device, &token(&key, device, 600), "x").await;
        assert_eq!(status, 204, "{device}: {code}");
        let wrong = token(&wrong_key(), device, 600);
        assert_eq!(send(&rig, device, &wrong, "no").await.0, 401, "{device}");
    }
    assert_eq!(rig.telemetry().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_token_of_a_module_is_judged_while_its_session_is_up() {
    let rig = Rig::builder().stranger("dev1").start().await;
    let key = Key::from_bytes(vec![5; 32]).unwrap();
    rig.add_module("dev1", "m", &key);
    let module = "dev1/modules/m";
    let (status, code) = send(&rig, module, &token(&key, module, 600), "first").await;
    assert_eq!(status, 204, "{code}");
    for (key, seconds, status) in [
        (&wrong_key(), 700, 401),
        (&key, 800, 204),
        (&wrong_key(), 801, 401),
        (&key, 900, 204),
    ] {
        let token = token(key, module, seconds);
        assert_eq!(
            send(&rig, module, &token, "more").await.0,
            status,
            "{seconds}"
        );
    }
    // What the hub was asked with is no message.
    assert_eq!(rig.telemetry().len(), 3);
}
