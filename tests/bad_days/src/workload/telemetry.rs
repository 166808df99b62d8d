//! Telemetry, in every way in which it may be sent.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{Hour, is_until};
use crate::{
    device::{Answer, Device, Said},
    history::{Content, Event, NAME},
    hub::content_of,
};

/// How a body holds messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// One, byte by byte.
    Single,
    /// IoT Hub's own batch, which is one thing.
    HubBatch,
    /// Our list, with a result for each.
    List,
    /// As a part of `sync`.
    Sync,
}

/// A way to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    /// The body.
    pub(crate) form: Form,
    /// Whether with an idempotency key, and then again until it is promised.
    pub(crate) is_keyed: bool,
    /// Whether it is to be stored at once.
    pub(crate) is_async: bool,
}

const fn way(form: Form, is_keyed: bool, is_async: bool) -> Way {
    Way {
        form,
        is_keyed,
        is_async,
    }
}

/// All ways, those that clients take most more often.
pub(crate) const ALL_WAYS: &[Way] = &[
    way(Form::Single, false, false),
    way(Form::Single, true, false),
    way(Form::Single, false, true),
    way(Form::Single, true, true),
    way(Form::Single, false, false),
    way(Form::Single, true, false),
    way(Form::HubBatch, false, false),
    way(Form::HubBatch, true, false),
    way(Form::HubBatch, true, true),
    way(Form::List, false, false),
    way(Form::List, true, false),
    way(Form::List, false, true),
    way(Form::Sync, true, false),
    way(Form::Sync, true, true),
];

/// Ways in which the hub is waited for, which cost no work on the disk.
pub(crate) const WAITING: &[Way] = &[way(Form::Single, false, false)];

/// Ways in which the disk has a message before anybody is answered.
pub(crate) const STORING: &[Way] = &[
    way(Form::Single, false, true),
    way(Form::Single, true, true),
    way(Form::List, true, true),
];

/// A message on its way.
struct Message {
    name: String,
    body: String,
    content: Content,
}

/// Sends at a pace, without waiting for answers, as long as it is day.
pub(super) async fn send(
    device: Device,
    ways: &'static [Way],
    messages_per_second: f64,
    hour: watch::Receiver<Hour>,
) {
    let mut under_way = JoinSet::new();
    let mut turn = device.by_chance(|rng| rng.usize(..ways.len()));
    let mut next = Instant::now();
    while is_until(&hour, Hour::Day) {
        let way = ways[turn % ways.len()];
        turn += 1;
        let count = match way.form {
            Form::Single => 1,
            Form::HubBatch | Form::List | Form::Sync => device.by_chance(|rng| rng.u32(1..6)),
        };
        while under_way.len() >= MOST_UNDER_WAY {
            under_way.join_next().await;
        }
        let (sender, until) = (device.clone(), hour.clone());
        under_way.spawn(async move { send_one(&sender, way, count, &until).await });
        next += Duration::from_secs_f64(f64::from(count) / messages_per_second);
        // What could not be sent in time is made up for, but not in a long rush.
        let earliest = Instant::now().checked_sub(Duration::from_secs(1));
        next = next.max(earliest.unwrap_or(next));
        sleep_until(next).await;
    }
    under_way.join_all().await;
}

/// Sends a request; one with a key until all is promised or refused for good.
async fn send_one(device: &Device, way: Way, count: u32, hour: &watch::Receiver<Hour>) {
    let messages: Vec<_> = (0..count).map(|_| message(device)).collect();
    let key = way.is_keyed.then(|| device.new_key());
    let prefer = if way.is_async {
        "respond-async".to_owned()
    } else {
        format!("wait={}", device.by_chance(|rng| rng.u32(1..6)))
    };
    let attempt = || attempt(device, way.form, &messages, key.as_deref(), &prefer);
    let mut deadline = None;
    loop {
        let is_copied = key.is_some() && device.by_chance(|rng| rng.u32(..10) == 0);
        let is_done = if is_copied {
            let (first, second) = tokio::join!(attempt(), attempt());
            first || second
        } else {
            attempt().await
        };
        if is_done || key.is_none() {
            return;
        }
        if !is_until(hour, Hour::Day)
            && Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + PATIENCE)
        {
            return;
        }
        let pause = device.by_chance(|rng| rng.u64(20..200));
        sleep(Duration::from_millis(pause)).await;
    }
}

/// Sends one message, to see what comes of it.
pub(crate) async fn probe(
    device: &Device,
    shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
) -> Option<Answer> {
    send_alone(device, message(device), shape).await
}

/// Has a message stored that the hub will never take, for this is in what it says.
pub(crate) async fn poison(device: &Device, with: &str) -> Option<Answer> {
    let message = message_with(device, with);
    let name = message.name.clone();
    device.recorder.note(Event::Poisonous { name });
    send_alone(device, message, |request| {
        request.header("prefer", "respond-async")
    })
    .await
}

