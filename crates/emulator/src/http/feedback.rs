//! `/messages/serviceBound/feedback`: what became of cloud-to-device messages, in batches under a lock, as the service
//! receives it; and `/emulator/feedback`, where every record is to be read without taking it from anybody.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Http,
    answer::HttpError,
    extract::{Path, Query},
};
use crate::hub::FeedbackRecord;

/// The kept feedback from the number `from` on, as an array of the records that a hub sends.
pub(super) async fn read(State(http): State<Http>, Query(query): Query<From>) -> Json<Vec<Value>> {
    let from = query.from.unwrap_or(1);
    let records = http.shell.with(|hub, _| hub.feedback(from));
    let numbered = |record: &FeedbackRecord| {
        let mut json = to_json(record);
        json["sequence"] = record.sequence.into();
        json
    };
    Json(records.iter().map(numbered).collect())
}

#[derive(Deserialize)]
pub(super) struct From {
    from: Option<u64>,
}

/// The next batch, or 204.
pub(super) async fn receive(State(http): State<Http>) -> Response {
    let Some(batch) = http.shell.with(|hub, now| hub.receive_feedback(now)) else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let records: Vec<_> = batch.records.iter().map(to_json).collect();
    let mut response = Json(records).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(FEEDBACK));
    for (name, value) in [
        ("etag", format!("\"{}\"", batch.lock)),
        ("iothub-enqueuedtime", batch.enqueued_at.to_string()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

pub(super) async fn complete(
    State(http): State<Http>,
    Path(lock): Path<String>,
) -> Result<StatusCode, HttpError> {
    http.shell
        .with(|hub, now| hub.complete_feedback(&lock, now))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn abandon(
    State(http): State<Http>,
    Path(lock): Path<String>,
) -> Result<StatusCode, HttpError> {
    http.shell
        .with(|hub, now| hub.abandon_feedback(&lock, now))?;
    Ok(StatusCode::NO_CONTENT)
}

fn to_json(record: &FeedbackRecord) -> Value {
    json!({
        "originalMessageId": record.original_message_id,
        "enqueuedTimeUtc": record.at,
        "statusCode": record.status.as_str(),
        "description": record.status.as_str(),
        "deviceId": record.device_id,
        "deviceGenerationId": record.generation_id,
    })
}

/// "Understand cloud-to-device messaging".
const FEEDBACK: &str = "application/vnd.microsoft.iothub.feedback.json";
