//! Bodies of direct methods.

use bytes::Bytes;
use iothub::{MethodRequest, MethodResponse, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// The direct methods that wait for an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WaitingMethods {
    /// The methods, oldest first. Each is shown until it is answered or over.
    pub methods: Vec<WaitingMethod>,
}

/// A direct method that waits for an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WaitingMethod {
    /// Names the call when it is answered. Good only while the connection lasts on which the call came.
    pub request_id: String,
    /// Which method.
    pub name: String,
    /// What the caller sent; `null` if it sent nothing.
    #[schema(value_type = Value)]
    pub payload: Value,
    /// When the call is over: an answer after that is 410.
    #[schema(value_type = String, format = DateTime)]
    pub deadline: Timestamp,
    /// The same as milliseconds from now, for clients whose clock is wrong.
    pub expires_in_ms: u64,
}

/// The answer to a direct method.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MethodAnswer {
    /// How it went: a number of the device's own, most often an HTTP status.
    pub status: i32,
    /// What the caller gets; nothing at all if it is missing or `null`.
    #[serde(default)]
    #[schema(value_type = Value)]
    pub payload: Value,
}

impl WaitingMethod {
    /// Shows a call. A payload that is no JSON, which IoT Hub never sends, is shown as text.
    #[must_use]
    pub fn new(
        request_id: impl Into<String>,
        request: &MethodRequest,
        deadline: Timestamp,
        now: Timestamp,
    ) -> Self {
        let payload = match &request.payload[..] {
            [] => Value::Null,
            bytes => serde_json::from_slice(bytes)
                .unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into()),
        };
        let left = deadline.saturating_since(now);
        Self {
            request_id: request_id.into(),
            name: request.name.to_string(),
            payload,
            deadline,
            expires_in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl From<MethodAnswer> for MethodResponse {
    fn from(answer: MethodAnswer) -> Self {
        let payload = if answer.payload.is_null() {
            Bytes::new()
        } else {
            answer.payload.to_string().into()
        };
        Self {
            status: answer.status,
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_shown_with_the_time_that_is_left() {
        let request = |payload: &'static [u8]| MethodRequest {
            name: "reboot".parse().unwrap(),
            payload: Bytes::from_static(payload),
        };
        let now = Timestamp::from_unix_seconds(1_767_225_600);
        let deadline = Timestamp::from_unix_seconds(1_767_225_630);
        let shown = WaitingMethod::new("3.1f", &request(br#"{"delay":5}"#), deadline, now);
        assert_eq!(
            serde_json::to_value(shown).unwrap(),
            json!({
                "request_id": "3.1f", "name": "reboot", "payload": {"delay": 5},
                "deadline": "2026-01-01T00:00:30Z", "expires_in_ms": 30_000,
            })
        );
        let payload = |bytes| WaitingMethod::new("r", &request(bytes), deadline, now).payload;
        assert_eq!(payload(b""), Value::Null);
        assert_eq!(payload(b"no json"), json!("no json"));
        assert_eq!(
            WaitingMethod::new("r", &request(b""), now, deadline).expires_in_ms,
            0
        );
    }

    #[test]
    fn an_answer_carries_json_or_nothing() {
        let response =
            |text| MethodResponse::from(serde_json::from_str::<MethodAnswer>(text).unwrap());
        assert_eq!(
            response(r#"{"status":200,"payload":{"ok":true}}"#).payload,
            r#"{"ok":true}"#
        );
        assert_eq!(response(r#"{"status":-7}"#).status, -7);
        assert!(
            response(r#"{"status":200,"payload":null}"#)
                .payload
                .is_empty()
        );
        assert!(serde_json::from_str::<MethodAnswer>(r#"{"status":200,"body":1}"#).is_err());
    }
}
