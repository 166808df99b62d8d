//! A gateway with a disk, and a hub, each in a process of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Running, client, errors_of, printed_by, tombolo};

/// What both processes need, in a folder of its own.
pub(crate) struct Setup {
    folder: TempDir,
    device: &'static str,
    hub: Running,
}

/// Where the gateway is reached, in one of its lives.
pub(crate) struct Gateway {
    pub(crate) running: Running,
    pub(crate) device_api: String,
    pub(crate) admin: String,
}

impl Setup {
    /// Makes certificates and keys, and starts a hub that knows this device.
    pub(crate) fn new(device: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("hub");
        // For the certificate of a gateway.
        Running::dev(&folder.path().join("dev"), &[])
            .interrupt()
            .assert_orderly();
        let mut emulator = tombolo(["emulator", "--data"]);
        emulator.arg(&data);
        emulator.args(["--hub-mqtt-port", "0", "--hub-https-port", "0"]);
        emulator.args(["--no-dps", "--device", device]);
        let hub = Running::start(emulator, "Ctrl-C stops.");
        let strings = fs::read_to_string(data.join("hub-devices.connection-strings")).unwrap();
        let (_, key) = strings
            .lines()
            .next()
            .unwrap()
            .split_once("SharedAccessKey=")
            .unwrap();
        fs::write(folder.path().join("key"), key).unwrap();
        leaks::mark("device key", key);
        Self {
            folder,
            device,
            hub,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a configuration of this disk: with the hub, or with one that is away.
    pub(crate) fn configure(&self, disk: &str, is_hub_there: bool) {
        let address = if is_hub_there {
            self.hub.address("MQTT over TLS ")
        } else {
            // Nobody listens at port 1.
            "127.0.0.1:1".to_owned()
        };
        let config = format!(
            "[front]\nlisten = [\"127.0.0.1:0\"]\nadmin_listen = \"127.0.0.1:0\"\n\
             certificate_file = {certificate:?}\nkey_file = {certificate:?}\n\
             [admin]\ntoken_file = {admin:?}\n[disk]\nfolder = {disk:?}\n\
             [[upstream.hubs]]\nname = \"tombolo-hub.localhost\"\naddress = \"{address}\"\nca_file = {ca:?}\n\
             [[upstream.devices]]\nid = {device:?}\nkey.file = {key:?}\npinned = true\n",
            certificate = self.path("dev").join("gateway.pem"),
            admin = self.admin_token(),
            disk = self.path(disk),
            ca = self.path("hub").join("ca.pem"),
            device = self.device,
            key = self.path("key"),
        );
        fs::write(self.path("tombolo.toml"), config).unwrap();
    }

    /// `tombolo serve` with the configuration.
    pub(crate) fn serve(&self) -> Command {
        let mut command = tombolo(["serve", "--log-format", "json", "--config"]);
        command.arg(self.path("tombolo.toml"));
        command
    }

    pub(crate) fn start(&self) -> Gateway {
        let running = Running::start_logging(self.serve(), "\"listening\"");
        let listening: Value = serde_json::from_str(running.printed.last().unwrap()).unwrap();
        let addresses = listening["addresses"].as_str().unwrap();
        let (_, port) = addresses.trim_end_matches(']').rsplit_once(':').unwrap();
        Gateway {
            running,
            device_api: format!("https://localhost:{port}/devices/{}", self.device),
            admin: format!("http://{}", listening["admin"].as_str().unwrap()),
        }
    }

    /// A token for the device; it survives the gateway's lives, as messages do.
    pub(crate) fn token(&self, gateway: &Gateway) -> String {
        let mut create = tombolo(["token", "create", "--device", self.device, "--admin"]);
        create.arg(&gateway.admin);
        create.arg("--admin-token-file").arg(self.admin_token());
        let created = create.output().unwrap();
        assert!(created.status.success(), "{}", errors_of(&created));
        printed_by(&created).trim().to_owned()
    }

    pub(crate) fn admin_token(&self) -> PathBuf {
        self.path("admin.token")
    }

    /// Has the gateway store a message at once, and gives the id of its receipt.
    pub(crate) async fn store(&self, gateway: &Gateway, token: &str, body: &str) -> String {
        let url = format!("{}/messages/events", gateway.device_api);
        let request = self.device_client().post(url).bearer_auth(token);
        let request = request.header("prefer", "respond-async");
        receipt_of(&request.body(body.to_owned()).send().await.unwrap())
    }

    /// What became of the message with this receipt.
    pub(crate) async fn state_of(&self, gateway: &Gateway, token: &str, receipt: &str) -> String {
        let url = format!("{}/receipts/{receipt}", gateway.device_api);
        let asked = self.device_client().get(url).bearer_auth(token).send();
        let answer = asked.await.unwrap();
        if answer.status() == 404 {
            return "unknown".to_owned();
        }
        let receipt: Value = answer.json().await.unwrap();
        receipt["state"].as_str().unwrap().to_owned()
    }

    /// What the gateway measures, by the name with its labels.
    pub(crate) async fn metrics(&self, gateway: &Gateway) -> BTreeMap<String, f64> {
        let token = fs::read_to_string(self.admin_token()).unwrap();
        let url = format!("{}/metrics", gateway.admin);
        let asked = self.device_client().get(url).bearer_auth(token.trim());
        let text = asked.send().await.unwrap().text().await.unwrap();
        let samples = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        samples.collect()
    }

    /// A client of the device.
    pub(crate) fn device_client(&self) -> reqwest::Client {
        client(&self.path("dev"))
    }

    /// A client of the cloud side, and what it shows the hub.
    pub(crate) fn cloud(&self) -> (reqwest::Client, String) {
        let token = fs::read_to_string(self.path("hub").join("hub.token")).unwrap();
        (client(&self.path("hub")), token.trim().to_owned())
    }

    /// Where the hub serves the cloud side.
    pub(crate) fn service(&self) -> String {
        format!(
            "https://{}",
            self.hub.address("HTTPS, and MQTT over WebSocket ")
        )
    }

    /// The bodies of all telemetry that the hub has, in its order, once there are so many.
    pub(crate) async fn telemetry(&self, count: usize) -> Vec<String> {
        let (cloud, token) = self.cloud();
        let url = format!("{}/emulator/telemetry", self.service());
        let deadline = std::time::Instant::now() + crate::program::BOUND;
        loop {
            let asked = cloud
                .get(format!("{url}?wait=1"))
                .bearer_auth(&token)
                .send();
            let lines = asked.await.unwrap().text().await.unwrap();
            let bodies: Vec<_> = lines.lines().map(body_of).collect();
            if bodies.len() >= count {
                return bodies;
            }
            assert!(std::time::Instant::now() < deadline, "{lines}");
        }
    }
}

/// The id of the receipt that an answer names; it says that the message is stored.
pub(crate) fn receipt_of(answer: &reqwest::Response) -> String {
    assert_eq!(answer.status(), 202);
    let path = answer.headers()["location"].to_str().unwrap();
    let (_, receipt) = path.rsplit_once('/').unwrap();
    receipt.to_owned()
}

fn body_of(line: &str) -> String {
    let record: Value = serde_json::from_str(line).unwrap();
    record["body"].as_str().unwrap().to_owned()
}

/// Where these bytes are in a file.
pub(crate) fn find(file: &Path, bytes: &[u8]) -> usize {
    let content = fs::read(file).unwrap();
    let mut windows = content.windows(bytes.len());
    windows.position(|window| window == bytes).unwrap()
}
