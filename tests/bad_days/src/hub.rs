//! The hub: the emulator in a process of its own, and what its cloud side sees and sends.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use reqwest::{Method, RequestBuilder};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    history::{Content, Event, NAME, Recorder, Trouble},
    process::{Line, Process},
    rig::{address_behind, keys_of},
};

/// A hub that runs.
pub(crate) struct Hub {
    /// Where devices reach it.
    pub(crate) mqtt: String,
    /// Where its HTTPS API is.
    pub(crate) https: String,
    /// The certificate that is to be trusted.
    pub(crate) authority_file: PathBuf,
    /// The devices' keys.
    pub(crate) keys: Vec<(String, String)>,
    cloud: Cloud,
    process: Process,
}

/// A message of a device, as the hub shows it to readers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    sequence: u64,
    device_id: String,
    module_id: Option<String>,
    system_properties: SystemProperties,
    properties: BTreeMap<String, String>,
    body: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SystemProperties {
    message_id: Option<String>,
    content_type: Option<String>,
}

/// The cloud side: it sends, and reads what has arrived.
#[derive(Clone)]
pub(crate) struct Cloud {
    http: reqwest::Client,
    /// For faults alone, on connections of their own: those of others are cut by them.
    control: reqwest::Client,
    base: String,
    token: String,
    recorder: Recorder,
}

impl Hub {
    /// Starts a hub that knows these devices.
    pub(crate) async fn start(
        program: &Path,
        folder: &Path,
        ids: &[String],
        recorder: Recorder,
    ) -> Result<Self> {
        let data = folder.join("hub");
        let line = Line::new(program)
            .with(["emulator", "--no-dps", "--hub-name", HUB_NAME])
            .with(["--hub-mqtt-port", "0", "--hub-https-port", "0", "--device"])
            .with([ids.join(",")])
            .with(["--telemetry-records", KEPT, "--telemetry-bytes", KEPT_BYTES])
            .with(["--data".as_ref(), data.as_os_str()]);
        let mut process = Process::start(&line, folder.join("hub.log"))?;
        let greeted = process.until_printed("Ctrl-C stops.").await;
        greeted.context("the hub")?;
        let printed = process.printed()?;
        let keys = keys_of(&fs::read_to_string(
            data.join("hub-devices.connection-strings"),
        )?);
        let key = |id: &String| {
            let key = keys.get(id).context("the hub has a key for each device")?;
            leaks::mark_key(&format!("key of {id}"), key);
            anyhow::Ok((id.clone(), key.clone()))
        };
        let keys = ids.iter().map(key).collect::<Result<_>>()?;
        let authority_file = data.join("ca.pem");
        let authority = reqwest::Certificate::from_pem(&fs::read(&authority_file)?)?;
        let client = || {
            let builder = reqwest::Client::builder().tls_certs_only([authority.clone()]);
            builder.no_proxy()
        };
        let token = fs::read_to_string(data.join("hub.token"))?;
        let address = address_behind(&printed, "HTTPS, and MQTT over WebSocket ")?;
        Ok(Self {
            https: address.clone(),
            mqtt: address_behind(&printed, "MQTT over TLS ")?,
            authority_file,
            keys,
            cloud: Cloud {
                http: client().build()?,
                control: client().pool_max_idle_per_host(0).build()?,
                base: format!("https://{address}"),
                token: token.trim().to_owned(),
                recorder,
            },
            process,
        })
    }

    /// The cloud side.
    pub(crate) fn cloud(&self) -> Cloud {
        self.cloud.clone()
    }

    /// Lets the hub stand still: its connections stay, and nothing is taken from them or answered.
    pub(crate) fn stand_still(&self) -> Result<()> {
        self.cloud.recorder.trouble(Trouble::HubStill);
        self.process.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) -> Result<()> {
        // Before, so that what it causes is behind it.
        self.cloud.recorder.trouble(Trouble::HubGoesOn);
        self.process.signal(Signal::CONT)
    }
}

