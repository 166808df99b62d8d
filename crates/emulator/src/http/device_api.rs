//! `/devices/{id}/messages` and `/devices/{id}/modules/{module}/messages`: the hub's HTTPS device API.
//!
//! A message's properties are headers here, in the names of the REST reference and of the SDKs; their values stand as they
//! are, nothing is percent-encoded (captured).

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequestParts, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, ETAG},
        request::Parts,
    },
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use iothub::{AckRequest, ErrorCode, Telemetry, Timestamp, limits};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::{
    Http,
    answer::HttpError,
    extract::{Path, Payload, Query, Whom},
};
use crate::{
    hub::{Caller, Error, LockedMessage, Proof, Settlement},
    websocket::Connection,
    x509::Peer,
};

/// Whoever asks, with a credential that is good for whom the path names.
pub(super) struct Authorized(pub(super) Caller);

impl FromRequestParts<Http> for Authorized {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, HttpError> {
        let Whom(identity) = Whom::from_request_parts(parts, http).await?;
        let header = parts.headers.get(AUTHORIZATION);
        // Bytes that are no text become other ones: they are no token, and not no header either.
        let token = header.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let peer = match parts.extensions.get::<Connection>() {
            Some(connection) => connection.peer().clone(),
            None => Peer::ANONYMOUS,
        };
        let hosts = http.access.hosts();
        let caller = http.shell.with(|hub, now| {
            hub.authorize_caller(identity, Proof::new(token.as_deref(), &peer), hosts, now)
        })?;
        Ok(Self(caller))
    }
}

/// One message, or a batch of them if the media type says so.
pub(super) async fn send(
    State(http): State<Http>,
    Authorized(caller): Authorized,
    headers: HeaderMap,
    Payload(payload): Payload,
) -> Result<StatusCode, HttpError> {
    let messages = if is_batch(&headers) {
        batch(&payload)?
    } else {
        vec![single(&headers, payload)?]
    };
    http.shell
        .with(|hub, now| hub.take_telemetry(&caller, messages, now))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The next cloud-to-device message under a lock.
pub(super) async fn receive(
    State(http): State<Http>,
    Authorized(caller): Authorized,
    Query(query): Query<Receive>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let lock = lock_time(&headers, query)?;
    let message = http
        .shell
        .with(|hub, now| hub.receive_message(&caller, lock, now))?;
    Ok(message.map_or_else(|| StatusCode::NO_CONTENT.into_response(), shown))
}

/// Completes, or rejects if the query has `reject`. `If-Match` repeats the lock token and says nothing new.
pub(super) async fn complete(
    http: State<Http>,
    caller: Authorized,
    path: Path<Lock>,
    Query(query): Query<Complete>,
) -> Result<StatusCode, HttpError> {
    let settlement = match query.reject {
        Some(_) => Settlement::Reject,
        None => Settlement::Complete,
    };
    settle(http, caller, path, settlement)
}

pub(super) async fn abandon(
    http: State<Http>,
    caller: Authorized,
    path: Path<Lock>,
) -> Result<StatusCode, HttpError> {
    settle(http, caller, path, Settlement::Abandon)
}

#[derive(Deserialize)]
pub(super) struct Lock {
    lock: String,
}

#[derive(Deserialize)]
pub(super) struct Receive {
    /// .NET says it here, Java and the command line tool in the header of this name.
    #[serde(rename = "iothub-messagelocktimeout")]
    lock_time: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Complete {
    reject: Option<String>,
}

fn settle(
    State(http): State<Http>,
    Authorized(caller): Authorized,
    Path(path): Path<Lock>,
    settlement: Settlement,
) -> Result<StatusCode, HttpError> {
    http.shell
        .with(|hub, now| hub.settle_message(&caller, &path.lock, settlement, now))?;
    Ok(StatusCode::NO_CONTENT)
}

fn is_batch(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|name| name.trim().eq_ignore_ascii_case(BATCH))
}

fn single(headers: &HeaderMap, payload: Bytes) -> Result<Telemetry, HttpError> {
    let mut message = Telemetry {
        payload,
        ..Telemetry::default()
    };
    for (name, value) in headers {
        let name = name.as_str();
        if name.starts_with("iothub-") || name == SUBJECT {
            let value = std::str::from_utf8(value.as_bytes())
                .map_err(|_| HttpError::invalid(format!("The header {name} is not UTF-8.")))?;
            set(&mut message, name, value.to_owned());
        }
    }
    Ok(message)
}

/// The whole of a batch has the limit of a message (the C SDK packs up to it).
fn batch(body: &[u8]) -> Result<Vec<Telemetry>, HttpError> {
    if body.len() > limits::TELEMETRY_BYTES {
        return Err(HttpError::from(Error {
            code: ErrorCode::MessageTooLarge,
            message: format!("A batch has at most {} bytes.", limits::TELEMETRY_BYTES),
        }));
    }
    let items: Vec<Item> = serde_json::from_slice(body).map_err(|error| {
        HttpError::from(Error {
            code: ErrorCode::IotHubFormatError,
            message: format!("Cannot decode the batch: {error}"),
        })
    })?;
    if items.is_empty() {
        return Err(HttpError::invalid("The batch has no message."));
    }
    let messages = items.into_iter().enumerate();
    messages
        .map(|(index, item)| item.into_message(index))
        .collect()
}

/// One message of a batch, as the Node, Java and C SDKs write it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    body: String,
    /// C says false for text, Java true, Node nothing for base64.
    #[serde(default = "base64_encoded")]
    base64_encoded: bool,
    #[serde(default)]
    properties: Map<String, Value>,
}

