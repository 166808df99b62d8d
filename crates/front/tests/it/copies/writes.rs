//! The kinds of writes: what is sent, what comes of it, and what an answer says of that.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::MethodRequestId;

use super::judge::Answer;

/// One write under its key; copies of it are equal.
pub(super) struct Write {
    pub(super) key: String,
    pub(super) kind: Kind,
    pub(super) device: usize,
    pub(super) method: Method,
    /// Below the device's.
    pub(super) path: String,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    pub(super) parts: Vec<Part>,
}

/// Something that has an effect, which is named after it.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) repeats: Repeats,
}

/// What a fault may make of an effect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// It comes once, or not at all.
    Never,
    /// It may come again, under its message id.
    UnderOneId,
    /// It may come again, which changes nothing: a patch is merged; an abandon whose reply is lost counts once more.
    WithoutHarm,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Message,
    List,
    Lines,
    HubBatch,
    Patch,
    MethodAnswer,
    Abandon,
    Settle,
    Sync,
}

/// What a write is about that the hub has sent before.
#[derive(Default)]
pub(super) struct About {
    pub(super) method: Option<MethodRequestId>,
    pub(super) token: Option<String>,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Message,
        Self::List,
        Self::Lines,
        Self::HubBatch,
        Self::Patch,
        Self::MethodAnswer,
        Self::Abandon,
        Self::Settle,
        Self::Sync,
    ];

    pub(super) const fn needs_method(self) -> bool {
        matches!(self, Self::MethodAnswer | Self::Sync)
    }

    pub(super) const fn needs_message(self) -> bool {
        matches!(self, Self::Abandon | Self::Settle | Self::Sync)
    }
}

impl Part {
    fn new(write: usize, suffix: &str, repeats: Repeats) -> Self {
        Self {
            name: format!("w{write}.{suffix}"),
            repeats,
        }
    }
}

/// What the abandoned message of a write is called, and the effect of abandoning it.
pub(super) fn abandoned(write: usize) -> String {
    Part::new(write, "s", Repeats::WithoutHarm).name
}

impl Write {
    pub(super) fn new(kind: Kind, number: usize, device: usize, seed: u64, about: &About) -> Self {
        let message = |place: u32| Part::new(number, &format!("t{place}"), Repeats::UnderOneId);
        let patch = Part::new(number, "r", Repeats::WithoutHarm);
        let answer = Part::new(number, "a", Repeats::Never);
        let abandon = Part::new(number, "s", Repeats::WithoutHarm);
        let messages: Vec<_> = (0..3).map(message).collect();
        let method = about.method.as_ref().map(ToString::to_string);
        let method = method.unwrap_or_default();
        let token = about.token.clone().unwrap_or_default();
        // A name of a property has no dot.
        let reported = json!({patch.name.replace('.', "_"): 1});
        let post = |path: &str, content_type, body: String, parts: Vec<Part>| Self {
            key: format!("{seed:08x}-{number:08}"),
            kind,
            device,
            method: Method::POST,
            path: path.to_owned(),
            content_type,
            body,
            parts,
        };
        let events = "messages/events";
        match kind {
            Kind::Message => {
                let part = message(0);
                post(events, "text/plain", part.name.clone(), vec![part])
            }
            Kind::List => {
                let mut items: Vec<_> = bodies(&messages).collect();
                items.insert(1, json!({"body": "!", "encoding": "base64"}));
                let body = Value::from(items).to_string();
                post(events, "application/vnd.tombolo.batch+json", body, messages)
            }
            Kind::Lines => {
                let lines: Vec<_> = bodies(&messages).map(|item| item.to_string()).collect();
                let body = lines.join("\n");
                post(
                    events,
                    "application/vnd.tombolo.batch+ndjson",
                    body,
                    messages,
                )
            }
            Kind::HubBatch => {
                let items = messages.iter();
                let items = items.map(|part| json!({"body": part.name, "base64Encoded": false}));
                let body = Value::from_iter(items).to_string();
                post(
                    events,
                    "application/vnd.microsoft.iothub.json",
                    body,
                    messages,
                )
            }
            Kind::Patch => {
                let path = "twin/properties/reported";
                let write = post(path, JSON, reported.to_string(), vec![patch]);
                Self {
                    method: Method::PATCH,
                    ..write
                }
            }
            Kind::MethodAnswer => {
                let path = format!("methods/{method}/response");
                let body = json!({"status": 200, "payload": answer.name});
                post(&path, JSON, body.to_string(), vec![answer])
            }
            Kind::Abandon => {
                let path = format!("messages/devicebound/{token}/abandon");
                post(&path, JSON, String::new(), vec![abandon])
            }
            Kind::Settle => {
                let body = json!([
                    {"token": token, "outcome": "abandon"},
                    {"token": "none", "outcome": "complete"}
                ]);
                post("inbox/settle", JSON, body.to_string(), vec![abandon])
            }
            Kind::Sync => {
                let body = json!({
                    "telemetry": bodies(&messages).collect::<Vec<_>>(),
                    "reported": reported,
                    "answers": [{"request_id": method, "status": 200, "payload": answer.name}],
                    "settle": [{"token": token, "outcome": "abandon"}],
                });
                let parts = [messages, vec![patch, answer, abandon]].concat();
                post("sync", JSON, body.to_string(), parts)
            }
        }
    }

