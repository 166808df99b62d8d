//! Cloud-to-device messages. A real hub takes them over AMQP only.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use iothub::{AckRequest, CloudMessage};
use serde_json::{Value, json};

use super::{
    Http,
    answer::HttpError,
    extract::{Path, Payload, device_id},
};

/// The body is the payload; properties come as headers, as on the hub's HTTPS device API.
pub(super) async fn send(
    State(http): State<Http>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Payload(payload): Payload,
) -> Result<Json<Value>, HttpError> {
    let id = device_id(&id)?;
    let message = CloudMessage {
        payload,
        ..from_headers(&headers)?
    };
    let message_id = message.system.message_id.clone();
    let sent = http
        .shell
        .with(|hub, now| hub.send_message(&id, message, now))?;
    Ok(Json(json!({
        "deviceId": id,
        "messageId": message_id,
        "sequenceNumber": sent.sequence,
        "expiryTimeUtc": sent.expires_at,
    })))
}

pub(super) async fn purge(
    State(http): State<Http>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let id = device_id(&id)?;
    let purged = http.shell.with(|hub, now| hub.purge_messages(&id, now))?;
    Ok(Json(
        json!({ "deviceId": id, "moduleId": null, "totalMessagesPurged": purged }),
    ))
}

/// The same at the path at which a device receives, with a service token and without an answer: what archived SDKs and
/// scripts send. It is documented nowhere, and whether a real hub takes it is not known.
pub(super) async fn send_undocumented(
    http: State<Http>,
    id: Path<String>,
    headers: HeaderMap,
    payload: Payload,
) -> Result<StatusCode, HttpError> {
    let sent = send(http, id, headers, payload).await;
    sent.map(|_| StatusCode::NO_CONTENT)
}

fn from_headers(headers: &HeaderMap) -> Result<CloudMessage, HttpError> {
    let mut message = CloudMessage::default();
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("iothub-") {
            continue;
        }
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| HttpError::invalid(format!("The header {name} is not UTF-8.")))?
            .to_owned();
        let system = &mut message.system;
        match name {
            "iothub-messageid" => system.message_id = Some(value),
            "iothub-correlationid" => system.correlation_id = Some(value),
            "iothub-userid" => system.user_id = Some(value),
            "iothub-contenttype" => system.content_type = Some(value),
            "iothub-contentencoding" => system.content_encoding = Some(value),
            "iothub-expiry" => system.expiry = Some(value),
            "iothub-ack" => {
                message.ack = AckRequest::parse(&value).ok_or_else(|| {
                    HttpError::invalid("iothub-ack is none, positive, negative or full.")
                })?;
            }
            other => {
                let property = other.strip_prefix("iothub-app-").ok_or_else(|| {
                    HttpError::invalid(format!(
                        "There is no header {other}; an application property is iothub-app-NAME."
                    ))
                })?;
                message.properties.push((property.to_owned(), value));
            }
        }
    }
    Ok(message)
}
