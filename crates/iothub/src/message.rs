//! A message up ([`Telemetry`]) and a message down ([`CloudMessage`]).
//!
//! Both have the same two kinds of properties. On MQTT they share the topic's property bag, where a system
//! property's key starts with `$.`; on HTTPS they are headers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{PropertyBag, Timestamp};

/// Application properties: name and value, in the sender's order.
pub type Properties = Vec<(String, String)>;

/// System properties that IoT Hub gives a meaning ("Create and read IoT Hub messages").
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SystemProperties {
    /// `$.mid`, `iothub-messageid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// `$.cid`, `iothub-correlationid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// `$.uid`, `iothub-userid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// `$.to`, `iothub-to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// `$.ct`, `iothub-contenttype`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `$.ce`, `iothub-contentencoding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `$.exp`, `iothub-expiry`: absolute, in the sender's words; see [`CloudMessage::expires_at`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<String>,
    /// `$.ctime`, `iothub-creationtimeutc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<String>,
    /// System properties that no rule here speaks of (`$.on`, `$.sub`, `$.ifid`, `$.schema` ...), keys without `$.`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Properties,
}

/// One message from a device to the hub.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Telemetry {
    /// System properties.
    pub system: SystemProperties,
    /// Application properties.
    pub properties: Properties,
    /// The body; may be empty.
    pub payload: Bytes,
}

/// Which outcomes the sender of a cloud-to-device message wants to hear of.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckRequest {
    /// None.
    #[default]
    None,
    /// Completion.
    Positive,
    /// Dead-lettering.
    Negative,
    /// Both.
    Full,
}

/// One message from the cloud to a device.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct CloudMessage {
    /// System properties.
    pub system: SystemProperties,
    /// Feedback that the sender asked for (`iothub-ack`).
    pub ack: AckRequest,
    /// Application properties.
    pub properties: Properties,
    /// The body; may be empty.
    pub payload: Bytes,
}

impl Telemetry {
    /// Size as IoT Hub counts it, in bytes; at most [`limits::TELEMETRY_BYTES`](crate::limits::TELEMETRY_BYTES).
    #[must_use]
    pub fn size(&self) -> usize {
        self.payload.len() + self.system.size() + size_of_properties(&self.properties)
    }

    /// The property bag of the MQTT topic: system properties first.
    #[must_use]
    pub fn to_bag(&self) -> PropertyBag {
        let mut bag = self.system.to_bag();
        for (name, value) in &self.properties {
            bag.push(name, value);
        }
        bag
    }

    /// The message that a topic's bag and a payload make.
    #[must_use]
    pub fn from_bag(bag: &PropertyBag, payload: Bytes) -> Self {
        let (system, properties) = split_bag(bag);
        Self {
            system,
            properties,
            payload,
        }
    }
}

impl CloudMessage {
    /// Size as IoT Hub counts it, in bytes; at most [`limits::CLOUD_MESSAGE_BYTES`](crate::limits::CLOUD_MESSAGE_BYTES).
    #[must_use]
    pub fn size(&self) -> usize {
        self.payload.len() + self.system.size() + size_of_properties(&self.properties)
    }

    /// When the message expires, if its sender said so in a form that can be read.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.system
            .expiry
            .as_deref()
            .and_then(|text| text.parse().ok())
    }

    /// The property bag of the MQTT topic: system properties first, then `iothub-ack`, then the application's.
    #[must_use]
    pub fn to_bag(&self) -> PropertyBag {
        let mut bag = self.system.to_bag();
        if self.ack != AckRequest::None {
            bag.push(ACK, self.ack.as_str());
        }
        for (name, value) in &self.properties {
            bag.push(name, value);
        }
        bag
    }

    /// The message that a topic's bag and a payload make.
    #[must_use]
    pub fn from_bag(bag: &PropertyBag, payload: Bytes) -> Self {
        let (system, mut properties) = split_bag(bag);
        let mut ack = AckRequest::None;
        properties.retain(|(name, value)| {
            let is_ack = name == ACK;
            if is_ack {
                ack = AckRequest::parse(value).unwrap_or_default();
            }
            !is_ack
        });
        Self {
            system,
            ack,
            properties,
            payload,
        }
    }
}

impl AckRequest {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Full => "full",
        }
    }

    /// Reads the word, in any case (`Full` has been seen).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Positive, Self::Negative, Self::Full]
            .into_iter()
            .find(|ack| ack.as_str().eq_ignore_ascii_case(text))
    }
}

impl SystemProperties {
    fn named(&self) -> [(&'static str, &Option<String>); 8] {
        [
            ("to", &self.to),
            ("mid", &self.message_id),
            ("cid", &self.correlation_id),
            ("uid", &self.user_id),
            ("ct", &self.content_type),
            ("ce", &self.content_encoding),
            ("exp", &self.expiry),
            ("ctime", &self.creation_time),
        ]
    }

    /// Sum of the values' bytes: names of system properties do not count.
    fn size(&self) -> usize {
        let named = self
            .named()
            .iter()
            .filter_map(|(_, value)| value.as_ref())
            .map(String::len)
            .sum::<usize>();
        named
            + self
                .others
                .iter()
                .map(|(_, value)| value.len())
                .sum::<usize>()
    }

    fn to_bag(&self) -> PropertyBag {
        let mut bag = PropertyBag::new();
        for (key, value) in self.named() {
            if let Some(value) = value {
                bag.push(format!("$.{key}"), value);
            }
        }
        for (key, value) in &self.others {
            bag.push(format!("$.{key}"), value);
        }
        bag
    }

    fn set(&mut self, key: &str, value: String) {
        let place = match key {
            "to" => &mut self.to,
            "mid" => &mut self.message_id,
            "cid" => &mut self.correlation_id,
            "uid" => &mut self.user_id,
            "ct" => &mut self.content_type,
            "ce" => &mut self.content_encoding,
            "exp" => &mut self.expiry,
            "ctime" => &mut self.creation_time,
            other => return self.others.push((other.to_owned(), value)),
        };
        *place = Some(value);
    }
}

fn split_bag(bag: &PropertyBag) -> (SystemProperties, Properties) {
    let mut system = SystemProperties::default();
    let mut properties = Properties::new();
    for (key, value) in bag.iter() {
        match (key.strip_prefix("$."), value) {
            // A system property without a value is one that is not set: the hub has been seen to send `%24.cid`.
            (Some(_), None) => {}
            (Some(name), Some(value)) => system.set(name, value.to_owned()),
            (None, value) => {
                properties.push((key.to_owned(), value.unwrap_or_default().to_owned()))
            }
        }
    }
    (system, properties)
}

fn size_of_properties(properties: &Properties) -> usize {
    properties
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

/// Property by which the sender of a cloud-to-device message asks for feedback.
const ACK: &str = "iothub-ack";
