//! Errors in the hub's form.
//!
//! The header `iothub-errorcode` is what clients can rely on (live hub). The body is envelope 1,
//! `{"Message":"ErrorCode:{name};{text}","ExceptionMessage":"Tracking ID:..."}`; for direct methods it holds envelope 2,
//! `{"errorCode":...,"message":...}`, as a string in `Message` (captures, 2018 and 2026).

use std::time::SystemTime;

use axum::{
    Json,
    body::HttpBody as _,
    extract::Request,
    http::{HeaderValue, StatusCode, Version, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use iothub::{ErrorCode, HubError, Timestamp};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::hub::{Error, NEVER};

/// An error answer.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    /// `iothub-errorcode`
    name: &'static str,
    message: String,
    envelope: Envelope,
    /// What the caller could have known, beside the envelope; no hub has that.
    help: Option<Box<Value>>,
}

/// The form of the body.
#[derive(Debug)]
enum Envelope {
    /// Envelope 1.
    Plain,
    /// Envelope 2 with this number, alone.
    Coded(u32),
    /// Envelope 1 around an envelope 2 with this number.
    Nested(u32),
}

impl HttpError {
    pub(super) fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            name,
            message: message.into(),
            envelope: Envelope::Plain,
            help: None,
        }
    }

    /// Explains itself, in a member of its own.
    pub(super) fn with_help(self, help: Value) -> Self {
        Self {
            help: Some(Box::new(help)),
            ..self
        }
    }

    /// 400, 400004.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::from(Error {
            code: ErrorCode::ArgumentInvalid,
            message: message.into(),
        })
    }

    /// What stands in the body for people.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        Self {
            status: StatusCode::from_u16(error.code.status())
                .expect("the hub's numbers begin with an HTTP status"),
            name: error.code.name(),
            message: error.message,
            envelope: Envelope::of(error.code),
            help: None,
        }
    }
}

impl Envelope {
    /// Methods: captures; the module: azure-iot-sdk-csharp's `ErrorPayload2`; a blob's name: the stub
    /// service in the tests of Microsoft's next .NET SDK. Of other errors the form is not known.
    fn of(code: ErrorCode) -> Self {
        let is_nested = matches!(
            code,
            ErrorCode::DeviceNotOnline
                | ErrorCode::GatewayTimeout
                | ErrorCode::InvalidStorageEndpointOrBlob
        );
        if is_nested {
            Self::Nested(code.number())
        } else if code == ErrorCode::ModuleAlreadyExistsOnDevice {
            Self::Coded(code.number())
        } else {
            Self::Plain
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let now = SystemTime::now();
        let coded = |error_code, message| HubError {
            error_code,
            tracking_id: tracking_id(now),
            message,
            timestamp_utc: Timestamp::from(now).to_string(),
            info: Value::Null,
        };
        let mut body = match self.envelope {
            Envelope::Plain => json!({
                "Message": format!("ErrorCode:{};{}", self.name, self.message),
                "ExceptionMessage": format!("Tracking ID:{}", tracking_id(now)),
            }),
            Envelope::Coded(number) => json!(coded(number, self.message)),
            Envelope::Nested(number) => json!({
                "Message": json!(coded(number, self.message)).to_string(),
                "ExceptionMessage": "",
            }),
        };
        if let Some(help) = self.help {
            body["help"] = *help;
        }
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

/// A refusal may come before the body is read, and then the connection ends with it. A client that is not told so sends
/// its next request into a connection that closes. HTTP/2 ends the stream alone, and says so itself.
pub(crate) async fn close_after_refusal(request: Request, next: Next) -> Response {
    let may_be_unread = request.version() <= Version::HTTP_11 && !request.body().is_end_stream();
    let mut response = next.run(request).await;
    if may_be_unread && response.status().is_client_error() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
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

pub(crate) fn guid() -> String {
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
