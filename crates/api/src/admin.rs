//! What operators are shown of the store: what waits, what was given up, what a start found.
//!
//! The admin API answers with these bodies, and `tombolo store export` writes lines of them.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use iothub::{CloudMessage, DeviceId, HubName, Identity, ModuleId, Telemetry, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{ItemResult, SystemProperties};

/// A device or module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Address {
    /// The hub that has it.
    pub hub: HubName,
    /// The device.
    pub device: DeviceId,
    /// The module, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleId>,
}

/// One of the two queues, named as the gateway sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What devices send to the hub.
    Outbox,
    /// What the hub sends to devices.
    Inbox,
}

/// What something that is kept is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A telemetry message.
    Telemetry,
    /// A patch of reported properties.
    Reported,
    /// A cloud-to-device message.
    Message,
}

/// Something that is kept: it waits, or it is a dead letter.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Whose it is.
    #[serde(flatten)]
    pub of: Address,
    /// Which queue has it.
    #[serde(rename = "box")]
    pub side: Side,
    /// Its number in this queue of this device.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// When the gateway took it.
    pub received_at: Timestamp,
    /// When it ends, of a message that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How often it was on its way to the hub; not there if a restart has forgotten it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How often its device has abandoned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_count: Option<u32>,
    /// Its sender's name for it, of a cloud-to-device message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The receipt that its device has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Its bytes, as the bounds count them.
    pub bytes: u64,
    /// Why it was given up; not there of what waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<Dead>,
    /// What it says, where that is asked for and can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

/// Why something was given up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dead {
    /// For programs: of the inbox in the words of IoT Hub's feedback.
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Since when.
    pub at: Timestamp,
}

/// What something says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Content {
    /// The body in base64; of reported properties the patch.
    pub payload: String,
    /// Application properties. Of a name that stands twice the last counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// System properties.
    #[serde(default)]
    pub system: SystemProperties,
}

/// A part of a list of dead letters.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeadLetters {
    /// The dead letters; the oldest of a device first.
    pub dead_letters: Vec<Kept>,
    /// What `after` asks for to get the rest; `null` if there is none.
    pub next: Option<String>,
}

/// What became of the dead letters of a device that were to be replayed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replayed {
    /// One result for each, the oldest first.
    pub results: Vec<ReplayResult>,
    /// Whether there are dead letters that were not tried.
    pub more: bool,
}

/// What became of one dead letter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplayResult {
    /// Its number.
    pub id: u64,
    /// 202 if it waits again.
    #[serde(flatten)]
    pub result: ItemResult,
}

/// What one device, or all together, have in one of the queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stock {
    /// How many wait.
    pub waiting: u64,
    /// Their bytes, as the bounds count them.
    pub bytes: u64,
    /// When the oldest of those came that are the next of their device.
    pub oldest: Option<Timestamp>,
    /// Dead letters.
    pub dead_letters: u64,
}

/// What there is of a device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceStock {
    /// The device.
    #[serde(flatten)]
    pub of: Address,
    /// Towards the hub.
    pub outbox: Stock,
    /// Towards the device.
    pub inbox: Stock,
}

/// A part of a list of devices.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceStocks {
    /// The devices.
    pub devices: Vec<DeviceStock>,
    /// What `after` asks for to get the rest; `null` if there is none.
    pub next: Option<String>,
}

/// What there is of all devices, and what it is kept on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Store {
    /// Towards the hub.
    pub outbox: Stock,
    /// Towards the devices.
    pub inbox: Stock,
    /// The disk; `null` if nothing survives a restart.
    pub disk: Option<Disk>,
}

/// What the store has on its disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes of its log.
    pub bytes: u64,
    /// Bytes that it may have.
    pub bytes_at_most: u64,
    /// What the last start found.
    pub recovery: Recovery,
}

