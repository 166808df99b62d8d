//! Parts of a request: bodies bounded in size and time, and errors in the hub's form.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{self, FromRequest, FromRequestParts, Request},
    http::{StatusCode, request::Parts},
};
use iothub::{DeviceId, ErrorCode, Identity, ModuleId};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{Http, answer::HttpError};
use crate::{Limits, hub::Error};

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
        let read = read_body(request.into_body(), http.limits).await;
        read.map(Self).map_err(|unread| {
            let message = unread.to_string();
            match unread {
                Unread::TooLarge(_) => Error {
                    code: ErrorCode::MessageTooLarge,
                    message,
                }
                .into(),
                Unread::TooSlow => {
                    HttpError::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message)
                }
            }
        })
    }
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unread {
    #[error("The body was cut off, or is larger than {0} bytes.")]
    TooLarge(usize),
    #[error("The body did not come in time.")]
    TooSlow,
}

/// Reads a body, bounded in size and time.
pub(crate) async fn read_body(body: Body, limits: Limits) -> Result<Bytes, Unread> {
    let most = limits.body_bytes;
    let read = timeout(limits.body, to_bytes(body, most)).await;
    let bytes = read.map_err(|_| Unread::TooSlow)?;
    bytes.map(compact).map_err(|_| Unread::TooLarge(most))
}

/// The same bytes in a place of their own. A body may be a slice of what was read from its connection at a time, hundreds of
/// kilobytes, and who keeps the one keeps the other.
pub(super) fn compact(bytes: Bytes) -> Bytes {
    Bytes::copy_from_slice(&bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_keeps_nothing_else_alive() {
        let read = Bytes::from(vec![0; 8192]);
        let body = Body::from(read.slice(..10));
        let body = read_body(body, Limits::default()).await.unwrap();
        assert_eq!(body.len(), 10);
        assert!(read.is_unique());
    }

    #[tokio::test]
    async fn a_body_has_a_size() {
        let limits = Limits {
            body_bytes: 10,
            ..Limits::default()
        };
        for (size, expected) in [(9, Ok(9)), (10, Ok(10)), (11, Err(Unread::TooLarge(10)))] {
            let read = read_body(Body::from(vec![0; size]), limits).await;
            assert_eq!(read.map(|bytes| bytes.len()), expected);
        }
    }
}
