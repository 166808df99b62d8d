//! Parts of a request: bodies bounded in size and time, and errors in the hub's form.

use axum::{
    body::{Bytes, to_bytes},
    extract::{self, FromRequest, FromRequestParts, Request},
    http::{StatusCode, request::Parts},
};
use iothub::{DeviceId, ErrorCode, Identity, ModuleId};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{Http, answer::HttpError};
use crate::hub::Error;

/// The bytes of a body.
pub(super) struct Payload(pub(super) Bytes);

/// A body in JSON, whatever its content type: curl sends another one if it is not told.
pub(super) struct JsonBody<T>(pub(super) T);

/// What a path names, percent-decoded.
pub(super) struct Path<T>(pub(super) T);

/// Whom a path names: `{id}`, and `{module}` if it has that part.
pub(super) struct Whom(pub(super) Identity);

#[derive(Deserialize)]
struct Ids {
    id: String,
    module: Option<String>,
}

/// What a query says.
pub(super) struct Query<T>(pub(super) T);

impl FromRequest<Http> for Payload {
    type Rejection = HttpError;

    async fn from_request(request: Request, http: &Http) -> Result<Self, HttpError> {
        let limits = http.limits;
        let read = to_bytes(request.into_body(), limits.body_bytes);
        match timeout(limits.body, read).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(_)) => Err(Error {
                code: ErrorCode::MessageTooLarge,
                message: format!(
                    "The body was cut off, or is larger than {} bytes.",
                    limits.body_bytes
                ),
            }
            .into()),
            Err(_) => Err(HttpError::new(
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeout",
                "The body did not come in time.",
            )),
        }
    }
}

impl<T: DeserializeOwned> FromRequest<Http> for JsonBody<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, http: &Http) -> Result<Self, HttpError> {
        let Payload(bytes) = Payload::from_request(request, http).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Error {
                code: ErrorCode::IotHubFormatError,
                message: format!("Cannot decode the body as JSON: {error}"),
            }
            .into()
        })
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<Http> for Path<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, HttpError> {
        let path = extract::Path::from_request_parts(parts, http).await;
        path.map(|extract::Path(value)| Self(value))
            .map_err(|rejection| HttpError::invalid(rejection.body_text()))
    }
}

impl FromRequestParts<Http> for Whom {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, HttpError> {
        let Path(Ids { id, module }) = Path::from_request_parts(parts, http).await?;
        let device = device_id(&id)?;
        let module = module.as_deref().map(module_id).transpose()?;
        Ok(Self(http.shell.with(|hub, _| hub.identity(device, module))))
    }
}

/// A device's id from a path, percent-decoded.
pub(super) fn device_id(text: &str) -> Result<DeviceId, HttpError> {
    text.parse()
        .map_err(|error| HttpError::invalid(format!("The device id cannot be used: {error}.")))
}

/// A module's id from a path, percent-decoded.
pub(super) fn module_id(text: &str) -> Result<ModuleId, HttpError> {
    text.parse()
        .map_err(|error| HttpError::invalid(format!("The module id cannot be used: {error}.")))
}

impl<T: DeserializeOwned> FromRequestParts<Http> for Query<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, HttpError> {
        let query = extract::Query::from_request_parts(parts, http).await;
        query
            .map(|extract::Query(value)| Self(value))
            .map_err(|rejection| HttpError::invalid(rejection.body_text()))
    }
}
