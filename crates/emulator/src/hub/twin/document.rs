//! The twin document as the service reads it, and attribute by attribute as a query does.
//!
//! A query looks at a few attributes of every device: what it looks at is borrowed, not copied.

use std::borrow::Cow;

use iothub::{DeviceId, ModuleId, Timestamp, twin::Section};
use serde_json::{Map, Value, json};

use super::{Metadata, NEVER, TwinRecord};
use crate::hub::{
    Hub,
    query::Row,
    registry::{Device, Module},
};

/// A twin with its identity.
pub(in crate::hub) struct Document<'a> {
    /// All but tags and properties.
    head: Map<String, Value>,
    twin: &'a TwinRecord,
}

impl Hub {
    /// The document of a device, or of a module of it.
    pub(in crate::hub) fn document<'a>(
        &'a self,
        id: &DeviceId,
        device: &'a Device,
        module: Option<(&ModuleId, &'a Module)>,
    ) -> Document<'a> {
        let record = module.map_or(&device.record, |(_, module)| &module.record);
        let twin = &record.twin;
        let time = |at: Option<Timestamp>| at.map_or_else(|| NEVER.to_owned(), |at| at.to_string());
        let mut head = Map::new();
        let mut set = |name: &str, value: Value| head.insert(name.to_owned(), value);
        set("deviceId", json!(id));
        if let Some((module_id, _)) = module {
            set("moduleId", json!(module_id));
        }
        set("etag", twin.etag().into());
        set("deviceEtag", json!(record.etag));
        set("status", device.status.as_str().into());
        set("statusReason", json!(device.status_reason));
        set("statusUpdateTime", time(device.status_updated_at).into());
        let is_connected = record.connection.is_some();
        let state = if is_connected {
            "Connected"
        } else {
            "Disconnected"
        };
        set("connectionState", state.into());
        set("lastActivityTime", time(self.last_activity(record)).into());
        let messages = if module.is_none() {
            device.queue.len()
        } else {
            0
        };
        set("cloudToDeviceMessageCount", messages.into());
        set("authenticationType", record.authentication.kind().into());
        let thumbprints = record.authentication.thumbprints_to_json();
        set("x509Thumbprint", thumbprints);
        set("modelId", json!(twin.model_id));
        set("version", twin.version.into());
        if module.is_none() {
            set("capabilities", json!({ "iotEdge": false }));
        }
        Document { head, twin }
    }
}

impl Row for Document<'_> {
    /// The hub's own names have no case, as in the examples of its documentation (`DeviceID`); the twin's have.
    fn get(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let (first, rest) = path.split_first()?;
        if first.eq_ignore_ascii_case("tags") {
            return inside(&self.twin.tags, rest);
        }
        if !first.eq_ignore_ascii_case("properties") {
            let mut members = self.head.iter();
            let (_, value) = members.find(|(name, _)| name.eq_ignore_ascii_case(first))?;
            return below(value, rest).map(Cow::Borrowed);
        }
        let Some((name, rest)) = rest.split_first() else {
            return Some(Cow::Owned(self.properties()));
        };
        let (section, metadata) = if name.eq_ignore_ascii_case("desired") {
            (&self.twin.desired, &self.twin.desired_metadata)
        } else if name.eq_ignore_ascii_case("reported") {
            (&self.twin.reported, &self.twin.reported_metadata)
        } else {
            return None;
        };
        match rest.split_first() {
            None => Some(Cow::Owned(shown(section, metadata))),
            Some((name, rest)) if name == "$version" => {
                let version = section.version.0;
                rest.is_empty().then(|| Cow::Owned(version.into()))
            }
            Some((name, rest)) if name == "$metadata" => {
                below(&metadata.to_json(), rest).cloned().map(Cow::Owned)
            }
            Some(_) => inside(&section.properties, rest),
        }
    }

    fn whole(&self) -> Value {
        let mut document = self.head.clone();
        document.insert("tags".to_owned(), self.twin.tags.clone().into());
        document.insert("properties".to_owned(), self.properties());
        document.into()
    }
}

impl Document<'_> {
    fn properties(&self) -> Value {
        json!({
            "desired": shown(&self.twin.desired, &self.twin.desired_metadata),
            "reported": shown(&self.twin.reported, &self.twin.reported_metadata),
        })
    }
}

fn shown(section: &Section, metadata: &Metadata) -> Value {
    let mut object = section.properties.clone();
    object.insert("$metadata".to_owned(), metadata.to_json());
    object.insert("$version".to_owned(), section.version.0.into());
    object.into()
}

fn inside<'a>(object: &'a Map<String, Value>, path: &[String]) -> Option<Cow<'a, Value>> {
    let Some((first, rest)) = path.split_first() else {
        return Some(Cow::Owned(object.clone().into()));
    };
    below(object.get(first)?, rest).map(Cow::Borrowed)
}

fn below<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter()
        .try_fold(value, |value, name| value.as_object()?.get(name))
}