async fn send_alone(
    device: &Device,
    message: Message,
    shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
) -> Option<Answer> {
    let messages = [message];
    note_sending(device, &messages, None);
    let shape = |request| fill(Form::Single, &messages, shape(request));
    let answer = device.ask(Method::POST, "messages/events", shape).await;
    note_answer(device, Form::Single, &messages, answer.as_ref());
    answer
}

/// Sends a request once; false if it is to be repeated.
async fn attempt(
    device: &Device,
    form: Form,
    messages: &[Message],
    key: Option<&str>,
    prefer: &str,
) -> bool {
    note_sending(device, messages, key);
    let shape = |request: RequestBuilder| {
        let request = request.header("prefer", prefer);
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        fill(form, messages, request)
    };
    let path = match form {
        Form::Single | Form::HubBatch | Form::List => "messages/events",
        Form::Sync => "sync",
    };
    let answer = device.ask(Method::POST, path, shape).await;
    note_answer(device, form, messages, answer.as_ref())
}

fn note_sending(device: &Device, messages: &[Message], key: Option<&str>) {
    let request = device.number();
    for (place, message) in (0..).zip(messages) {
        device.recorder.note(Event::Sending {
            device: device.id.clone(),
            name: message.name.clone(),
            request,
            place,
            key: key.map(str::to_owned),
            content: message.content.clone(),
        });
    }
}

/// False if the request is to be repeated.
fn note_answer(device: &Device, form: Form, messages: &[Message], answer: Option<&Answer>) -> bool {
    let Some(answer) = answer else {
        for message in messages {
            let name = message.name.clone();
            device.recorder.note(Event::Unanswered { name });
        }
        return false;
    };
    let mut is_done = true;
    for (message, said) in messages.iter().zip(said(form, answer, messages.len())) {
        let name = message.name.clone();
        match said {
            Said::Promised(promise, receipt) => {
                let given = receipt.clone();
                device.recorder.note(Event::Promised {
                    name,
                    promise,
                    receipt,
                });
                if let Some(receipt) = given {
                    device.receipts.add(device, &receipt);
                }
            }
            Said::Refused(status) => {
                is_done &= !matches!(status, 408 | 429 | 500..);
                device.recorder.note(Event::Refused { name, status });
            }
        }
    }
    is_done
}

fn said(form: Form, answer: &Answer, count: usize) -> Vec<Said> {
    match form {
        Form::Single | Form::HubBatch => vec![answer.said(); count],
        Form::List => answer.said_of_each("results", count),
        Form::Sync => answer.said_of_each("telemetry", count),
    }
}

fn message(device: &Device) -> Message {
    let filling = device.by_chance(|rng| {
        let length = rng.usize(40..300);
        (0..length).map(|_| rng.alphanumeric()).collect::<String>()
    });
    message_with(device, &filling)
}

fn message_with(device: &Device, filling: &str) -> Message {
    let name = format!("{}-{}", device.id, device.number());
    let body = json!({ "name": name, "filling": filling }).to_string();
    let properties = BTreeMap::from([
        (NAME.to_owned(), name.clone()),
        ("unit".to_owned(), "C".to_owned()),
    ]);
    let content = content_of(Some(&body), properties, Some(JSON.to_owned()));
    Message {
        name,
        body,
        content,
    }
}

fn fill(form: Form, messages: &[Message], request: RequestBuilder) -> RequestBuilder {
    let items = |shape: fn(&Message) -> Value| Value::from_iter(messages.iter().map(shape));
    match form {
        Form::Single => messages.iter().fold(request, |request, message| {
            request
                .header("iothub-app-name", &message.name)
                .header("iothub-app-unit", "C")
                .header("iothub-contenttype", JSON)
                .body(message.body.clone())
        }),
        Form::HubBatch => request
            .header("content-type", "application/vnd.microsoft.iothub.json")
            .body(items(in_hub_batch).to_string()),
        Form::List => request
            .header("content-type", "application/vnd.tombolo.batch+json")
            .body(items(in_list).to_string()),
        Form::Sync => request.json(&json!({ "telemetry": items(in_list) })),
    }
}

fn in_hub_batch(message: &Message) -> Value {
    json!({
        "body": message.body,
        "base64Encoded": false,
        "properties": {
            "iothub-app-name": message.name,
            "iothub-app-unit": "C",
            "iothub-contenttype": JSON,
        },
    })
}

fn in_list(message: &Message) -> Value {
    json!({
        "body": message.body,
        "properties": { "name": message.name, "unit": "C" },
        "system": { "content_type": JSON },
    })
}

const JSON: &str = "application/json";
/// Requests of a device at once; the gateway takes 16, and some are for other things.
const MOST_UNDER_WAY: usize = 8;
/// How long, in the evening, what has a key is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