impl Cloud {
    /// Takes the hub away: connections are closed, nobody is answered.
    pub(crate) async fn go_away(&self) -> Result<()> {
        self.recorder.trouble(Trouble::HubAway);
        self.fault(json!({ "kind": "unreachable" })).await
    }

    /// Brings the hub back.
    pub(crate) async fn come_back(&self) -> Result<()> {
        let request = self.request_by(&self.control, Method::DELETE, "emulator/faults");
        request.send().await?.error_for_status()?;
        self.recorder.trouble(Trouble::HubBack);
        Ok(())
    }

    /// From here on the hub closes the connection on messages with this in what they say.
    pub(crate) async fn choke_on(&self, contains: &str) -> Result<()> {
        self.recorder.trouble(Trouble::HubCuts);
        self.fault(json!({ "kind": "close-on-payload", "contains": { "text": contains } }))
            .await
    }

    /// It does no longer.
    pub(crate) async fn choke_no_more(&self) -> Result<()> {
        let request = self.request_by(&self.control, Method::DELETE, "emulator/faults");
        request.send().await?.error_for_status()?;
        self.recorder.trouble(Trouble::HubCutsNoMore);
        Ok(())
    }

    /// Makes a module, and gives its key.
    pub(crate) async fn add_module(&self, device: &str, module: &str) -> Result<String> {
        let request = self.request(Method::PUT, &format!("devices/{device}/modules/{module}"));
        let request = request.json(&json!({ "deviceId": device, "moduleId": module }));
        let made: Value = request.send().await?.error_for_status()?.json().await?;
        let key = made["authentication"]["symmetricKey"]["primaryKey"].as_str();
        Ok(key.context("the hub has a key for each module")?.to_owned())
    }

