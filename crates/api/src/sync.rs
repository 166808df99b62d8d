//! Bodies of `POST .../sync`: one request that does everything.
//!
//! Shaped for one background download task with a body: the request may start hours after it was made and may arrive
//! more than once, and whoever reads the answer may have forgotten the request. So the answer stands alone.

use iothub::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    ItemResult,
    inbox::{Settle, SettleResult, WaitingMessage},
    limits,
    method::{MethodAnswer, WaitingMethod},
    telemetry::Item,
    twin::{Properties, ReportedPatch},
};

/// Everything that a device has to say, and what it wants to hear.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// The device's own name for this sync; comes back in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub request_id: Option<String>,
    /// Messages for the hub, at most 500.
    #[serde(default, deserialize_with = "crate::object::objects")]
    #[schema(max_items = 500)]
    pub telemetry: Vec<Item>,
    /// A merge patch for the reported properties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ReportedPatch>)]
    pub reported: Option<Map<String, Value>>,
    /// Answers to direct methods, at most 64.
    #[serde(default, deserialize_with = "crate::object::objects")]
    #[schema(max_items = 64)]
    pub answers: Vec<SyncMethodAnswer>,
    /// What to do with messages that were received.
    #[serde(default, deserialize_with = "crate::object::objects")]
    #[schema(max_items = 500)]
    pub settle: Vec<Settle>,
    /// The version of the desired properties that the device has, 0 for none. Left out by a device that does not want
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_version: Option<u64>,
    /// Most bytes of the answer. At least one message is returned all the same, and all results of what went up, if need be
    /// without their details.
    #[serde(default = "max_bytes")]
    #[schema(default = 16_384, minimum = 1024)]
    pub max_bytes: u32,
}

/// The answer to one direct method, inside a sync.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncMethodAnswer {
    /// Which call.
    pub request_id: String,
    /// How it went: a number of the device's own.
    pub status: i32,
    /// What the caller gets.
    #[serde(default)]
    #[schema(value_type = Value)]
    pub payload: Value,
}

/// How everything that went up fared, and everything that is known to wait. Of the up part of a repeated sync, what is final
/// is the same; the down part is what is true at that time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SyncAnswer {
    /// The request's own name for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// One result for each message, in the order of the request.
    pub telemetry: Vec<ItemResult>,
    /// How the reported properties fared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<SyncReported>,
    /// One result for each answer, in the order of the request.
    pub answers: Vec<ItemResult>,
    /// One result for each settlement, in the order of the request.
    pub settled: Vec<SettleResult>,
    /// Messages that wait to be settled, oldest first.
    pub messages: Vec<WaitingMessage>,
    /// Direct methods that wait to be answered, oldest first.
    pub methods: Vec<WaitingMethod>,
    /// The desired properties, if the device asked and has another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<SyncDesired>,
    /// Whether the down part is known to be all there is. False right after the session was opened.
    pub complete: bool,
    /// Whether messages are left that did not fit into `max_bytes`.
    pub more: bool,
    /// The gateway's time.
    #[schema(value_type = String, format = DateTime)]
    pub server_time: Timestamp,
    /// Seconds after which another sync is worth while.
    pub next_sync_after_s: u32,
}

/// How the reported properties of a sync fared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SyncReported {
    /// The version that the patch led to, if the hub has named one.
    #[serde(rename = "$version", default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// How it went.
    #[serde(flatten)]
    pub result: ItemResult,
}

/// Desired properties inside the answer to a sync.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SyncDesired {
    /// They do not fit into `max_bytes`: `GET .../twin/properties/desired` has them. No key of a property can start
    /// with `$`, so the two forms are told apart by `$too_large`.
    TooLarge(TooLarge),
    /// All of them.
    Whole(Properties),
}

/// Desired properties that did not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TooLarge {
    /// Their version.
    #[serde(rename = "$version")]
    pub version: u64,
    /// Their size as JSON, in bytes.
    #[serde(rename = "$too_large")]
    pub bytes: u64,
}

impl SyncMethodAnswer {
    /// The answer alone.
    #[must_use]
    pub fn into_answer(self) -> MethodAnswer {
        MethodAnswer {
            status: self.status,
            payload: self.payload,
        }
    }
}

const fn max_bytes() -> u32 {
    limits::SYNC_BYTES
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_sync_is_a_sync() {
        let request: SyncRequest = serde_json::from_str("{}").unwrap();
        assert_eq!(request.max_bytes, 16_384);
        assert_eq!(request.desired_version, None);
        assert!(request.telemetry.is_empty() && request.settle.is_empty());
        assert!(serde_json::from_str::<SyncRequest>(r#"{"telemetri":[]}"#).is_err());
    }

    #[test]
    fn properties_are_told_from_their_size() {
        let read = |value| serde_json::from_value::<SyncDesired>(value).unwrap();
        let whole = read(json!({"too_large": 4, "$version": 9}));
        assert!(matches!(whole, SyncDesired::Whole(_)));
        let too_large = read(json!({"$version": 9, "$too_large": 40_000}));
        assert_eq!(
            too_large,
            SyncDesired::TooLarge(TooLarge {
                version: 9,
                bytes: 40_000
            })
        );
    }
}
