//! Parts of a request: bodies bounded in size and time, ids, conditions; and errors in the service's form.

use std::{fmt::Display, str::FromStr};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header::IF_MATCH},
};
use serde_json::Value;

use super::{Http, HttpError};
use crate::{
    http::{Unread, read_body},
    hub::IfMatch,
    provisioning::service::{Code, Error},
};

/// The bytes of a body.
pub(super) struct Payload(pub(super) Bytes);

/// A body in JSON, whatever its content type; `null` if it is empty.
pub(super) struct JsonBody(pub(super) Value);

impl FromRequest<Http> for Payload {
    type Rejection = HttpError;

    async fn from_request(request: Request, http: &Http) -> Result<Self, HttpError> {
        let read = read_body(request.into_body(), http.limits).await;
        read.map(Self).map_err(|unread| {
            let message = unread.to_string();
            match unread {
                Unread::TooLarge(_) => Error::new(Code::TooLarge, message).into(),
                Unread::TooSlow => HttpError::other(StatusCode::REQUEST_TIMEOUT, message),
            }
        })
    }
}

impl FromRequest<Http> for JsonBody {
    type Rejection = HttpError;

    async fn from_request(request: Request, http: &Http) -> Result<Self, HttpError> {
        let Payload(bytes) = Payload::from_request(request, http).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(Value::Null));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Error::invalid(format!("The body is no JSON: {error}.")).into())
    }
}

/// An id from a path, percent-decoded.
pub(super) fn id<T: FromStr<Err: Display>>(text: &str) -> Result<T, HttpError> {
    text.parse().map_err(|error| {
        Error::invalid(format!("The id in the path cannot be used: {error}.")).into()
    })
}

/// The condition of a request, if it has one.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, HttpError> {
    let value = text(headers, IF_MATCH.as_str())?;
    Ok(value.map(IfMatch::parse))
}

/// A header as text, if it is there.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, HttpError> {
    headers
        .get(name)
        .map(|value| value.to_str())
        .transpose()
        .map_err(|_| Error::invalid(format!("{name} is no text.")).into())
}
