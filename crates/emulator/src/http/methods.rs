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
use crate::hub::{MethodCall, payload_json};

pub(super) async fn invoke(
    State(http): State<Http>,
    Whom(id): Whom,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, HttpError> {
    let response = http.shell.invoke_method(&id, body.into_call()?).await?;
    let payload = payload_json(&response);
    Ok(Json(
        json!({ "status": response.status, "payload": payload }),
    ))
}

/// A direct method, as it is invoked and as a job has it.
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

impl Body {
    pub(super) fn into_call(self) -> Result<MethodCall, HttpError> {
        let name = self
            .method_name
            .parse()
            .map_err(|error| HttpError::invalid(format!("methodName: {error}.")))?;
        Ok(MethodCall {
            name,
            // Nothing and null are the same: the device gets no byte.
            payload: match self.payload {
                None | Some(Value::Null) => Bytes::new(),
                Some(payload) => payload.to_string().into(),
            },
            response_timeout: Duration::from_secs(self.response_timeout_in_seconds),
            connect_timeout: Duration::from_secs(self.connect_timeout_in_seconds),
        })
    }
}

const fn response_timeout() -> u64 {
    limits::METHOD_RESPONSE_TIMEOUT_DEFAULT_S
}
