//! `/devices/{id}/files`: a device begins an upload and says how it ended ("Upload files with IoT Hub"). What it uploads goes
//! to the storage, which `storage` is; who tests reads it at `/emulator/files`.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{CONTENT_TYPE, HOST},
    },
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Http,
    answer::HttpError,
    device_api::Authorized,
    extract::{JsonBody, Path, Query},
    storage::{self, CONTAINER},
};
use crate::hub::{FileInfo, FileNotification};

/// The answer names the storage by the name that the hub was asked by, with its port: clients write `https://` before it.
pub(super) async fn begin(
    State(http): State<Http>,
    Authorized(caller): Authorized,
    uri: Uri,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Begin>,
) -> Result<Json<Value>, HttpError> {
    let header = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = uri.authority().map(|a| a.as_str()).or(header);
    let host = host.ok_or_else(|| HttpError::invalid("The request names no Host."))?;
    let container = format!("https://{host}/{CONTAINER}");
    let upload = http
        .shell
        .with(|hub, now| hub.begin_upload(&caller, &body.blob_name, &container, now))?;
    Ok(Json(json!({
        "correlationId": upload.correlation_id,
        "hostName": host,
        "containerName": CONTAINER,
        "blobName": upload.blob,
        "sasToken": storage::to_query(&upload.token),
    })))
}

/// The correlation id stands in the body (Python, .NET, Java) or in the path (Node; .NET after a failure).
pub(super) async fn end(
    State(http): State<Http>,
    Authorized(caller): Authorized,
    Path(path): Path<Correlation>,
    JsonBody(body): JsonBody<End>,
) -> Result<StatusCode, HttpError> {
    let correlation = path.correlation.or(body.correlation_id).unwrap_or_default();
    http.shell
        .with(|hub, now| hub.end_upload(&caller, &correlation, body.is_success, now))?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Begin {
    blob_name: String,
}

#[derive(Deserialize)]
pub(super) struct Correlation {
    correlation: Option<String>,
}

/// `statusCode` and `statusDescription` are for the device's own people: the service is told nothing of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct End {
    correlation_id: Option<String>,
    is_success: bool,
}

/// All stored files, without their content.
pub(super) async fn list(State(http): State<Http>) -> Json<Vec<Value>> {
    let files = http.shell.with(|hub, _| hub.files().list());
    let to_json = |file: &FileInfo| {
        json!({
            "blobName": file.blob,
            "bytes": file.bytes,
            "contentType": file.content_type,
            "lastUpdatedTime": file.modified_at,
        })
    };
    Json(files.iter().map(to_json).collect())
}

/// A stored file.
pub(super) async fn read(
    State(http): State<Http>,
    Path(blob): Path<String>,
) -> Result<Response, HttpError> {
    let file = http.shell.with(|hub, _| hub.files().read(&blob));
    let file = file.ok_or_else(|| {
        HttpError::new(StatusCode::NOT_FOUND, "NotFound", "There is no such file.")
    })?;
    let content_type = file.info.content_type.as_deref();
    let content_type = content_type.and_then(|text| HeaderValue::from_str(text).ok());
    let headers = [(CONTENT_TYPE, content_type.unwrap_or(BYTES))];
    Ok((headers, file.content).into_response())
}

/// The kept file notifications from the number `from` on, in the form that a hub sends over AMQP.
pub(super) async fn notifications(
    State(http): State<Http>,
    Query(query): Query<From>,
) -> Json<Vec<Value>> {
    let from = query.from.unwrap_or(1);
    let records = http.shell.with(|hub, _| hub.file_notifications(from));
    let to_json = |record: &FileNotification| {
        json!({
            "sequence": record.sequence,
            "deviceId": record.device_id,
            "blobUri": record.blob_uri,
            "blobName": record.blob,
            "lastUpdatedTime": record.updated_at,
            "blobSizeInBytes": record.bytes,
            "enqueuedTimeUtc": record.enqueued_at,
        })
    };
    Json(records.iter().map(to_json).collect())
}

#[derive(Deserialize)]
pub(super) struct From {
    from: Option<u64>,
}

pub(super) const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
