//! Bodies of the inbox: everything that waits for a device, of every kind, in one list.

use std::collections::BTreeMap;

use iothub::{AckRequest, CloudMessage, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Encoding, ItemResult, SystemProperties, method::WaitingMethod, twin::Properties};

/// What waits for a device. Reading does not consume: an entry is shown until it is settled, answered or over.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Inbox {
    /// The entries, oldest first.
    pub entries: Vec<Entry>,
    /// Whether the list is known to be all there is. False right after the session was opened, when the hub may still
    /// hold messages back; the header `Tombolo-Inbox: partial` says the same.
    pub complete: bool,
}

/// Something that waits for a device.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Entry {
    /// A cloud-to-device message, to be settled.
    Message(WaitingMessage),
    /// A direct method, to be answered.
    Method(WaitingMethod),
    /// Desired properties that changed.
    Desired(ChangedDesired),
}

/// A cloud-to-device message that waits to be settled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WaitingMessage {
    /// Names the message when it is settled. Good until it is settled, has expired or was taken back.
    pub token: String,
    /// Running number, where the gateway knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// How often the message was abandoned before.
    pub delivery_count: u32,
    /// When the gateway got the message.
    #[schema(value_type = String, format = DateTime)]
    pub received_at: Timestamp,
    /// When the message lapses, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Feedback that the sender asked for: `positive`, `negative` or `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<String>,
    /// Application properties. Of a name that stands twice the last counts.
    pub properties: BTreeMap<String, String>,
    /// System properties.
    pub system: SystemProperties,
    /// The body.
    pub body: String,
    /// How `body` stands for bytes: text if they are UTF-8, base64 if not.
    pub encoding: Encoding,
}

/// Desired properties that changed since the device read them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChangedDesired {
    /// Their version.
    pub version: u64,
    /// All desired properties, not the change alone.
    pub properties: Properties,
}

/// What a device does with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is done; the message is gone.
    Complete,
    /// Not yet: the message is shown again, with a delivery count that is one higher.
    Abandon,
    /// Never: the message becomes a dead letter.
    Reject,
}

/// One settlement of `POST .../inbox/settle`, whose body is a list of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    /// The message's token.
    pub token: String,
    /// What to do with the message.
    pub outcome: Outcome,
}

/// The answer to a list of settlements.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SettleAnswer {
    /// One result for each settlement, in the order of the request.
    pub results: Vec<SettleResult>,
}

/// How one settlement went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SettleResult {
    /// The message's token.
    pub token: String,
    /// How it went: 204, or 412 with `lock_lost`.
    #[serde(flatten)]
    pub result: ItemResult,
}

impl WaitingMessage {
    /// Shows a message.
    #[must_use]
    pub fn new(
        token: impl Into<String>,
        message: &CloudMessage,
        delivery_count: u32,
        received_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Self {
        let (body, encoding) = Encoding::encode(&message.payload);
        Self {
            token: token.into(),
            sequence: None,
            delivery_count,
            received_at,
            expires_at,
            ack: match message.ack {
                AckRequest::None => None,
                ack @ (AckRequest::Positive | AckRequest::Negative | AckRequest::Full) => {
                    Some(ack.as_str().to_owned())
                }
            },
            properties: message.properties.iter().cloned().collect(),
            system: message.system.clone().into(),
            body,
            encoding,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_of_every_kind_stand_in_one_list() {
        let message = CloudMessage {
            system: iothub::SystemProperties {
                message_id: Some("m-1".to_owned()),
                ..Default::default()
            },
            ack: AckRequest::Full,
            properties: vec![("level".to_owned(), "2".to_owned())],
            payload: "{\"hello\":1}".into(),
        };
        let at = Timestamp::from_unix_seconds(1_767_225_600);
        let inbox = Inbox {
            entries: vec![
                Entry::Message(WaitingMessage::new("t-1", &message, 0, at, Some(at))),
                Entry::Desired(ChangedDesired {
                    version: 8,
                    properties: Properties(
                        serde_json::from_str(r#"{"interval_s":5,"$version":8}"#).unwrap(),
                    ),
                }),
            ],
            complete: false,
        };
        let shown = json!({
            "entries": [
                {
                    "kind": "message", "token": "t-1", "delivery_count": 0,
                    "received_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:00:00Z", "ack": "full",
                    "properties": {"level": "2"}, "system": {"message_id": "m-1"},
                    "body": "{\"hello\":1}", "encoding": "utf-8",
                },
                {"kind": "desired", "version": 8, "properties": {"interval_s": 5, "$version": 8}},
            ],
            "complete": false,
        });
        assert_eq!(serde_json::to_value(&inbox).unwrap(), shown);
        assert_eq!(serde_json::from_value::<Inbox>(shown).unwrap(), inbox);
    }

    #[test]
    fn a_settlement_is_read_strictly_and_answered_flat() {
        let settle: Vec<Settle> =
            serde_json::from_str(r#"[{"token":"t","outcome":"abandon"}]"#).unwrap();
        assert_eq!(settle[0].outcome, Outcome::Abandon);
        for bad in [
            r#"{"token":"t","outcome":"ack"}"#,
            r#"{"token":"t"}"#,
            r#"{"token":"t","outcome":"reject","x":1}"#,
        ] {
            assert!(serde_json::from_str::<Settle>(bad).is_err(), "{bad}");
        }
        let result = SettleResult {
            token: "t".to_owned(),
            result: ItemResult::delivered(crate::Delivery::Hub),
        };
        assert_eq!(
            serde_json::to_value(result).unwrap(),
            json!({"token": "t", "status": 204, "delivery": "hub"})
        );
    }
}
