//! The hub: the emulator in a process of its own, and what its cloud side sees and sends.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use reqwest::{Method, RequestBuilder};
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
    /// The certificate that is to be trusted.
    pub(crate) authority_file: PathBuf,
    /// The devices' keys.
    pub(crate) keys: Vec<(String, String)>,
    cloud: Cloud,
    _process: Process,
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
            _process: process,
        })
    }

    /// The cloud side.
    pub(crate) fn cloud(&self) -> Cloud {
        self.cloud.clone()
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
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if line.len() > 1 {
                    let record: Value = serde_json::from_slice(&line)?;
                    if record.get("missed").is_some() {
                        bail!("the hub's ring was too short for its reader: {record}");
                    }
                    *next = self.arrived(&record)? + 1;
                }
            }
        }
        Ok(None)
    }

    fn arrived(&self, record: &Value) -> Result<u64> {
        let sequence = record["sequence"].as_u64().context("a record's number")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let properties: BTreeMap<String, String> =
            serde_json::from_value(record["properties"].clone())?;
        let name = properties.get(NAME).cloned().unwrap_or_default();
        let system = &record["systemProperties"];
        self.recorder.note(Event::Arrived {
            sequence,
            device: text(&record["deviceId"]).unwrap_or_default(),
            name,
            message_id: text(&system["message-id"]),
            content: content_of(record["body"].as_str(), properties, &system["content-type"]),
        });
        Ok(sequence)
    }

    /// Sends a message to a device. A hub whose queue is full does not take it, and one that goes away just now may have taken
    /// it without a word: then nobody counts on it.
    pub(crate) async fn send(&self, device: &str, name: &str, body: String) {
        let properties = BTreeMap::from([
            (NAME.to_owned(), name.to_owned()),
            ("level".to_owned(), "2".to_owned()),
        ]);
        let content = content_of(Some(&body), properties.clone(), &"application/json".into());
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
        let request = self.request(Method::GET, &format!("twins/{device}"));
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
    content_type: &Value,
) -> Content {
    if let Some(content_type) = content_type.as_str() {
        properties.insert("content-type".to_owned(), content_type.to_owned());
    }
    Content::new(body.unwrap_or_default().as_bytes(), properties)
}

/// Not a name of the gateway, as everywhere.
pub(crate) const HUB_NAME: &str = "bad-hub.localhost";