    /// A write of this part alone, for the tests of the judge.
    pub(super) fn of_part(key: &str, part: Part) -> Self {
        Self {
            key: key.to_owned(),
            parts: vec![part],
            ..Self::new(Kind::Message, 0, 0, 0, &About::default())
        }
    }

    /// What an answer says; none if it, or a part of it, may be better another time.
    pub(super) fn read(&self, status: StatusCode, body: &str) -> Option<Answer> {
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let lists: &[&str] = match self.kind {
            Kind::List | Kind::Lines | Kind::Settle => &["results"],
            Kind::Sync => &["telemetry", "reported", "answers", "settled"],
            Kind::Message | Kind::HubBatch | Kind::Patch | Kind::MethodAnswer | Kind::Abandon => {
                let is_over = answer["retryable"] != true;
                let done = self.parts.iter().filter(|_| status.is_success());
                return is_over.then(|| Answer {
                    done: done.map(|part| part.name.clone()).collect(),
                    text: format!("{status} {}", answer["code"]),
                });
            }
        };
        if !status.is_success() {
            return None;
        }
        let mut results = Vec::new();
        for list in lists {
            match answer[list].as_array() {
                Some(items) => results.extend(items),
                None => results.push(&answer[list]),
            }
        }
        if results.iter().any(|result| result["retryable"] == true) {
            return None;
        }
        // Of each list one item is about nothing, except in a sync and in lines.
        let about_nothing = match self.kind {
            Kind::List | Kind::Settle => Some(1),
            Kind::Message
            | Kind::Lines
            | Kind::HubBatch
            | Kind::Patch
            | Kind::MethodAnswer
            | Kind::Abandon
            | Kind::Sync => None,
        };
        let statuses: Vec<_> = results
            .iter()
            .map(|result| result["status"].clone())
            .collect();
        let of_parts = statuses.iter().enumerate();
        let of_parts = of_parts.filter(|(place, _)| Some(*place) != about_nothing);
        let of_parts: Vec<_> = of_parts.map(|(_, status)| status).collect();
        assert_eq!(of_parts.len(), self.parts.len(), "{body}");
        let done = self.parts.iter().zip(of_parts);
        let done = done.filter(|(_, status)| status.as_u64().is_some_and(|status| status < 300));
        Some(Answer {
            done: done.map(|(part, _)| part.name.clone()).collect(),
            text: format!("{status} {statuses:?}"),
        })
    }
}

fn bodies(messages: &[Part]) -> impl Iterator<Item = Value> {
    messages.iter().map(|part| json!({"body": part.name}))
}

const JSON: &str = "application/json";
