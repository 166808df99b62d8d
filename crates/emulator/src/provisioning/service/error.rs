//! Why the service refuses a request.
//!
//! Microsoft publishes statuses ("Diagnose and troubleshoot disconnects with Azure IoT Hub DPS") and few numbers. 401002
//! stands in the traces of several SDK issues (azure-iot-sdk-node 721), 404201 in azure-docs issue 57082; where none is
//! known the number is the status times 1,000, a form that has been seen as well (401000, azure-docs issue 43157).

use iothub::Timestamp;
use serde_json::{Value, json};

/// A refused request: what kind it is, a text for people, and when to come again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.number())]
pub struct Error {
    /// Decides the status.
    pub code: Code,
    /// Stands in the body.
    pub message: String,
    /// Seconds to wait, if waiting helps.
    pub retry_after_s: Option<u32>,
}

/// What kind of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request cannot be parsed, or breaks a rule.
    BadFormat,
    /// The credential cannot be validated, or there is no enrollment that takes it.
    Unauthorized,
    /// There is no such individual enrollment.
    EnrollmentNotFound,
    /// There is no such group, registration or operation.
    NotFound,
    /// It exists.
    Conflict,
    /// The entity tag is another one.
    PreconditionFailed,
    /// A message, or the service itself, is larger than it may be.
    TooLarge,
    /// Too many requests.
    Throttled,
    /// A hub did not take the device.
    HubFailed,
}

impl Code {
    /// The status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadFormat => 400,
            Self::Unauthorized => 401,
            Self::EnrollmentNotFound | Self::NotFound => 404,
            Self::Conflict => 409,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::Throttled => 429,
            Self::HubFailed => 500,
        }
    }

    /// `errorCode`.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::BadFormat => 400_000,
            Self::Unauthorized => 401_002,
            Self::EnrollmentNotFound => 404_201,
            Self::NotFound => 404_000,
            Self::Conflict => 409_000,
            Self::PreconditionFailed => 412_000,
            Self::TooLarge => 413_000,
            Self::Throttled => 429_000,
            Self::HubFailed => 500_000,
        }
    }

    /// `errorStatus` in the answer to a bulk operation.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::BadFormat => "Bad format",
            Self::Unauthorized => "Unauthorized",
            Self::EnrollmentNotFound | Self::NotFound => "Not found",
            Self::Conflict => "Conflict",
            Self::PreconditionFailed => "Precondition failed",
            Self::TooLarge => "Payload too large",
            Self::Throttled => "Too many requests",
            Self::HubFailed => "Internal error",
        }
    }
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_s: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::BadFormat, message)
    }

    /// One text for all that is wrong with a token, seen in azure-iot-sdk-node's issue 721.
    pub(super) fn unauthorized() -> Self {
        Self::new(Code::Unauthorized, "Unauthorized")
    }

    /// The text for all that is wrong with a certificate: Embedded C's header shows it.
    pub(super) fn invalid_certificate() -> Self {
        Self::new(Code::Unauthorized, "Invalid certificate.")
    }

    pub(super) fn throttled(message: impl Into<String>, retry_after_s: u32) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(Code::Throttled, message)
        }
    }
}

/// The body of an error answer. `tracking_id` is a GUID, unlike a hub's (traces in azure-iot-sdk-csharp's issues).
pub(crate) fn error_body(number: u32, message: &str, tracking_id: &str, now: Timestamp) -> Value {
    json!({
        "errorCode": number,
        "trackingId": tracking_id,
        "message": message,
        "timestampUtc": now,
    })
}
