//! `POST /devices`: many identities in one request.

use axum::{Json, extract::State, http::StatusCode};
use iothub::ErrorCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Http,
    answer::HttpError,
    authentication::{self, Authentication},
    devices::Status,
    extract::{JsonBody, device_id, module_id},
    twins,
};
use crate::hub::{BulkAction, BulkIdentity, BulkItem, BulkTwin, DeviceSpec, Error, IfMatch};

/// 200 if every item was done, otherwise 400 with the same form: the Python SDK reads both.
pub(super) async fn apply(
    State(http): State<Http>,
    JsonBody(items): JsonBody<Vec<Item>>,
) -> Result<(StatusCode, Json<Value>), HttpError> {
    let names: Vec<_> = items
        .iter()
        .map(|item| (item.id.clone(), item.module_id.clone()))
        .collect();
    let items = items.into_iter().map(Item::into_bulk).collect();
    let results = http.shell.with(|hub, now| hub.apply_bulk(items, now))?;
    let errors: Vec<_> = names
        .iter()
        .zip(&results)
        .filter_map(|((device, module), result)| {
            let error = result.as_ref().err()?;
            Some(json!({
                "deviceId": device,
                "moduleId": module,
                // A number, as in the error files of import jobs (azure-functions-host issue 1641).
                "errorCode": error.code.number(),
                "errorStatus": error.message,
            }))
        })
        .collect();
    let status = if errors.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    let body = json!({ "isSuccessful": errors.is_empty(), "errors": errors, "warnings": [] });
    Ok((status, Json(body)))
}

/// `ExportImportDevice` of the REST reference; members that are not the service's to write are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    id: String,
    module_id: Option<String>,
    /// `etag` is what a device that was read before has, and what the Node SDK passes on.
    #[serde(rename = "eTag", alias = "etag")]
    etag: Option<String>,
    import_mode: Option<String>,
    #[serde(default)]
    status: Status,
    status_reason: Option<String>,
    managed_by: Option<String>,
    authentication: Option<Authentication>,
    #[serde(rename = "twinETag", alias = "twinEtag")]
    twin_etag: Option<String>,
    tags: Option<Map<String, Value>>,
    properties: Option<twins::Properties>,
}

impl Item {
    fn into_bulk(self) -> Result<BulkItem, Error> {
        let module = self.module_id.as_deref().map(module_id).transpose();
        let (device, module) = (device_id(&self.id).map_err(plain)?, module.map_err(plain)?);
        let mode = self.import_mode.as_deref().unwrap_or("create");
        let etag = if_match(self.etag.as_deref());
        let twin_etag = if_match(self.twin_etag.as_deref());
        let missing = |what: &str| invalid(format!("{mode} needs {what}."));
        let condition = || etag.clone().ok_or_else(|| missing("an eTag"));
        let desired = self.properties.and_then(twins::Properties::into_desired);
        let twin = (self.tags.is_some() || desired.is_some()).then(|| BulkTwin {
            if_match: twin_etag.clone().unwrap_or(IfMatch::Any),
            tags: self.tags,
            desired,
        });
        let identity = |twin| {
            Ok::<_, Error>(BulkIdentity {
                spec: DeviceSpec {
                    status: self.status.into(),
                    status_reason: self.status_reason,
                    authentication: authentication::parse(self.authentication).map_err(plain)?,
                },
                managed_by: self.managed_by,
                twin,
            })
        };
        let needs_twin = |twin: Option<BulkTwin>| twin.ok_or_else(|| missing("tags or properties"));
        // The REST reference begins the modes with a small letter, the Node SDK some of them with a capital one.
        let action = match mode.to_ascii_lowercase().as_str() {
            "create" => BulkAction::Create(identity(twin)?),
            "update" => BulkAction::Update(identity(twin)?, IfMatch::Any),
            "updateifmatchetag" => BulkAction::Update(identity(twin)?, condition()?),
            "createorupdate" => BulkAction::CreateOrUpdate(identity(twin)?, IfMatch::Any),
            "createorupdateifmatchetag" => {
                BulkAction::CreateOrUpdate(identity(twin)?, condition()?)
            }
            "delete" => BulkAction::Delete(IfMatch::Any),
            "deleteifmatchetag" => BulkAction::Delete(condition()?),
            "updatetwin" => BulkAction::UpdateTwin(BulkTwin {
                if_match: IfMatch::Any,
                ..needs_twin(twin)?
            }),
            "updatetwinifmatchetag" => {
                if twin_etag.is_none() {
                    return Err(missing("a twinETag"));
                }
                BulkAction::UpdateTwin(needs_twin(twin)?)
            }
            _ => return Err(invalid(format!("There is no importMode {mode}."))),
        };
        Ok(BulkItem {
            device,
            module,
            action,
        })
    }
}

fn if_match(etag: Option<&str>) -> Option<IfMatch> {
    etag.filter(|etag| !etag.is_empty()).map(IfMatch::parse)
}

/// What is wrong with an id or a key is an invalid argument, here of one item.
fn plain(error: HttpError) -> Error {
    invalid(error.message().to_owned())
}

fn invalid(message: String) -> Error {
    Error {
        code: ErrorCode::ArgumentInvalid,
        message,
    }
}
