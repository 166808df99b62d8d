//! `/twins/{id}` and `/twins/{id}/modules/{module}`: tags and desired properties.

use axum::{Json, extract::State, http::HeaderMap};
use iothub::Identity;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Http,
    answer::HttpError,
    devices::if_match,
    extract::{JsonBody, Whom},
};
use crate::hub::TwinChange;

pub(super) async fn read(
    State(http): State<Http>,
    Whom(id): Whom,
) -> Result<Json<Value>, HttpError> {
    Ok(Json(http.shell.with(|hub, _| hub.twin(&id))?))
}

pub(super) async fn merge(
    State(http): State<Http>,
    Whom(id): Whom,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, HttpError> {
    let change = TwinChange::Merge {
        desired: body.properties.and_then(Properties::into_desired),
        tags: body.tags,
    };
    update(&http, &id, &headers, change)
}

pub(super) async fn replace(
    State(http): State<Http>,
    Whom(id): Whom,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, HttpError> {
    let desired = body.properties.and_then(Properties::into_desired);
    let change = TwinChange::Replace {
        tags: body.tags.unwrap_or_default(),
        desired: desired.unwrap_or_default(),
    };
    update(&http, &id, &headers, change)
}

fn update(
    http: &Http,
    id: &Identity,
    headers: &HeaderMap,
    change: TwinChange,
) -> Result<Json<Value>, HttpError> {
    let if_match = if_match(headers)?;
    let twin = http
        .shell
        .with(|hub, now| hub.update_twin(id, change, if_match.as_ref(), now))?;
    Ok(Json(twin))
}

/// What of a twin the service may write; the rest of a document that was read before is passed over. `"tags":null` is
/// nothing at all: tags are reset by PUT ("Understand and use device twins").
#[derive(Deserialize)]
pub(super) struct Body {
    tags: Option<Map<String, Value>>,
    properties: Option<Properties>,
}

/// The properties of a twin, of which the desired ones are the service's to write.
#[derive(Deserialize)]
pub(super) struct Properties {
    desired: Option<Map<String, Value>>,
}

impl Properties {
    /// A document that was read and is written back has the hub's own members in it.
    pub(super) fn into_desired(self) -> Option<Map<String, Value>> {
        let mut desired = self.desired?;
        desired.retain(|key, _| !matches!(key.as_str(), "$metadata" | "$version"));
        Some(desired)
    }
}
