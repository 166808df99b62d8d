//! Cloud-to-device messages, from both ends.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use super::{Hour, calls, is_until};
use crate::{
    device::{Device, Said},
    history::{Event, NAME},
    hub::{Cloud, content_of},
};

/// Sends messages to a device as long as it is day.
pub(super) async fn send(
    cloud: Cloud,
    device: Device,
    between: Duration,
    hour: watch::Receiver<Hour>,
) {
    while is_until(&hour, Hour::Day) {
        let name = format!("down-{}-{}", device.id, device.number());
        let body = json!({ "name": name }).to_string();
        cloud.send(&device.id, &name, body).await;
        // Devices do not get theirs at the same moment.
        let between = between.mul_f64(device.by_chance(|rng| 0.5 + rng.f64()));
        sleep(between).await;
    }
}

/// Reads a device's messages and completes them, until night.
pub(super) async fn receive(device: Device, mut hour: watch::Receiver<Hour>) {
    let receiving = async {
        for turn in 1_u32.. {
            // As IoT Hub's own clients do, and as ours should.
            if turn.is_multiple_of(4) {
                receive_one(&device).await;
            } else {
                receive_many(&device).await;
            }
            // A gateway that refuses is not pressed.
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = hour.wait_for(|hour| *hour == Hour::Night) => {}
        () = receiving => {}
    }
}

async fn receive_many(device: &Device) {
    let asked = device.recorder.now();
    let answer = device.ask(Method::GET, "inbox", |request| {
        request.header("prefer", "wait=2")
    });
    let Some(answer) = answer.await else {
        return;
    };
    let entries = answer.body["entries"].as_array().cloned();
    let (mut settlements, mut settled) = (Vec::new(), Vec::new());
    for entry in entries.unwrap_or_default() {
        if entry["kind"] == "method" {
            calls::note_shown(device, asked, &entry);
            continue;
        }
        let (name, token) = shown_in(device, asked, &entry);
        let outcome = match device.by_chance(|rng| rng.u32(..10)) {
            0 => continue,
            1 => "abandon",
            _ => "complete",
        };
        if outcome == "complete" {
            let name = name.clone();
            device.recorder.note(Event::Completing { name });
        }
        settlements.push(json!({ "token": token, "outcome": outcome }));
        settled.push((name, token, outcome == "complete"));
    }
    if settlements.is_empty() {
        return;
    }
    let answer = device.ask(Method::POST, "inbox/settle", |request| {
        request.json(&Value::Array(settlements))
    });
    let Some(answer) = answer.await else {
        return;
    };
    let said = answer.said_of_each("results", settled.len());
    for ((name, token, is_complete), said) in settled.into_iter().zip(said) {
        if is_complete {
            note_completed(device, name, token, said);
        }
    }
}

/// Writes an entry of the inbox down; gives its name and token.
fn shown_in(device: &Device, asked: u64, entry: &Value) -> (String, String) {
    let properties: BTreeMap<String, String> =
        serde_json::from_value(entry["properties"].clone()).unwrap_or_default();
    let name = properties.get(NAME).cloned().unwrap_or_default();
    let token = entry["token"].as_str().unwrap_or_default().to_owned();
    let content_type = entry["system"]["content_type"].as_str().map(str::to_owned);
    device.recorder.note(Event::Shown {
        device: device.id.clone(),
        asked,
        name: name.clone(),
        token: token.clone(),
        is_locked: false,
        content: content_of(entry["body"].as_str(), properties, content_type),
    });
    (name, token)
}

async fn receive_one(device: &Device) {
    let asked = device.recorder.now();
    let answer = device.ask(Method::GET, "messages/devicebound", |request| request);
    let Some(answer) = answer.await.filter(|answer| answer.status == 200) else {
        return;
    };
    let header = |name: &str| answer.header(name).map(str::to_owned);
    let token = header("etag").unwrap_or_default();
    let token = token.trim_matches('"').to_owned();
    let name = header("iothub-app-name").unwrap_or_default();
    let properties = [
        (NAME, Some(name.clone())),
        ("level", header("iothub-app-level")),
    ];
    let properties = properties
        .into_iter()
        .filter_map(|(property, value)| Some((property.to_owned(), value?)));
    let body = String::from_utf8_lossy(&answer.bytes);
    device.recorder.note(Event::Shown {
        device: device.id.clone(),
        asked,
        name: name.clone(),
        token: token.clone(),
        is_locked: true,
        content: content_of(Some(&body), properties.collect(), header("contenttype")),
    });
    let completing = name.clone();
    device.recorder.note(Event::Completing { name: completing });
    let path = format!("messages/devicebound/{token}");
    let answer = device.ask(Method::DELETE, &path, |request| request).await;
    if let Some(answer) = answer {
        note_completed(device, name, token, answer.said());
    }
}

fn note_completed(device: &Device, name: String, token: String, said: Said) {
    if let Said::Promised(promise, _) = said {
        device.recorder.note(Event::Completed {
            name,
            token,
            promise,
        });
    }
}
