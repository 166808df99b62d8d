//! Why the hub refuses an operation.

use iothub::{DeviceId, ErrorCode, HubError, ModuleId};

use super::{Hub, Now};

/// A refused operation: the hub's code, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Error {
    /// Decides the HTTP status and the header `iothub-errorcode`.
    pub code: ErrorCode,
    /// Stands in the body.
    pub message: String,
}

/// The condition of a request header `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: whatever is there.
    Any,
    /// Only this version.
    Etag(String),
}

impl Error {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// `ErrorCode:DeviceNotFound;{deviceId}` (live hub). The Node SDK tells by this text that a device is missing.
    pub(super) fn device_not_found(device: &DeviceId) -> Self {
        Self::new(ErrorCode::DeviceNotFound, device.to_string())
    }

    pub(super) fn module_not_found(device: &DeviceId, module: &ModuleId) -> Self {
        Self::new(
            ErrorCode::ModuleNotFound,
            format!("Device {device} has no module {module}."),
        )
    }
}

impl IfMatch {
    /// Reads the header: `*`, or an entity tag with or without quotes (both are seen on a live hub).
    #[must_use]
    pub fn parse(header: &str) -> Self {
        match header.trim().trim_matches('"') {
            "*" => Self::Any,
            etag => Self::Etag(etag.to_owned()),
        }
    }

    /// # Errors
    ///
    /// `etag` is another one.
    pub(super) fn check(&self, etag: &str) -> Result<(), Error> {
        match self {
            Self::Etag(wanted) if wanted != etag => Err(Error::new(
                ErrorCode::PreconditionFailed,
                "PreconditionFailed, ETag may be invalid.",
            )),
            Self::Any | Self::Etag(_) => Ok(()),
        }
    }
}

impl Hub {
    /// The JSON body of an error on MQTT, and the inner one of some errors on HTTPS.
    pub(super) fn error_body(&mut self, number: u32, message: &str, now: Now) -> HubError {
        HubError {
            error_code: number,
            // The form since 2025 (live hub, 2026): "{32 hex}-G2:-TimeStamp:{time}".
            tracking_id: format!("{}-G2:-TimeStamp:{}", self.random.hex(), now.utc),
            message: message.to_owned(),
            timestamp_utc: now.utc.to_string(),
            info: serde_json::Value::Null,
        }
    }
}
