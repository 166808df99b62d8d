//! `/emulator/faults`: what shall go wrong.

use axum::{Json, extract::State};
use iothub::ErrorCode;
use serde_json::{Value, json};

use super::{
    Http,
    answer::HttpError,
    extract::{Path, Payload},
};
use crate::hub::{Error, Fault, FaultId, FaultRule};

/// A rule that cannot be read is answered with all that there is to know for writing one.
pub(super) async fn inject(
    State(http): State<Http>,
    Payload(body): Payload,
) -> Result<Json<Value>, HttpError> {
    let rule: FaultRule = serde_json::from_slice(&body).map_err(|error| {
        let error = Error {
            code: ErrorCode::IotHubFormatError,
            message: format!("This is no fault rule: {error}"),
        };
        HttpError::from(error).with_help(Fault::help())
    })?;
    let id = http.shell.with(|hub, now| hub.inject(rule, now))?;
    Ok(Json(json!({ "id": id })))
}

pub(super) async fn list(State(http): State<Http>) -> Json<Vec<Value>> {
    let to_json = |(id, rule): (FaultId, &FaultRule)| json!({ "id": id, "rule": rule });
    Json(
        http.shell
            .with(|hub, _| hub.faults().map(to_json).collect()),
    )
}

pub(super) async fn clear_all(State(http): State<Http>) -> Json<Value> {
    Json(json!({ "cleared": http.shell.with(|hub, _| hub.clear_faults(None)) }))
}

pub(super) async fn clear(State(http): State<Http>, Path(id): Path<u64>) -> Json<Value> {
    let id = FaultId(id);
    Json(json!({ "cleared": http.shell.with(|hub, _| hub.clear_faults(Some(id))) }))
}
