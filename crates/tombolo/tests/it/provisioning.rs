//! `tombolo emulator` with several hubs and its provisioning service.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use iothub::Timestamp;
use iothub::sas::Key;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::program::{Running, client, tombolo};

// With threads, so that the client sees its connections end while the test waits for the program.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_the_group_gets_one_of_the_hubs() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = start(
        folder.path(),
        &[
            "--hub",
            "east.localhost@127.0.0.1",
            "--hub",
            "west.localhost@127.0.0.3",
        ],
    );
    let place = emulator
        .printed
        .iter()
        .position(|line| line == "Provisioning service tombolo-dps.localhost");
    let lines = &emulator.printed[place.unwrap()..];
    let said = |words: &str| {
        let found = lines
            .iter()
            .find_map(|line| line.trim().strip_prefix(words));
        found.unwrap().trim().to_owned()
    };
    let scope = said("ID scope");
    assert!(scope.starts_with("0ne") && scope.len() == 11, "{scope}");
    let address = said("HTTPS, and MQTT over WebSocket");
    assert!(address.starts_with("127.0.0.2:"), "{address}");

    let file = folder.path().join("dps-group-devices.key");
    assert_eq!(
        said("key of the group devices"),
        file.canonicalize().unwrap().display().to_string()
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let key = Key::from_base64(fs::read_to_string(file).unwrap().trim()).unwrap();
    let in_an_hour = Timestamp::from(SystemTime::now()).saturating_add(Duration::from_secs(3600));
    let path = format!("{scope}/registrations/pump-1");
    let token = key
        .derive("pump-1")
        .sign(&path, Some("registration"), in_an_hour);
    let client = client(folder.path());
    let ask = async |method: Method, path: String| {
        let request = client.request(method, format!("https://{address}/{path}"));
        let answer = request.header("authorization", &token).body("{}").send();
        let answer = answer.await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    let (status, begun) = ask(Method::PUT, format!("{path}/register")).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let operation = begun["operationId"].as_str().unwrap();
    let (_, done) = ask(Method::GET, format!("{path}/operations/{operation}")).await;
    let hub = &done["registrationState"]["assignedHub"];
    assert!(
        [json!("east.localhost"), json!("west.localhost")].contains(hub),
        "{done}"
    );

    let string = fs::read_to_string(folder.path().join("dps-service.connection-string"));
    assert!(string.unwrap().starts_with(
        "HostName=tombolo-dps.localhost;SharedAccessKeyName=provisioningserviceowner;SharedAccessKey="
    ));
    assert!(
        folder
            .path()
            .join("hub-west.localhost-service.connection-string")
            .exists()
    );
    emulator.interrupt().assert_orderly();
}

#[test]
fn nobody_has_to_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = start(folder.path(), &["--no-dps"]);
    assert!(
        !emulator
            .printed
            .iter()
            .any(|line| line.contains("rovisioning"))
    );
    emulator.interrupt().assert_orderly();
}

fn start(data: &std::path::Path, more: &[&str]) -> Running {
    let mut command = tombolo(["emulator", "--data"]);
    command.arg(data).args(more);
    command.args(["--hub-mqtt-port", "0", "--hub-https-port", "0"]);
    Running::start(command, "Ctrl-C stops.")
}
