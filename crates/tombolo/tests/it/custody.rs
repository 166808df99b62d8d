//! Custody `gateway`: what the hub was told of is the gateway's, also if that is killed at any moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{BOUND, Running, client, errors_of, printed_by, tombolo};

/// Where the gateway is reached, in one of its lives.
struct Gateway {
    running: Running,
    device_api: String,
    admin: String,
}

impl Gateway {
    fn start(config: &Path) -> Self {
        let mut command = tombolo(["serve", "--log-format", "json", "--config"]);
        command.arg(config);
        let running = Running::start_logging(command, "\"listening\"");
        let listening: Value = serde_json::from_str(running.printed.last().unwrap()).unwrap();
        let addresses = listening["addresses"].as_str().unwrap();
        let (_, port) = addresses.trim_end_matches(']').rsplit_once(':').unwrap();
        Self {
            running,
            device_api: format!("https://localhost:{port}"),
            admin: format!("http://{}", listening["admin"].as_str().unwrap()),
        }
    }

    /// A token for the device; it survives the gateway's lives, as messages do.
    fn token(&self, admin_token: &Path) -> String {
        let mut create = tombolo(["token", "create", "--device", "sensor-1", "--admin"]);
        create.arg(&self.admin);
        create.arg("--admin-token-file").arg(admin_token);
        let created = create.output().unwrap();
        assert!(created.status.success(), "{}", errors_of(&created));
        printed_by(&created).trim().to_owned()
    }
}

fn emulator(data: &Path) -> Command {
    let mut command = tombolo(["emulator", "--data"]);
    command.arg(data);
    command.args(["--hub-mqtt-port", "0", "--hub-https-port", "0"]);
    command.args(["--no-dps", "--device", "sensor-1"]);
    command
}

#[tokio::test]
async fn no_message_is_lost_when_the_gateway_is_killed_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (hub_data, dev_data) = (path("hub"), path("dev"));
    // For the certificate of a gateway.
    Running::dev(&dev_data, &[]).interrupt().assert_orderly();
    let hub = Running::start(emulator(&hub_data), "Ctrl-C stops.");
    let strings = fs::read_to_string(hub_data.join("hub-devices.connection-strings")).unwrap();
    let (_, key) = strings
        .lines()
        .next()
        .unwrap()
        .split_once("SharedAccessKey=")
        .unwrap();
    fs::write(path("key"), key).unwrap();
    let config = format!(
        "[front]\nlisten = [\"127.0.0.1:0\"]\nadmin_listen = \"127.0.0.1:0\"\n\
         certificate_file = {certificate:?}\nkey_file = {certificate:?}\n\
         [admin]\ntoken_file = {admin:?}\n[disk]\nfolder = {disk:?}\n\
         [[upstream.hubs]]\nname = \"tombolo-hub.localhost\"\naddress = \"{address}\"\nca_file = {ca:?}\n\
         [[upstream.devices]]\nid = \"sensor-1\"\nkey.file = {key:?}\npinned = true\n",
        certificate = dev_data.join("gateway.pem"),
        admin = path("admin.token"),
        disk = path("store"),
        address = hub.address("MQTT over TLS "),
        ca = hub_data.join("ca.pem"),
        key = path("key"),
    );
    let config_file = path("tombolo.toml");
    fs::write(&config_file, config).unwrap();
    let service = format!("https://{}", hub.address("HTTPS, and MQTT over WebSocket "));
    let hub_token = fs::read_to_string(hub_data.join("hub.token")).unwrap();
    let cloud = client(&hub_data);
    let mut sent = 0;
    let mut gateway = Gateway::start(&config_file);
    let token = gateway.token(&path("admin.token"));
    for round in 0..ROUNDS {
        for _ in 0..MESSAGES_OF_A_ROUND {
            let url = format!("{service}/emulator/devices/sensor-1/messages");
            let request = cloud.post(url).bearer_auth(hub_token.trim());
            let answer = request.body(sent.to_string()).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            sent += 1;
        }
        // At a moment of its own in each round: while it starts, connects, appends, acknowledges.
        tokio::time::sleep(Duration::from_millis(40 * round)).await;
        gateway.running.kill();
        gateway = Gateway::start(&config_file);
    }

    let device = client(&dev_data);
    let url = format!("{}/devices/sensor-1/inbox", gateway.device_api);
    let deadline = Instant::now() + BOUND;
    let numbers = loop {
        let answer = device.get(&url).bearer_auth(&token).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let numbers = numbers_of(&text);
        let different: BTreeMap<u64, ()> = numbers.iter().map(|number| (*number, ())).collect();
        if different.len() == sent {
            break numbers;
        }
        assert!(
            Instant::now() < deadline,
            "{sent} sent, but {numbers:?} in {text}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // A crash between disk and hub brings a message twice; the first of each kind are in order.
    let mut firsts = Vec::new();
    for number in numbers {
        if !firsts.contains(&number) {
            firsts.push(number);
        }
    }
    assert!(firsts.is_sorted(), "{firsts:?}");
    assert!(gateway.running.terminate().status.success());
}

/// The messages' bodies in an inbox.
fn numbers_of(inbox: &str) -> Vec<u64> {
    let Ok(inbox) = serde_json::from_str::<Value>(inbox) else {
        return Vec::new();
    };
    let entries = inbox["entries"].as_array().cloned().unwrap_or_default();
    let number = |entry: &Value| entry["body"].as_str()?.parse().ok();
    entries.iter().filter_map(number).collect()
}

const ROUNDS: u64 = 5;
const MESSAGES_OF_A_ROUND: u64 = 6;
