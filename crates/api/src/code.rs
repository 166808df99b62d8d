//! The codes of our errors: part of the API's contract, each with a page in `docs/errors`.

use iothub::ErrorCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! codes {
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $status:literal, $title:literal, $retry:ident $(($after_s:literal))?, $hub:ident;)*) => {
        /// What went wrong, for programs. Texts of an error may change, a code never changes its meaning.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Code {
            $(#[doc = $doc] $name,)*
        }

        impl Code {
            /// Every code, by status.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The text in [`Problem::code`](crate::Problem::code), which is also the name of the code's page.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// What went wrong, in a few words that are the same every time.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            const fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry $(($after_s))?,)* }
            }

            /// What IoT Hub calls it; where the hub has no such case, what makes the hub's clients do the right thing.
            #[must_use]
            pub const fn hub_error(self) -> ErrorCode {
                match self { $(Self::$name => ErrorCode::$hub,)* }
            }
        }
    };
}

enum Retry {
    /// The same request would fail again.
    Never,
    /// The same request may succeed at once.
    AtOnce,
    /// The same request may succeed after this many seconds, unless the answer knows better.
    After(u32),
}

codes! {
    /// The path, a header, the query or the body breaks a rule; the detail names it.
    InvalidRequest = "invalid_request", 400, "The request breaks a rule of the API.", Never, ArgumentInvalid;
    /// The credential is missing, unknown, expired or wrong.
    Unauthenticated = "unauthenticated", 401, "The credential is missing or not accepted.", Never, IotHubUnauthorizedAccess;
    /// The credential is good, but not for this device or this call.
    Forbidden = "forbidden", 403, "The credential does not allow this.", Never, IotHubUnauthorizedAccess;
    /// There is no such path, device, message or method.
    NotFound = "not_found", 404, "There is no such thing.", Never, DeviceNotFound;
    /// The path exists, the method does not; `Allow` lists those that do.
    MethodNotAllowed = "method_not_allowed", 405, "The path does not have this HTTP method.", Never, InvalidOperation;
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", 408, "The request did not arrive in time.", AtOnce, GenericTimeout;
    /// The direct method is over: answered, late, or its connection to the hub is gone.
    MethodGone = "method_gone", 410, "The direct method can no longer be answered.", Never, GatewayTimeout;
    /// The lock token is not, or no longer, the one of a waiting message.
    LockLost = "lock_lost", 412, "The lock on the message is gone.", Never, DeviceMessageLockLost;
    /// `If-Match` names another version than the one in force.
    VersionConflict = "version_conflict", 412, "The version has moved on.", Never, PreconditionFailed;
    /// The message or body is larger than IoT Hub takes.
    MessageTooLarge = "message_too_large", 413, "The request is larger than it may be.", Never, MessageTooLarge;
    /// The request is for a host name that this gateway does not serve.
    Misdirected = "misdirected", 421, "This gateway does not serve that host name.", AtOnce, InvalidOperation;
    /// The idempotency key was used before, with another request.
    KeyReused = "key_reused", 422, "The idempotency key belongs to another request.", Never, ArgumentInvalid;
    /// The device is over its quota, or IoT Hub throttles.
    Throttled = "throttled", 429, "Too many requests.", After(10), ThrottlingException;
    /// As many messages of the device as may wait for the hub do wait.
    OutboxFull = "outbox_full", 429, "The device's outbox is full.", After(60), GenericTooManyRequests;
    /// As many idempotency keys of the device as are kept are in use.
    TooManyKeys = "too_many_keys", 429, "The device has too many idempotency keys in use.", After(3600), GenericTooManyRequests;
    /// The headers of the request are too many or too large.
    HeadersTooLarge = "headers_too_large", 431, "The request has too many headers, or too large ones.", Never, ArgumentInvalid;
    /// A defect of the gateway.
    Internal = "internal", 500, "The gateway failed.", After(5), ServerError;
    /// The call is part of the API, but not served by this version.
    NotImplemented = "not_implemented", 501, "This version does not serve the call yet.", Never, InvalidOperation;
    /// IoT Hub refuses the credential that the gateway holds for the device.
    HubRefused = "hub_refused", 502, "IoT Hub refuses the gateway's credential for the device.", After(300), ServerError;
    /// The gateway has as much to do as it may have.
    Overloaded = "overloaded", 503, "The gateway is overloaded.", After(5), ServiceUnavailable;
    /// IoT Hub cannot be reached, and the answer needs it.
    HubUnavailable = "hub_unavailable", 503, "IoT Hub cannot be reached.", After(10), ServiceUnavailable;
    /// The gateway is about to stop.
    Stopping = "stopping", 503, "The gateway is stopping.", After(2), ServiceUnavailable;
    /// IoT Hub did not answer in time; what it did with the request is not known.
    HubTimeout = "hub_timeout", 504, "IoT Hub did not answer in time.", After(5), GenericTimeout;
    /// The gateway's disk is full.
    StorageFull = "storage_full", 507, "The gateway's storage is full.", After(300), ServiceUnavailable;
}

impl Code {
    /// Whether the same request, unchanged, may succeed later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self.retry() {
            Retry::Never => false,
            Retry::AtOnce | Retry::After(_) => true,
        }
    }

    /// Seconds to wait before that, where nothing better is known.
    #[must_use]
    pub const fn retry_after_s(self) -> Option<u32> {
        match self.retry() {
            Retry::Never => None,
            Retry::AtOnce => Some(0),
            Retry::After(seconds) => Some(seconds),
        }
    }

    /// The page that explains the code: what happened, what to do, whether a retry is safe.
    #[must_use]
    pub fn page(self) -> String {
        format!("{PAGES}{}.md", self.as_str())
    }
}

const PAGES: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/errors/");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_one_spelling() {
        for code in Code::ALL {
            assert_eq!(
                serde_json::to_value(code).unwrap(),
                serde_json::json!(code.as_str())
            );
        }
    }

    #[test]
    fn a_status_that_asks_to_come_back_says_when() {
        for code in Code::ALL {
            if matches!(code.status(), 429 | 503 | 507) {
                assert!(code.retry_after_s() > Some(0), "{code:?}");
            }
        }
    }
}