    async fn fault(&self, fault: Value) -> Result<()> {
        let request = self.request_by(&self.control, Method::POST, "emulator/faults");
        let answer = request.json(&json!({ "fault": fault })).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// Writes down all that arrives, for as long as it is polled.
    pub(crate) async fn follow(self) -> Result<()> {
        let mut next = 1;
        loop {
            // Its connection may be cut by what is done to the hub; nothing is missed by that.
            if self.read_on(&mut next).await?.is_none() {
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn read_on(&self, next: &mut u64) -> Result<Option<()>> {
        let path = format!("emulator/telemetry?follow=true&from={next}");
        let Ok(mut answer) = self.request(Method::GET, &path).send().await else {
            return Ok(None);
        };
        let mut rest = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            rest.extend_from_slice(&chunk);
            let whole = rest.iter().rposition(|byte| *byte == b'\n');
            let Some(whole) = whole else {
                continue;
            };
            for line in rest[..whole].split(|byte| *byte == b'\n') {
                // An empty one says that the connection is there.
                if !line.is_empty() {
                    *next = self.arrived(line)? + 1;
                }
            }
            rest.drain(..=whole);
        }
        Ok(None)
    }

    fn arrived(&self, line: &[u8]) -> Result<u64> {
        let told = String::from_utf8_lossy(line);
        ensure!(
            !told.starts_with(MISSED),
            "the hub keeps too little for its reader: {told}"
        );
        let record: Record = serde_json::from_str(&told).context("a line of the hub's")?;
        let name = record.properties.get(NAME).cloned().unwrap_or_default();
        let system = record.system_properties;
        let device = match record.module_id {
            Some(module) => format!("{}/{module}", record.device_id),
            None => record.device_id,
        };
        self.recorder.note(Event::Arrived {
            sequence: record.sequence,
            device,
            name,
            message_id: system.message_id,
            content: content_of(
                record.body.as_deref(),
                record.properties,
                system.content_type,
            ),
        });
        Ok(record.sequence)
    }

    /// Sends a message to a device. A hub whose queue is full does not take it, and one that goes away just now may have taken
    /// it without a word: then nobody counts on it.
    pub(crate) async fn send(&self, device: &str, name: &str, body: String) {
        let properties = BTreeMap::from([
            (NAME.to_owned(), name.to_owned()),
            ("level".to_owned(), "2".to_owned()),
        ]);
        let content_type = Some("application/json".to_owned());
        let content = content_of(Some(&body), properties.clone(), content_type);
        self.recorder.note(Event::CloudSending {
            device: device.to_owned(),
            name: name.to_owned(),
            content,
        });
        let path = format!("emulator/devices/{device}/messages");
        let mut request = self
            .request(Method::POST, &path)
            .header("iothub-messageid", format!("id-{name}"))
            .header("iothub-contenttype", "application/json");
        for (property, value) in &properties {
            request = request.header(format!("iothub-app-{property}"), value);
        }
        let answer = request.body(body).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            let name = name.to_owned();
            self.recorder.note(Event::CloudSent { name });
        }
    }

    /// Writes down the numbers in a device's reported properties, and gives them.
    pub(crate) async fn read_twin(&self, device: &str) -> Result<BTreeMap<String, u64>> {
        let request = self.request(Method::GET, &twin_of(device));
        let twin: Value = request.send().await?.error_for_status()?.json().await?;
        let reported = twin["properties"]["reported"].as_object();
        let number = |(slot, value): (&String, &Value)| Some((slot.clone(), value.as_u64()?));
        let slots: BTreeMap<_, _> = reported
            .into_iter()
            .flatten()
            .filter(|(slot, _)| !slot.starts_with('$'))
            .filter_map(number)
            .collect();
        self.recorder.note(Event::TwinRead {
            device: device.to_owned(),
            slots: slots.clone(),
        });
        Ok(slots)
    }

    /// Calls a direct method, and waits for its end: the device's answer, or none. A hub that goes away tells nobody.
    pub(crate) async fn call(&self, device: &str, call: &str, payload: Value) {
        self.recorder.note(Event::Calling {
            device: device.to_owned(),
            call: call.to_owned(),
            content: content_of(Some(&payload.to_string()), BTreeMap::new(), None),
        });
        let path = format!("{}/methods", twin_of(device));
        let request = self.request(Method::POST, &path).json(&json!({
            "methodName": "count",
            "responseTimeoutInSeconds": CALLER_WAITS_S,
            "payload": payload,
        }));
        let Ok(answer) = request.send().await else {
            return;
        };
        let is_ended = answer.status().is_success();
        let Ok(said) = answer.json::<Value>().await else {
            return;
        };
        // So the gateway itself answers a method that comes while its device cannot.
        let is_asleep = said["status"] == 503 && said["payload"]["code"] == "device_asleep";
        let answer = (is_ended && !is_asleep).then(|| {
            let answer = &said["payload"]["answer"];
            // What is no text, nobody has given.
            answer
                .as_str()
                .map_or_else(|| answer.to_string(), str::to_owned)
        });
        self.recorder.note(Event::CallEnded {
            call: call.to_owned(),
            answer,
        });
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_by(&self.http, method, path)
    }

    fn request_by(&self, http: &reqwest::Client, method: Method, path: &str) -> RequestBuilder {
        http.request(method, format!("{}/{path}", self.base))
            .bearer_auth(&self.token)
    }
}

/// What a message says whose content type stands beside its properties.
pub(crate) fn content_of(
    body: Option<&str>,
    mut properties: BTreeMap<String, String>,
    content_type: Option<String>,
) -> Content {
    if let Some(content_type) = content_type {
        properties.insert("content-type".to_owned(), content_type);
    }
    Content::new(body.unwrap_or_default().as_bytes(), properties)
}

/// The path of a device's twin, or a module's.
fn twin_of(id: &str) -> String {
    match id.split_once('/') {
        Some((device, module)) => format!("twins/{device}/modules/{module}"),
        None => format!("twins/{id}"),
    }
}

/// As much as devices send on the longest day, so that a reader that comes second to everything else misses nothing.
const KEPT: &str = "1000000";
const KEPT_BYTES: &str = "1073741824";
/// How a stream tells a reader that it was too slow.
const MISSED: &str = "{\"missed\"";
/// IoT Hub takes 5 to 300.
const CALLER_WAITS_S: u64 = 5;
/// Not a name of the gateway, as everywhere.
pub(crate) const HUB_NAME: &str = "bad-hub.localhost";
