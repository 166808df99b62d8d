//! `tombolo serve` and `tombolo emulator`: two processes that know of each other what a configuration says.

use std::fs;
use std::path::Path;

use reqwest::StatusCode;
use serde_json::Value;

use crate::program::{Running, client, errors_of, printed_by, run, tombolo};

fn emulator(data: &Path) -> Running {
    let mut command = tombolo(["emulator", "--data"]);
    command.arg(data);
    command.args(["--hub-mqtt-port", "0", "--hub-https-port", "0"]);
    command.args(["--device", "sensor-1", "--device", "sensor-2"]);
    Running::start(command, "Ctrl-C stops.")
}

/// The key of the emulator's first device.
fn key_of_first_device(data: &Path) -> String {
    let strings = fs::read_to_string(data.join("hub-devices.connection-strings")).unwrap();
    let (first, _) = strings.split_once('\n').unwrap();
    let (_, key) = first.split_once("SharedAccessKey=").unwrap();
    key.to_owned()
}

#[tokio::test]
async fn a_gateway_serves_a_device_of_a_hub_in_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (hub_data, dev_data) = (path("hub"), path("dev"));
    // For the certificate of a gateway.
    Running::dev(&dev_data, &[]).interrupt().assert_orderly();
    let hub = emulator(&hub_data);
    let key = key_of_first_device(&hub_data);
    assert!(
        !hub.printed.iter().any(|line| line.contains(&key)),
        "what is no terminal gets no key"
    );
    fs::write(path("key"), key).unwrap();
    let config = format!(
        "[front]\nlisten = [\"127.0.0.1:0\"]\nadmin_listen = \"127.0.0.1:0\"\n\
         certificate_file = {certificate:?}\nkey_file = {certificate:?}\n\
         [admin]\ntoken_file = {admin:?}\n[disk]\nfolder = {disk:?}\n\
         [[upstream.hubs]]\nname = \"tombolo-hub.localhost\"\naddress = \"{address}\"\nca_file = {ca:?}\n\
         [[upstream.devices]]\nid = \"sensor-1\"\nkey.file = {key:?}\n",
        certificate = dev_data.join("gateway.pem"),
        admin = path("admin.token"),
        disk = path("store"),
        address = hub.address("MQTT over TLS "),
        ca = hub_data.join("ca.pem"),
        key = path("key"),
    );
    fs::write(path("tombolo.toml"), config).unwrap();
    let serve = |more: &[&str]| {
        let mut command = tombolo(["serve", "--log-format", "json", "--config"]);
        command.arg(path("tombolo.toml")).args(more);
        command
    };
    let checked = serve(&["--check-config"]).output().unwrap();
    assert!(checked.status.success(), "{}", errors_of(&checked));
    let dumped = printed_by(&serve(&["--dump-config"]).output().unwrap());
    assert!(dumped.contains("tombolo-hub.localhost"), "{dumped}");

    let gateway = Running::start_logging(serve(&[]), "\"listening\"");
    let listening: Value = serde_json::from_str(gateway.printed.last().unwrap()).unwrap();
    let addresses = listening["addresses"].as_str().unwrap();
    let (_, port) = addresses.trim_end_matches(']').rsplit_once(':').unwrap();
    let created = tombolo(["token", "create", "--device", "sensor-1", "--admin"])
        .arg(format!("http://{}", listening["admin"].as_str().unwrap()))
        .arg("--admin-token-file")
        .arg(path("admin.token"))
        .output()
        .unwrap();
    assert!(created.status.success(), "{}", errors_of(&created));
    let url = format!("https://localhost:{port}/devices/sensor-1/twin");
    let twin = client(&dev_data)
        .get(url)
        .bearer_auth(printed_by(&created).trim())
        .send()
        .await
        .unwrap();
    assert_eq!(twin.status(), StatusCode::OK);
    let ended = gateway.terminate();
    assert!(ended.status.success(), "{}", ended.status);
    hub.interrupt().assert_orderly();
}

#[test]
fn every_mistake_is_named_and_the_exit_code_is_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tombolo.toml");
    fs::write(&file, "[front]\nlisten = 5\nlisen = 1\n").unwrap();
    let refused = run([
        "serve",
        "--config",
        file.to_str().unwrap(),
        "--check-config",
    ]);
    assert_eq!(refused.status.code(), Some(2));
    let errors = errors_of(&refused);
    for part in ["2 mistakes", "tombolo.toml:2", "tombolo.toml:3", "lisen"] {
        assert!(errors.contains(part), "{part} is not in {errors}");
    }
    let no_such_command = run(["swerve"]);
    assert_eq!(no_such_command.status.code(), Some(2));
}