/// What a start found on the disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recovery {
    /// When.
    pub at: Timestamp,
    /// How many milliseconds it took.
    pub took_ms: u64,
    /// Entries of the outbox that waited.
    pub entries: u64,
    /// When the oldest of them was submitted.
    pub oldest: Option<Timestamp>,
    /// How many seconds that was before the start.
    pub age_of_oldest_s: Option<u64>,
    /// Messages of the inbox that waited.
    pub messages: u64,
    /// Dead letters of both.
    pub dead_letters: u64,
    /// Receipts and keys that are remembered.
    pub receipts_and_keys: u64,
    /// Files of the log.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was cut off at the end: a crash had torn it before anybody was told of it.
    pub torn: Option<Damage>,
    /// Entries of the mark that could not be read; the log itself was whole.
    pub damaged_marks: u64,
}

/// A part of a file that could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Damage {
    /// Which file.
    pub file: String,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What is wrong with them.
    pub what: String,
}

impl Side {
    /// The word in paths and bodies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::Inbox => "inbox",
        }
    }

    /// The side of this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::Outbox, Self::Inbox]
            .into_iter()
            .find(|side| side.as_str() == word)
    }
}

impl From<&Identity> for Address {
    fn from(identity: &Identity) -> Self {
        Self {
            hub: identity.hub().clone(),
            device: identity.device_id().clone(),
            module: identity.module_id().cloned(),
        }
    }
}

impl From<&Telemetry> for Content {
    fn from(telemetry: &Telemetry) -> Self {
        Self {
            payload: BASE64.encode(&telemetry.payload),
            properties: telemetry.properties.iter().cloned().collect(),
            system: telemetry.system.clone().into(),
        }
    }
}

impl From<&CloudMessage> for Content {
    fn from(message: &CloudMessage) -> Self {
        Self {
            payload: BASE64.encode(&message.payload),
            properties: message.properties.iter().cloned().collect(),
            system: message.system.clone().into(),
        }
    }
}

impl Content {
    /// A patch of reported properties, as JSON.
    #[must_use]
    pub fn of_patch(json: &[u8]) -> Self {
        Self {
            payload: BASE64.encode(json),
            properties: BTreeMap::new(),
            system: SystemProperties::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_has_one_form_alive_and_dead() {
        let at = Timestamp::from_unix_seconds(0);
        let message = CloudMessage {
            payload: vec![0xff].into(),
            ..CloudMessage::default()
        };
        let waits = Kept {
            of: Address {
                hub: "hub.example".parse().unwrap(),
                device: "dev1".parse().unwrap(),
                module: None,
            },
            side: Side::Inbox,
            id: 7,
            kind: Kind::Message,
            received_at: at,
            expires_at: None,
            attempts: None,
            delivery_count: Some(1),
            message_id: None,
            receipt: None,
            bytes: 1,
            dead: None,
            content: Some(Content::from(&message)),
        };
        let mut shown = json!({
            "hub": "hub.example", "device": "dev1", "box": "inbox", "id": 7, "kind": "message",
            "received_at": "1970-01-01T00:00:00Z", "delivery_count": 1, "bytes": 1,
            "content": {"payload": "/w==", "system": {}},
        });
        assert_eq!(serde_json::to_value(&waits).unwrap(), shown);
        let dead = Kept {
            dead: Some(Dead {
                reason: "Rejected".to_owned(),
                detail: None,
                at,
            }),
            ..waits
        };
        shown["dead"] = json!({"reason": "Rejected", "at": "1970-01-01T00:00:00Z"});
        assert_eq!(serde_json::to_value(&dead).unwrap(), shown);
        assert_eq!(serde_json::from_value::<Kept>(shown).unwrap(), dead);
    }

    #[test]
    fn a_side_has_one_name() {
        for side in [Side::Outbox, Side::Inbox] {
            assert_eq!(Side::named(side.as_str()), Some(side));
            assert_eq!(json!(side), json!(side.as_str()));
        }
        assert_eq!(Side::named("Outbox"), None);
    }
}