const fn base64_encoded() -> bool {
    true
}

impl Item {
    fn into_message(self, index: usize) -> Result<Telemetry, HttpError> {
        let invalid = |what: &str| HttpError::invalid(format!("Message {index}: {what}."));
        let payload = if self.base64_encoded {
            let bytes = BASE64.decode(&self.body);
            bytes.map_err(|_| invalid("the body is not base64"))?.into()
        } else {
            self.body.into()
        };
        let mut message = Telemetry {
            payload,
            ..Telemetry::default()
        };
        for (name, value) in self.properties {
            let Value::String(value) = value else {
                return Err(invalid("a property is no text"));
            };
            set(&mut message, &name, value);
        }
        Ok(message)
    }
}

/// Sets the property that a header stands for. `iothub-to` is passed over: SDKs send the path of the request in it, and
/// the REST reference does not know it; so is what has no meaning for telemetry.
fn set(message: &mut Telemetry, name: &str, value: String) {
    let lower = name.to_ascii_lowercase();
    let system = &mut message.system;
    let place = match lower.as_str() {
        "iothub-messageid" => &mut system.message_id,
        "iothub-correlationid" => &mut system.correlation_id,
        "iothub-userid" => &mut system.user_id,
        "iothub-expiry" => &mut system.expiry,
        "iothub-contenttype" => &mut system.content_type,
        "iothub-contentencoding" => &mut system.content_encoding,
        "iothub-creationtimeutc" => &mut system.creation_time,
        "iothub-messageschema" => return system.others.push(("schema".to_owned(), value)),
        "iothub-interface-id" => return system.others.push(("ifid".to_owned(), value)),
        SUBJECT => return system.others.push(("sub".to_owned(), value)),
        other => {
            if other.starts_with(APP) {
                let name = name[APP.len()..].to_owned();
                message.properties.push((name, value));
            }
            return;
        }
    };
    *place = Some(value);
}

fn lock_time(headers: &HeaderMap, query: Receive) -> Result<Duration, HttpError> {
    let header = headers.get("iothub-messagelocktimeout");
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let Some(text) = header.or(query.lock_time) else {
        return Ok(Duration::from_secs(limits::CLOUD_MESSAGE_LOCK_DEFAULT_S));
    };
    text.trim()
        .parse()
        .map(Duration::from_secs)
        .map_err(|_| HttpError::invalid("iothub-messagelocktimeout is a number of seconds."))
}

/// The names are those that the C, Node and .NET SDKs and the command line tool read.
fn shown(locked: LockedMessage) -> Response {
    let message = locked.message;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(BYTES));
    headers.insert("iothub-sequencenumber", locked.sequence.into());
    headers.insert("iothub-deliverycount", locked.delivery_count.into());
    let expiry = message.expires_at().map(us_time);
    let enqueued = us_time(locked.enqueued_at);
    let ack = (message.ack != AckRequest::None).then(|| message.ack.as_str());
    let system = &message.system;
    for (name, value) in [
        // In quotes: the C SDK insists on them.
        (ETAG.as_str(), Some(format!("\"{}\"", locked.lock).as_str())),
        ("iothub-enqueuedtime", Some(enqueued.as_str())),
        ("iothub-expiry", expiry.as_deref()),
        ("iothub-messageid", system.message_id.as_deref()),
        ("iothub-correlationid", system.correlation_id.as_deref()),
        ("iothub-userid", system.user_id.as_deref()),
        ("iothub-to", system.to.as_deref()),
        ("iothub-ack", ack),
        ("contenttype", system.content_type.as_deref()),
        ("contentencoding", system.content_encoding.as_deref()),
    ] {
        if let Some(value) = value {
            add(&mut headers, name, value);
        }
    }
    for (name, value) in &message.properties {
        let name = format!("{APP}{}", utf8_percent_encode(name, NO_TOKEN));
        add(&mut headers, &name, value);
    }
    (headers, Body::from(message.payload)).into_response()
}

/// What a header cannot carry has no form of its own on a hub, which does not take it ("Create and read IoT Hub messages");
/// here it is percent-encoded.
fn add(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::try_from(name);
    let value = HeaderValue::from_bytes(value.as_bytes())
        .or_else(|_| HeaderValue::try_from(utf8_percent_encode(value, CONTROLS).to_string()));
    if let (Ok(name), Ok(value)) = (name, value) {
        headers.append(name, value);
    }
}

/// `12/09/2019 12:00:00 PM`, as the tests of Azure's command line tool have it.
fn us_time(at: Timestamp) -> String {
    let time = OffsetDateTime::from_unix_timestamp(at.unix_seconds());
    let text = time.ok().and_then(|time| time.format(US_TIME).ok());
    text.unwrap_or_else(|| at.to_string())
}

const BATCH: &str = "application/vnd.microsoft.iothub.json";
const BYTES: &str = "application/octet-stream";
const APP: &str = "iothub-app-";
const SUBJECT: &str = "dt-subject";
const US_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[month]/[day]/[year] [hour repr:12]:[minute]:[second] [period]");
/// All that a header's name cannot have (RFC 9110, section 5.6.2).
const NO_TOKEN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'%')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');
