//! Direct methods, from both ends.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Duration, sleep},
};

use super::{Hour, is_until};
use crate::{
    device::Device,
    history::Event,
    hub::{Cloud, content_of},
};

/// Calls a method of a device again and again as long as it is day, one call after the other.
pub(super) async fn make(
    cloud: Cloud,
    device: Device,
    between: Duration,
    hour: watch::Receiver<Hour>,
) {
    while is_until(&hour, Hour::Day) {
        let call = format!("call-{}-{}", device.id, device.number());
        let filling = device.by_chance(|rng| rng.u32(..));
        let payload = json!({ "call": call, "filling": filling });
        cloud.call(&device.id, &call, payload).await;
        let between = between.mul_f64(device.by_chance(|rng| 0.5 + rng.f64()));
        sleep(between).await;
    }
}

/// A call as a device knows it.
#[derive(Clone)]
pub(super) struct Shown {
    call: String,
    request: String,
}

/// Answers a device's methods until night; some with two answers at once, and some again later, as a device does that has
/// missed what became of its answer.
pub(super) async fn answer(device: Device, mut hour: watch::Receiver<Hour>) {
    let answering = async {
        let mut earlier: Option<Shown> = None;
        loop {
            if let Some(shown) = earlier.take_if(|_| device.by_chance(|rng| rng.u32(..4) == 0)) {
                give(&device, &shown).await;
            }
            for shown in look(&device).await {
                match device.by_chance(|rng| rng.u32(..10)) {
                    // Left to its deadline.
                    0 => continue,
                    1 | 2 => {
                        tokio::join!(give(&device, &shown), give(&device, &shown));
                    }
                    _ => give(&device, &shown).await,
                }
                earlier = Some(shown);
            }
            // A gateway that refuses is not pressed.
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = hour.wait_for(|hour| *hour == Hour::Night) => {}
        () = answering => {}
    }
}

async fn look(device: &Device) -> Vec<Shown> {
    let asked = device.recorder.now();
    let answer = device.ask(Method::GET, "methods", |request| {
        request.header("prefer", "wait=2")
    });
    let Some(answer) = answer.await else {
        return Vec::new();
    };
    let waiting = answer.body["methods"].as_array().cloned();
    let waiting = waiting.unwrap_or_default();
    let shown = |method: &Value| note_shown(device, asked, method);
    waiting.iter().map(shown).collect()
}

/// Writes a call down that a device was shown.
pub(super) fn note_shown(device: &Device, asked: u64, method: &Value) -> Shown {
    let payload = &method["payload"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let call = text(&payload["call"]);
    device.recorder.note(Event::CallShown {
        device: device.id.clone(),
        asked,
        call: call.clone(),
        content: content_of(Some(&payload.to_string()), BTreeMap::new(), None),
    });
    Shown {
        call,
        request: text(&method["request_id"]),
    }
}

/// Gives an answer that no other answer is like.
async fn give(device: &Device, shown: &Shown) {
    let Shown { call, request } = shown;
    let answer = format!("answer-{}-{}", device.id, device.number());
    device.recorder.note(Event::Answering {
        call: call.clone(),
        answer: answer.clone(),
    });
    let path = format!("methods/{request}/response");
    let body = json!({ "status": 200, "payload": { "answer": answer } });
    let said = device.ask(Method::POST, &path, |request| request.json(&body));
    if said.await.is_some_and(|said| said.status == 204) {
        let call = call.clone();
        device.recorder.note(Event::Answered { call, answer });
    }
}
