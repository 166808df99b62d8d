//! `/devices`, `/statistics`: the identity registry.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header::IF_MATCH},
};
use iothub::{DeviceId, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Http,
    answer::{HttpError, time_or_never},
    authentication::{self, Authentication},
    extract::{JsonBody, Path, Query, device_id},
};
use crate::hub::{DeviceInfo, DeviceSpec, DeviceStatus, Error, IfMatch};

pub(super) async fn list(
    State(http): State<Http>,
    Query(query): Query<List>,
) -> Result<Json<Vec<Value>>, HttpError> {
    let top = query.top.unwrap_or(LIST);
    if !(1..=LIST).contains(&top) {
        return Err(HttpError::invalid(format!("top is 1 to {LIST}.")));
    }
    let devices = http.shell.with(|hub, _| hub.devices(top));
    Ok(Json(devices.iter().map(to_json).collect()))
}

pub(super) async fn read(
    State(http): State<Http>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let id = device_id(&id)?;
    let info = http.shell.with(|hub, _| hub.device(&id))?;
    Ok(Json(to_json(&info)))
}

/// Without `If-Match` create only, with it update only; 200 in both cases (live hub).
pub(super) async fn write(
    State(http): State<Http>,
    Path(id): Path<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, HttpError> {
    let id = device_id(&id)?;
    let spec = body.into_spec(&id)?;
    let info = match if_match(&headers)? {
        None => http
            .shell
            .with(|hub, now| hub.create_device(&id, spec, now)),
        Some(if_match) => http
            .shell
            .with(|hub, now| hub.update_device(&id, spec, &if_match, now)),
    };
    Ok(Json(to_json(&info?)))
}

pub(super) async fn remove(
    State(http): State<Http>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, HttpError> {
    let id = device_id(&id)?;
    let if_match = must_match(&headers)?;
    http.shell
        .with(|hub, now| hub.delete_device(&id, &if_match, now))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn count(State(http): State<Http>) -> Json<Value> {
    let numbers = http.shell.with(|hub, _| hub.statistics());
    Json(json!({
        "totalDeviceCount": numbers.enabled + numbers.disabled,
        "enabledDeviceCount": numbers.enabled,
        "disabledDeviceCount": numbers.disabled,
    }))
}

pub(super) async fn count_connected(State(http): State<Http>) -> Json<Value> {
    let numbers = http.shell.with(|hub, _| hub.statistics());
    Json(json!({ "connectedDeviceCount": numbers.connected }))
}

/// The condition of a request, if it has one.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, HttpError> {
    headers
        .get(IF_MATCH)
        .map(|value| {
            let text = value.to_str();
            text.map(IfMatch::parse)
                .map_err(|_| HttpError::invalid("If-Match is no text."))
        })
        .transpose()
}

/// The condition of a request that must have one (live hub).
pub(super) fn must_match(headers: &HeaderMap) -> Result<IfMatch, HttpError> {
    if_match(headers)?.ok_or_else(|| {
        HttpError::from(Error {
            code: ErrorCode::PreconditionFailed,
            message: "Etag missing".to_owned(),
        })
    })
}

#[derive(Deserialize)]
pub(super) struct List {
    top: Option<usize>,
}

/// What the SDKs send; members that are not the service's to write are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body {
    device_id: Option<String>,
    #[serde(default)]
    status: Status,
    status_reason: Option<String>,
    authentication: Option<Authentication>,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    #[default]
    Enabled,
    Disabled,
}

impl From<Status> for DeviceStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Enabled => Self::Enabled,
            Status::Disabled => Self::Disabled,
        }
    }
}

impl Body {
    fn into_spec(self, id: &DeviceId) -> Result<DeviceSpec, HttpError> {
        if self.device_id.is_some_and(|other| other != id.as_str()) {
            return Err(HttpError::invalid(
                "The deviceId in the body is not that of the path.",
            ));
        }
        Ok(DeviceSpec {
            status: self.status.into(),
            status_reason: self.status_reason,
            authentication: authentication::parse(self.authentication)?,
        })
    }
}

fn to_json(info: &DeviceInfo) -> Value {
    json!({
        "deviceId": info.device_id,
        "generationId": info.generation_id,
        "etag": info.etag,
        "connectionState": if info.is_connected { "Connected" } else { "Disconnected" },
        "status": info.status.as_str(),
        "statusReason": info.status_reason,
        "connectionStateUpdatedTime": time_or_never(info.connection_updated_at),
        "statusUpdatedTime": time_or_never(info.status_updated_at),
        "lastActivityTime": time_or_never(info.last_activity_at),
        "cloudToDeviceMessageCount": info.cloud_messages,
        "authentication": authentication::to_json(&info.authentication),
        "capabilities": { "iotEdge": false },
    })
}

/// Devices that one request lists at most ("Service - Devices - List").
const LIST: usize = 1000;
