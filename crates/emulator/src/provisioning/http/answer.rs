//! Errors in the service's form: one JSON object, and its number in `x-ms-error-code` (the service's REST specification).

use std::time::SystemTime;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};

use crate::{
    http::guid,
    provisioning::service::{Error, error_body},
};

/// An error answer.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    number: u32,
    message: String,
    retry_after_s: Option<u32>,
}

impl HttpError {
    /// A refusal by HTTP itself, before the service is asked.
    pub(super) fn other(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            number: u32::from(status.as_u16()) * 1000,
            message: message.into(),
            retry_after_s: None,
        }
    }
}

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        Self {
            status: StatusCode::from_u16(error.code.status())
                .expect("the statuses of all codes are written in one place"),
            number: error.code.number(),
            message: error.message,
            retry_after_s: error.retry_after_s,
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let now = SystemTime::now().into();
        let body = error_body(self.number, &self.message, &guid(), now);
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(ERROR_CODE, HeaderValue::from(self.number));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
