//! `/emulator/faults`: what shall go wrong.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{
    Http,
    answer::HttpError,
    extract::{JsonBody, Path},
};
use crate::hub::{FaultId, FaultRule};

pub(super) async fn inject(
    State(http): State<Http>,
    JsonBody(rule): JsonBody<FaultRule>,
) -> Result<Json<Value>, HttpError> {
    let id = http.shell.with(|hub, now| hub.inject(rule, now))?;
    Ok(Json(json!({ "id": id })))
}

pub(super) async fn list(State(http): State<Http>) -> Json<Vec<Value>> {
    let rules = http.shell.with(|hub, _| hub.faults().to_vec());
    let to_json = |(id, rule): &(FaultId, FaultRule)| json!({ "id": id, "rule": rule });
    Json(rules.iter().map(to_json).collect())
}

pub(super) async fn clear_all(State(http): State<Http>) -> Json<Value> {
    Json(json!({ "cleared": http.shell.with(|hub, _| hub.clear_faults(None)) }))
}

pub(super) async fn clear(State(http): State<Http>, Path(id): Path<u64>) -> Json<Value> {
    let id = FaultId(id);
    Json(json!({ "cleared": http.shell.with(|hub, _| hub.clear_faults(Some(id))) }))
}
