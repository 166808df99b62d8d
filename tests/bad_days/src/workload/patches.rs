//! Reported properties, from both ends.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{Hour, is_until};
use crate::{
    device::{Device, Said, said_in},
    history::{Event, Recorder},
    hub::Cloud,
};

/// Writes growing numbers into a few properties, one after the other, in every way, as long as it is day.
pub(super) async fn write(device: Device, hour: watch::Receiver<Hour>) {
    let mut number = 0;
    while is_until(&hour, Hour::Day) {
        let slot = format!("slot{}", device.by_chance(|rng| rng.u32(..SLOTS)));
        // Two in a row in the same property, one kept and one not: the newer one is to win whatever happens between.
        for is_keyed in [device.by_chance(fastrand::Rng::bool), false] {
            number += 1;
            write_one(&device, &slot, number, is_keyed, &hour).await;
        }
        sleep(PAUSE).await;
    }
}

async fn write_one(
    device: &Device,
    slot: &str,
    number: u64,
    is_keyed: bool,
    hour: &watch::Receiver<Hour>,
) {
    device.recorder.note(Event::Patching {
        device: device.id.clone(),
        slot: slot.to_owned(),
        number,
    });
    let key = is_keyed.then(|| device.new_key());
    let (is_sync, is_async) = device.by_chance(|rng| (rng.u32(..4) == 0, rng.u32(..4) == 0));
    let patch = json!({ slot: number });
    let shape = |request: RequestBuilder| {
        let prefer = if is_async { "respond-async" } else { "wait=2" };
        let request = request.header("prefer", prefer);
        let request = match &key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        if is_sync {
            request.json(&json!({ "reported": patch }))
        } else {
            request.json(&patch)
        }
    };
    let (method, path) = if is_sync {
        (Method::POST, "sync")
    } else {
        (Method::PATCH, "twin/properties/reported")
    };
    loop {
        let answer = device.ask(method.clone(), path, shape).await;
        let said = answer.map(|answer| match is_sync {
            true => said_in(&answer.body["reported"]),
            false => answer.said(),
        });
        if let Some(Said::Promised(promise, receipt)) = said {
            device.recorder.note(Event::Patched {
                device: device.id.clone(),
                slot: slot.to_owned(),
                number,
                promise,
                receipt,
            });
            return;
        }
        if key.is_none() || !is_until(hour, Hour::Day) {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Reads the twins now and then, until night.
pub(super) async fn read(cloud: Cloud, ids: Vec<String>, hour: watch::Receiver<Hour>) {
    while is_until(&hour, Hour::Evening) {
        for id in &ids {
            // A hub that is away answers nobody.
            if cloud.read_twin(id).await.is_err() {
                break;
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until the twins have what was promised, with a bound.
pub(super) async fn until_there(
    cloud: &Cloud,
    ids: &[String],
    recorder: &Recorder,
    bound: Duration,
) {
    let deadline = Instant::now() + bound;
    for id in ids {
        let promised = recorder.newest_patches(id);
        loop {
            let there = cloud.read_twin(id).await.unwrap_or_default();
            if has_all(&there, &promised) || Instant::now() > deadline {
                break;
            }
            sleep(PAUSE).await;
        }
    }
}

fn has_all(there: &BTreeMap<String, u64>, promised: &BTreeMap<String, u64>) -> bool {
    promised
        .iter()
        .all(|(slot, number)| there.get(slot) >= Some(number))
}

/// Properties of a device.
const SLOTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
