//! `/emulator/telemetry`: what devices have sent, as JSON lines or as server-sent events.
//!
//! Any number of readers follow the same ring, each by the number that it wants next; nothing is consumed. A reader that
//! falls behind the ring is told how many records it missed.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures_util::stream;
use iothub::ModuleId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{sync::watch, time::timeout};

use super::{Http, answer::HttpError, extract::Query};
use crate::{
    hub::{TelemetryPage, TelemetryRecord},
    shell::Shell,
};

/// One page, or a stream without end: with `follow`, and as server-sent events.
pub(super) async fn read(
    State(http): State<Http>,
    Query(query): Query<Request>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let wants_events = headers
        .get(ACCEPT)
        .is_some_and(|accept| accept.as_bytes().starts_with(EVENT_STREAM.as_bytes()));
    let reader = Reader {
        telemetry: http.shell.watch_telemetry(),
        shell: http.shell,
        // An `EventSource` that comes back has the same address as before, and says where it was.
        next: after_last_event(&headers).or(query.from).unwrap_or(1),
        format: if wants_events {
            Format::Events
        } else {
            Format::Lines
        },
    };
    if wants_events || query.follow.is_some_and(|value| value != "false") {
        return Ok(reader.into_stream());
    }
    if query.wait.is_some_and(|seconds| seconds > LONGEST_WAIT_S) {
        return Err(HttpError::invalid(format!(
            "wait is at most {LONGEST_WAIT_S} seconds."
        )));
    }
    let wait = Duration::from_secs(query.wait.unwrap_or(0));
    Ok(reader.into_page(wait).await)
}

#[derive(Deserialize)]
pub(super) struct Request {
    /// Number of the first record; 1 if absent.
    from: Option<u64>,
    /// Seconds to wait for a first record.
    wait: Option<u64>,
    /// Streams on for ever.
    follow: Option<String>,
}

struct Reader {
    shell: Arc<Shell>,
    telemetry: watch::Receiver<u64>,
    next: u64,
    format: Format,
}

#[derive(Clone, Copy)]
enum Format {
    Lines,
    Events,
}

impl Reader {
    async fn into_page(mut self, wait: Duration) -> Response {
        let deadline = Instant::now() + wait;
        let page = loop {
            let page = self.page();
            let rest = deadline.saturating_duration_since(Instant::now());
            if !page.records.is_empty() || rest.is_zero() || !self.wait(rest).await {
                break page;
            }
        };
        let headers = [
            (CONTENT_TYPE.as_str(), JSON_LINES.to_owned()),
            ("emulator-next", page.next.to_string()),
            ("emulator-missed", page.missed.to_string()),
        ];
        (headers, self.format.write(&page)).into_response()
    }

    fn into_stream(self) -> Response {
        let content_type = match self.format {
            Format::Lines => JSON_LINES,
            Format::Events => EVENT_STREAM,
        };
        let chunks = stream::unfold(self, |mut reader| async move {
            let chunk = reader.chunk().await?;
            Some((Ok::<_, Infallible>(chunk), reader))
        });
        let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")];
        (headers, Body::from_stream(chunks)).into_response()
    }

    /// The next piece of a stream; none at shutdown.
    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            let page = self.page();
            if !page.records.is_empty() || page.missed > 0 {
                return Some(self.format.write(&page).into());
            }
            if !self.wait(KEEP_ALIVE).await {
                if self.shell.stop.is_cancelled() {
                    return None;
                }
                // An empty line, or a comment: nobody reads it, but a connection that is gone shows.
                return Some(Bytes::from_static(match self.format {
                    Format::Lines => b"\n",
                    Format::Events => b":\n\n",
                }));
            }
        }
    }

    fn page(&mut self) -> TelemetryPage {
        self.telemetry.mark_unchanged();
        let page = self.shell.with(|hub, _| hub.telemetry(self.next, PAGE));
        self.next = page.next;
        page
    }

    /// Whether something came within the time.
    async fn wait(&mut self, time: Duration) -> bool {
        tokio::select! {
            changed = timeout(time, self.telemetry.changed()) => matches!(changed, Ok(Ok(()))),
            () = self.shell.stop.cancelled() => false,
        }
    }
}

impl Format {
    fn write(self, page: &TelemetryPage) -> String {
        let mut text = String::new();
        if page.missed > 0 {
            let missed = json!({ "missed": page.missed });
            text += &match self {
                Self::Lines => format!("{missed}\n"),
                Self::Events => format!("event: missed\ndata: {missed}\n\n"),
            };
        }
        for record in &page.records {
            let json = to_json(record);
            text += &match self {
                Self::Lines => format!("{json}\n"),
                Self::Events => format!("id: {}\ndata: {json}\n\n", record.sequence),
            };
        }
        text
    }
}

/// How an `EventSource` resumes.
fn after_last_event(headers: &HeaderMap) -> Option<u64> {
    let last = headers.get("last-event-id")?.to_str().ok()?;
    last.parse::<u64>().ok()?.checked_add(1)
}

/// The names of the stamps and system properties are those of the hub's built-in endpoint ("Create and read IoT Hub
/// messages"). A body that is UTF-8 stands as text, another one as base64.
fn to_json(record: &TelemetryRecord) -> Value {
    let message = &record.message;
    let mut system = Map::new();
    let mut set = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            system.insert(name.to_owned(), value.into());
        }
    };
    set(
        "iothub-connection-device-id",
        Some(record.device_id.as_str()),
    );
    let module = record.module_id.as_ref().map(ModuleId::as_str);
    set("iothub-connection-module-id", module);
    set(
        "iothub-connection-auth-generation-id",
        Some(&record.generation_id),
    );
    set(
        "iothub-connection-auth-method",
        Some(record.scope.auth_method()),
    );
    set("iothub-enqueuedtime", Some(&record.enqueued_at.to_string()));
    set("iothub-message-source", Some("Telemetry"));
    set("dt-dataschema", record.model_id.as_deref());
    set("message-id", message.system.message_id.as_deref());
    set("correlation-id", message.system.correlation_id.as_deref());
    set("user-id", message.system.user_id.as_deref());
    set("to", message.system.to.as_deref());
    set("content-type", message.system.content_type.as_deref());
    set(
        "content-encoding",
        message.system.content_encoding.as_deref(),
    );
    set("absolute-expiry-time", message.system.expiry.as_deref());
    set("creation-time", message.system.creation_time.as_deref());
    for (name, value) in &message.system.others {
        let name = if name == "sub" { "dt-subject" } else { name };
        set(name, Some(value));
    }
    let properties: Map<_, _> = message
        .properties
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    let mut json = json!({
        "sequence": record.sequence,
        "deviceId": record.device_id,
        "enqueuedTime": record.enqueued_at,
        "systemProperties": system,
        "properties": properties,
    });
    if let Some(module) = module {
        json["moduleId"] = module.into();
    }
    match std::str::from_utf8(&message.payload) {
        Ok(text) => json["body"] = text.into(),
        Err(_) => json["bodyBase64"] = BASE64.encode(&message.payload).into(),
    }
    json
}

const JSON_LINES: &str = "application/jsonl";
const EVENT_STREAM: &str = "text/event-stream";
/// Records in one answer, or in one piece of a stream.
const PAGE: usize = 500;
const LONGEST_WAIT_S: u64 = 60;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
