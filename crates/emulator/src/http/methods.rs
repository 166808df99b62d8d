//! `/twins/{id}/methods` and `/twins/{id}/modules/{module}/methods`: direct methods.

use std::time::Duration;

use axum::{Json, extract::State};
use bytes::Bytes;
use iothub::limits;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Http,
    answer::HttpError,
    extract::{JsonBody, Whom},
};
use crate::hub::MethodCall;

pub(super) async fn invoke(
    State(http): State<Http>,
    Whom(id): Whom,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, HttpError> {
    let name = body
        .method_name
        .parse()
        .map_err(|error| HttpError::invalid(format!("methodName: {error}.")))?;
    let call = MethodCall {
        name,
        // Nothing and null are the same: the device gets no byte.
        payload: match body.payload {
            None | Some(Value::Null) => Bytes::new(),
            Some(payload) => payload.to_string().into(),
        },
        response_timeout: Duration::from_secs(body.response_timeout_in_seconds),
        connect_timeout: Duration::from_secs(body.connect_timeout_in_seconds),
    };
    let response = http.shell.invoke_method(&id, call).await?;
    // An answer that is no JSON: what the hub does is not documented; here the caller sees its text.
    let payload = match &*response.payload {
        [] => Value::Null,
        bytes => serde_json::from_slice(bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into()),
    };
    Ok(Json(
        json!({ "status": response.status, "payload": payload }),
    ))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body {
    method_name: String,
    payload: Option<Value>,
    #[serde(default = "response_timeout")]
    response_timeout_in_seconds: u64,
    #[serde(default)]
    connect_timeout_in_seconds: u64,
}

const fn response_timeout() -> u64 {
    limits::METHOD_RESPONSE_TIMEOUT_DEFAULT_S
}
