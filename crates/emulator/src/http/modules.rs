//! `/devices/{id}/modules`: the modules of a device.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use iothub::{DeviceId, ModuleId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Http,
    answer::{HttpError, time_or_never},
    authentication::{self, Authentication},
    devices::{if_match, must_match},
    extract::{JsonBody, Path, device_id, module_id},
};
use crate::hub::{ModuleInfo, ModuleSpec};

pub(super) async fn list(
    State(http): State<Http>,
    Path(id): Path<String>,
) -> Result<Json<Vec<Value>>, HttpError> {
    let device = device_id(&id)?;
    let modules = http.shell.with(|hub, _| hub.modules(&device))?;
    Ok(Json(modules.iter().map(to_json).collect()))
}

pub(super) async fn read(
    State(http): State<Http>,
    Path(ids): Path<(String, String)>,
) -> Result<Json<Value>, HttpError> {
    let (device, module) = parse(&ids)?;
    let info = http.shell.with(|hub, _| hub.module(&device, &module))?;
    Ok(Json(to_json(&info)))
}

/// Without `If-Match` create only, with it update only; 200 in both cases (live hub).
pub(super) async fn write(
    State(http): State<Http>,
    Path(ids): Path<(String, String)>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, HttpError> {
    let (device, module) = parse(&ids)?;
    let spec = body.into_spec(&device, &module)?;
    let if_match = if_match(&headers)?;
    let info = http.shell.with(|hub, now| match &if_match {
        None => hub.create_module(&device, &module, spec, now),
        Some(if_match) => hub.update_module(&device, &module, spec, if_match),
    })?;
    Ok(Json(to_json(&info)))
}

pub(super) async fn remove(
    State(http): State<Http>,
    Path(ids): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, HttpError> {
    let (device, module) = parse(&ids)?;
    let if_match = must_match(&headers)?;
    http.shell
        .with(|hub, now| hub.delete_module(&device, &module, &if_match, now))?;
    Ok(StatusCode::NO_CONTENT)
}

fn parse((device, module): &(String, String)) -> Result<(DeviceId, ModuleId), HttpError> {
    Ok((device_id(device)?, module_id(module)?))
}

/// What the SDKs send; members that are not the service's to write are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body {
    device_id: Option<String>,
    module_id: Option<String>,
    managed_by: Option<String>,
    authentication: Option<Authentication>,
}

impl Body {
    fn into_spec(self, device: &DeviceId, module: &ModuleId) -> Result<ModuleSpec, HttpError> {
        let is_other_device = self.device_id.is_some_and(|id| id != device.as_str());
        if is_other_device || self.module_id.is_some_and(|id| id != module.as_str()) {
            return Err(HttpError::invalid(
                "The deviceId or moduleId in the body is not that of the path.",
            ));
        }
        Ok(ModuleSpec {
            managed_by: self.managed_by,
            authentication: authentication::parse(self.authentication)?,
        })
    }
}

fn to_json(info: &ModuleInfo) -> Value {
    json!({
        "moduleId": info.module_id,
        "managedBy": info.managed_by,
        "deviceId": info.device_id,
        "generationId": info.generation_id,
        "etag": info.etag,
        "connectionState": if info.is_connected { "Connected" } else { "Disconnected" },
        "connectionStateUpdatedTime": time_or_never(info.connection_updated_at),
        "lastActivityTime": time_or_never(info.last_activity_at),
        "cloudToDeviceMessageCount": 0,
        "authentication": authentication::to_json(&info.authentication),
    })
}
