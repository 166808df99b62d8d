//! The one form of every error: RFC 9457, with what Azure's own clients read beside it.

use std::time::Duration;

use iothub::{ErrorCode, Timestamp};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, macros::format_description};
use utoipa::ToSchema;

use crate::Code;

/// The body of every answer with a status of 400 or more, as `application/problem+json`.
///
/// A client needs `code`, `retryable` and `retry_after_s`. From `errorCode` on, the members repeat the same in the two
/// envelopes that IoT Hub uses, for clients that were written for IoT Hub.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The page that explains the code.
    #[serde(rename = "type")]
    #[schema(format = "uri")]
    pub type_uri: String,
    /// What went wrong, in a few words that are the same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What went wrong this time, for the device's developer.
    pub detail: String,
    /// What went wrong, for programs.
    pub code: Code,
    /// Whether the same request, unchanged, may succeed later.
    pub retryable: bool,
    /// Seconds to wait before that; `null` if it is not retryable. The header `Retry-After` says the same.
    #[schema(required = true)]
    pub retry_after_s: Option<u32>,
    /// Names the request in the gateway's log. The header `x-ms-request-id` says the same.
    pub request_id: String,
    /// IoT Hub's number for it: HTTP status and a running number.
    #[serde(rename = "errorCode")]
    #[schema(minimum = 400_000, maximum = 599_999)]
    pub error_code: u32,
    /// The request's name in the form of IoT Hub.
    #[serde(rename = "trackingId")]
    pub tracking_id: String,
    /// The same as `detail`.
    pub message: String,
    /// When it went wrong.
    #[serde(rename = "timestampUtc")]
    #[schema(value_type = String, format = DateTime)]
    pub timestamp_utc: Timestamp,
    /// IoT Hub's name for it, and the detail.
    #[serde(rename = "Message")]
    pub hub_message: String,
    /// The tracking id once more.
    #[serde(rename = "ExceptionMessage")]
    pub exception_message: String,
}

impl Problem {
    /// A problem as its code describes it. `detail` is for the device's developer: no secret, no inner state.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>, request_id: &str, now: Timestamp) -> Self {
        let detail = detail.into();
        let tracking_id = format!("{request_id}-G:0-TimeStamp:{}", hub_time(now));
        let mut problem = Self {
            type_uri: code.page(),
            title: code.title().to_owned(),
            status: code.status(),
            message: detail.clone(),
            detail,
            code,
            retryable: code.is_retryable(),
            retry_after_s: code.retry_after_s(),
            request_id: request_id.to_owned(),
            error_code: 0,
            exception_message: format!("Tracking ID:{tracking_id}"),
            tracking_id,
            timestamp_utc: now,
            hub_message: String::new(),
        };
        problem.set_hub_error(code.hub_error());
        problem
    }

    /// Says when to come back, where more is known than the code's own time. Rounds up to whole seconds.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.retry_after_s = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        self
    }

    /// Says that the same request will fail again, where its code alone would let one hope.
    #[must_use]
    pub const fn without_retry(mut self) -> Self {
        self.retryable = false;
        self.retry_after_s = None;
        self
    }

    /// Names IoT Hub's own error, where the hub said one or has a sharper one than the code's.
    #[must_use]
    pub fn with_hub_error(mut self, error: ErrorCode) -> Self {
        self.set_hub_error(error);
        self
    }

    /// The value of the header `iothub-errorcode`.
    #[must_use]
    pub fn hub_error_name(&self) -> &'static str {
        ErrorCode::from_number(self.error_code)
            .unwrap_or_else(|| self.code.hub_error())
            .name()
    }

    fn set_hub_error(&mut self, error: ErrorCode) {
        self.error_code = error.number();
        self.hub_message = format!("ErrorCode:{};{}", error.name(), self.detail);
    }
}

/// The time in the older tracking ids, `10/15/2018 03:54:24`.
fn hub_time(now: Timestamp) -> String {
    OffsetDateTime::from_unix_timestamp(now.unix_seconds())
        .ok()
        .and_then(|time| {
            let form = format_description!("[month]/[day]/[year] [hour]:[minute]:[second]");
            time.format(&form).ok()
        })
        .unwrap_or_else(|| now.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05.678Z".parse().unwrap()
    }

    #[test]
    fn says_all_that_each_kind_of_client_reads() {
        let problem = Problem::new(
            Code::LockLost,
            "no message has this lock token",
            "r-1",
            now(),
        );
        assert_eq!(
            serde_json::to_value(&problem).unwrap(),
            json!({
                "type": "https://github.com/tombolo-gateway/tombolo/blob/main/docs/errors/lock_lost.md",
                "title": "The lock on the message is gone.",
                "status": 412,
                "detail": "no message has this lock token",
                "code": "lock_lost",
                "retryable": false,
                "retry_after_s": null,
                "request_id": "r-1",
                "errorCode": 412_002,
                "trackingId": "r-1-G:0-TimeStamp:01/02/2026 03:04:05",
                "message": "no message has this lock token",
                "timestampUtc": "2026-01-02T03:04:05.678Z",
                "Message": "ErrorCode:DeviceMessageLockLost;no message has this lock token",
                "ExceptionMessage": "Tracking ID:r-1-G:0-TimeStamp:01/02/2026 03:04:05",
            })
        );
        assert_eq!(problem.hub_error_name(), "DeviceMessageLockLost");
    }

    #[test]
    fn what_is_known_better_replaces_what_the_code_says() {
        let problem = Problem::new(Code::Throttled, "the hub's day is spent", "r-2", now())
            .with_retry_after(Duration::from_millis(1500))
            .with_hub_error(ErrorCode::IotHubQuotaExceeded);
        assert_eq!(problem.retry_after_s, Some(2));
        assert_eq!(problem.error_code, 403_002);
        assert_eq!(problem.hub_error_name(), "IotHubQuotaExceeded");
        assert_eq!(
            problem.hub_message,
            "ErrorCode:IotHubQuotaExceeded;the hub's day is spent"
        );
        let problem = Problem::new(Code::HubTimeout, "late", "r-3", now()).without_retry();
        assert_eq!((problem.retryable, problem.retry_after_s), (false, None));
    }
}
