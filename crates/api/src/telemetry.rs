//! Bodies of `POST .../messages/events`.
//!
//! A single message is its body, byte by byte, with its properties in headers. Two media types make the body a batch.

use std::collections::BTreeMap;

use iothub::Telemetry;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Encoding, ItemResult, NotBase64, SystemProperties};

/// IoT Hub's own batch: all messages or none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct HubBatch(pub Vec<HubBatchItem>);

/// One message of a [`HubBatch`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HubBatchItem {
    /// The body, in base64 unless `base64Encoded` is false.
    pub body: String,
    /// Whether `body` is base64; true if it is not there.
    #[serde(default = "base64_encoded")]
    pub base64_encoded: bool,
    /// Properties by the names that they have as headers: `iothub-app-{name}`, `iothub-messageid` ...
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// One message of a batch with a result per item, and of a sync.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The body.
    pub body: String,
    /// How `body` stands for bytes.
    #[serde(default)]
    pub encoding: Encoding,
    /// Application properties.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// System properties.
    #[serde(default, deserialize_with = "crate::object::object")]
    pub system: SystemProperties,
}

/// The answer to a batch with a result per item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BatchAnswer {
    /// One result for each message, in the order of the request.
    pub results: Vec<ItemResult>,
}

impl TryFrom<Item> for Telemetry {
    type Error = NotBase64;

    fn try_from(item: Item) -> Result<Self, NotBase64> {
        Ok(Self {
            payload: item.encoding.decode(item.body)?,
            system: item.system.into(),
            properties: item.properties.into_iter().collect(),
        })
    }
}

const fn base64_encoded() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_batches_of_microsofts_clients() {
        // As Azure's Node SDK was seen to send it, and as the C and Java SDKs write it.
        let batch: HubBatch = serde_json::from_str(
            r#"[{"body":"eyJ0IjoxfQ==","properties":{"iothub-app-zeta":"a b","iothub-app-alpha1":"x=y&z"}},{"body":"YjI="},
                {"body":"plain text","base64Encoded":false,"properties":{}},
                {"body":"YjI=","base64Encoded":true,"properties":{"iothub-messageid":"m"}}]"#,
        )
        .unwrap();
        let is_base64: Vec<bool> = batch.0.iter().map(|item| item.base64_encoded).collect();
        assert_eq!(is_base64, [true, true, false, true]);
        assert_eq!(batch.0[0].properties["iothub-app-alpha1"], "x=y&z");
    }

    #[test]
    fn an_item_becomes_a_message() {
        let item: Item = serde_json::from_str(
            r#"{"body":"/wA=","encoding":"base64","properties":{"a":"1"},"system":{"message_id":"m"}}"#,
        )
        .unwrap();
        let message = Telemetry::try_from(item).unwrap();
        assert_eq!(&message.payload[..], [0xff, 0]);
        assert_eq!(message.system.message_id.as_deref(), Some("m"));
        assert_eq!(message.properties, [("a".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn a_misspelt_member_is_refused() {
        assert!(serde_json::from_str::<Item>(r#"{"body":"x","propertys":{}}"#).is_err());
    }
}
