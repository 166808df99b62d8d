//! Errors in the hub's form.
//!
//! The header `iothub-errorcode` is what clients can rely on (live hub). The body is envelope 1,
//! `{"Message":"ErrorCode:{name};{text}","ExceptionMessage":"Tracking ID:..."}`; for direct methods it holds envelope 2 as
//! a string in `Message` (captures, 2018 and 2026).

use std::time::SystemTime;

use axum::{
    Json,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use iothub::{ErrorCode, HubError, Timestamp};
use serde_json::json;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::hub::{Error, NEVER};

/// An error answer.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    /// `iothub-errorcode`
    name: &'static str,
    message: String,
    /// Set for errors whose body nests an envelope 2.
    nested: Option<u32>,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            name,
            message: message.into(),
            nested: None,
        }
    }

    /// 400, 400004.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::from(Error {
            code: ErrorCode::ArgumentInvalid,
            message: message.into(),
        })
    }
}

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        let is_nested = matches!(
            error.code,
            ErrorCode::DeviceNotOnline | ErrorCode::GatewayTimeout
        );
        Self {
            status: StatusCode::from_u16(error.code.status())
                .expect("the hub's numbers begin with an HTTP status"),
            name: error.code.name(),
            message: error.message,
            nested: is_nested.then(|| error.code.number()),
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let now = SystemTime::now();
        let body = match self.nested {
            None => json!({
                "Message": format!("ErrorCode:{};{}", self.name, self.message),
                "ExceptionMessage": format!("Tracking ID:{}", tracking_id(now)),
            }),
            Some(error_code) => {
                let inner = HubError {
                    error_code,
                    tracking_id: tracking_id(now),
                    message: self.message,
                    timestamp_utc: Timestamp::from(now).to_string(),
                    info: serde_json::Value::Null,
                };
                let inner =
                    serde_json::to_string(&inner).expect("texts and a number have a JSON form");
                json!({ "Message": inner, "ExceptionMessage": "" })
            }
        };
        let header = ("iothub-errorcode", HeaderValue::from_static(self.name));
        (self.status, [header], Json(body)).into_response()
    }
}

/// Every answer of a hub names its request.
pub(super) async fn add_request_id(mut response: Response) -> Response {
    if let Ok(id) = HeaderValue::from_str(&guid()) {
        response.headers_mut().insert("x-ms-request-id", id);
    }
    response
}

/// A time in JSON, or the hub's word for none.
pub(super) fn time_or_never(at: Option<Timestamp>) -> String {
    at.map_or_else(|| NEVER.to_owned(), |at| at.to_string())
}

/// The older form, which goes with envelope 1: `{32 hex}-G:9-TimeStamp:10/15/2018 03:54:24`.
fn tracking_id(now: SystemTime) -> String {
    let time = OffsetDateTime::from(now)
        .format(US_TIME)
        .unwrap_or_default();
    format!("{:032x}-G:0-TimeStamp:{time}", fastrand::u128(..))
}

fn guid() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

const US_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[month]/[day]/[year] [hour]:[minute]:[second]");
