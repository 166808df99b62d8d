//! System properties inside a JSON document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Properties of a message that IoT Hub gives a meaning.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemProperties {
    /// The message's name, unique for its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub message_id: Option<String>,
    /// The name of the message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Who caused the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Where the message goes, in IoT Hub's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Media type of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Character set of the body: `utf-8`, `utf-16` or `utf-32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// When the message expires, in its sender's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<String>,
    /// When the message was made, in its sender's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<String>,
    /// System properties without a member of their own, by their name on MQTT without `$.`: `sub`, `ifid`, `on` ...
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, String>,
}

impl From<iothub::SystemProperties> for SystemProperties {
    fn from(system: iothub::SystemProperties) -> Self {
        Self {
            message_id: system.message_id,
            correlation_id: system.correlation_id,
            user_id: system.user_id,
            to: system.to,
            content_type: system.content_type,
            content_encoding: system.content_encoding,
            expiry: system.expiry,
            creation_time: system.creation_time,
            others: system.others.into_iter().collect(),
        }
    }
}

impl From<SystemProperties> for iothub::SystemProperties {
    fn from(system: SystemProperties) -> Self {
        Self {
            message_id: system.message_id,
            correlation_id: system.correlation_id,
            user_id: system.user_id,
            to: system.to,
            content_type: system.content_type,
            content_encoding: system.content_encoding,
            expiry: system.expiry,
            creation_time: system.creation_time,
            others: system.others.into_iter().collect(),
        }
    }
}
