//! The twin as the hub keeps it, and the service's operations on it ("Understand and use device twins in IoT Hub").

mod document;
mod metadata;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use iothub::{
    ErrorCode, Identity, Timestamp, limits,
    topic::{Filter, ToDevice},
    twin::{DesiredPatch, RuleBroken, Section, Twin, TwinVersion, check_patch, check_size, merge},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::metadata::{Metadata, Stamp};
use super::{DeviceStatus, Error, Hub, IfMatch, Now, packet, query::Row as _};

/// What the service writes into a twin.
#[derive(Clone, Debug)]
pub enum TwinChange {
    /// `PATCH`: merges what is there, leaves the rest.
    Merge {
        /// Patch of the tags.
        tags: Option<Map<String, Value>>,
        /// Patch of the desired properties.
        desired: Option<Map<String, Value>>,
    },
    /// `PUT`: what is left out becomes empty.
    Replace {
        /// The tags.
        tags: Map<String, Value>,
        /// The desired properties.
        desired: Map<String, Value>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TwinRecord {
    tags: Map<String, Value>,
    #[serde(with = "super::snapshot::section")]
    desired: Section,
    desired_metadata: Metadata,
    #[serde(with = "super::snapshot::section")]
    reported: Section,
    reported_metadata: Metadata,
    /// Moves with writes of tags and desired properties alone (live hub).
    etag: u64,
    /// Moves with every write.
    version: u64,
    model_id: String,
}

impl TwinRecord {
    pub(super) fn new(now: Now) -> Self {
        Self {
            tags: Map::new(),
            desired: Section::new(),
            desired_metadata: Metadata::new(now.utc),
            reported: Section::new(),
            reported_metadata: Metadata::new(now.utc),
            etag: 1,
            version: 2,
            model_id: String::new(),
        }
    }

    /// The model that the device announced in its username (IoT Plug and Play).
    pub(super) fn announce_model(&mut self, model_id: &str) {
        model_id.clone_into(&mut self.model_id);
    }

    /// What the device reads: no metadata, no tags.
    pub(super) fn for_device(&self) -> Twin {
        Twin {
            desired: self.desired.clone(),
            reported: self.reported.clone(),
        }
    }

    /// Merges reported properties; the patch has been checked alone.
    ///
    /// # Errors
    ///
    /// The section would be too large. Nothing has changed then.
    pub(super) fn report(
        &mut self,
        patch: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<TwinVersion, RuleBroken> {
        self.reported.properties =
            merged(&self.reported.properties, patch, limits::TWIN_SECTION_BYTES)?;
        self.reported.version.0 += 1;
        self.reported_metadata.stamp(patch, Stamp::reported(now));
        self.version += 1;
        Ok(self.reported.version)
    }

    /// Base64 of a counter of eight bytes (live hub).
    fn etag(&self) -> String {
        BASE64.encode(self.etag.to_be_bytes())
    }

    /// Returns what the device is to be told.
    ///
    /// # Errors
    ///
    /// A rule of the twin. Nothing has changed then.
    fn change(
        &mut self,
        change: TwinChange,
        now: Timestamp,
    ) -> Result<Option<DesiredPatch>, RuleBroken> {
        let (tags, desired) = match change {
            TwinChange::Merge { tags, desired } => (tags, desired),
            TwinChange::Replace { tags, desired } => {
                check_patch(&tags)?;
                check_patch(&desired)?;
                (
                    Some(replacing(&self.tags, &tags)),
                    Some(replacing(&self.desired.properties, &desired)),
                )
            }
        };
        let new_tags = tags.map(|patch| {
            check_patch(&patch)?;
            merged(&self.tags, &patch, limits::TWIN_TAGS_BYTES)
        });
        let new_desired = desired.map(|patch| {
            check_patch(&patch)?;
            let properties = &self.desired.properties;
            merged(properties, &patch, limits::TWIN_SECTION_BYTES).map(|new| (patch, new))
        });
        let (new_tags, new_desired) = (new_tags.transpose()?, new_desired.transpose()?);
        if let Some(tags) = new_tags {
            self.tags = tags;
        }
        self.etag += 1;
        self.version += 1;
        Ok(new_desired.map(|(patch, properties)| {
            // Also when nothing differs: what the hub does then is not documented, to count and to tell is harmless.
            let version = TwinVersion(self.desired.version.0 + 1);
            self.desired = Section {
                properties,
                version,
            };
            self.desired_metadata
                .stamp(&patch, Stamp::desired(now, version));
            DesiredPatch { patch, version }
        }))
    }
}

impl Hub {
    /// The twin document as the service reads it.
    ///
    /// # Errors
    ///
    /// There is no such device or module.
    pub fn twin(&self, id: &Identity) -> Result<Value, Error> {
        let device_id = id.device_id();
        let device = self.registry.device(device_id)?;
        let module = match id.module_id() {
            None => None,
            Some(module_id) => {
                let module = device
                    .module(device_id, module_id)
                    .map_err(without_module)?;
                Some((module_id, module))
            }
        };
        Ok(self.document(device_id, device, module).whole())
    }

    /// Gives a device the reported properties that it had at another hub, when a provisioning service has moved it.
    ///
    /// # Errors
    ///
    /// Unknown device or module, or a rule of the twin.
    pub fn restore_reported(
        &mut self,
        id: &Identity,
        reported: &Map<String, Value>,
        now: Now,
    ) -> Result<(), Error> {
        let record = self.registry.record_mut(id).map_err(without_module)?;
        record
            .twin
            .report(reported, now.utc)
            .map(drop)
            .map_err(|broken| Error::new(ErrorCode::ArgumentInvalid, broken.to_string()))
    }

    /// Changes tags and desired properties, and tells the device or module if it listens. Returns the whole document.
    ///
    /// # Errors
    ///
    /// Unknown device or module, another entity tag, or a rule of the twin.
    pub fn update_twin(
        &mut self,
        id: &Identity,
        change: TwinChange,
        if_match: Option<&IfMatch>,
        now: Now,
    ) -> Result<Value, Error> {
        let record = self.registry.record_mut(id).map_err(without_module)?;
        if let Some(if_match) = if_match {
            if_match.check(&record.twin.etag())?;
        }
        let announcement = record
            .twin
            .change(change, now.utc)
            .map_err(|broken| Error::new(ErrorCode::ArgumentInvalid, broken.to_string()))?;
        // Not queued while the device is away, or has not subscribed ("Understand and use device twins").
        let is_listening = record
            .session
            .as_ref()
            .is_some_and(|session| session.has(&Filter::DesiredPatches));
        if let (Some(change), Some(connection), true) =
            (announcement, record.connection, is_listening)
        {
            let version = Some(change.version);
            let topic = ToDevice::DesiredPatch { version }.encode();
            // Python and Node read the version from the body. QoS 0 whatever was subscribed (Embedded C's header).
            let body = change.to_json().to_string();
            self.outputs
                .transmit(connection, packet::publish(&topic, body.as_bytes()));
        }
        self.twin(id)
    }
}

impl DeviceStatus {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }
}

/// The twin of a module that is not there gets `DeviceNotFound` (live hub).
fn without_module(error: Error) -> Error {
    Error {
        code: ErrorCode::DeviceNotFound,
        ..error
    }
}

fn merged(
    properties: &Map<String, Value>,
    patch: &Map<String, Value>,
    limit: usize,
) -> Result<Map<String, Value>, RuleBroken> {
    let mut properties = properties.clone();
    merge(&mut properties, patch);
    check_size(&properties, limit)?;
    Ok(properties)
}

/// The merge patch that leads from `old` to `new`. By existence, not by value: replacing `{a:1,b:2}` by `{a:1,c:100}` is
/// announced as `{a:1,b:null,c:100}` (azure-iot-sdk-csharp issue 954, by the service team).
fn replacing(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, value) in new {
        let value = match (old.get(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(replacing(old, new)),
            (_, value) => value.clone(),
        };
        patch.insert(key.clone(), value);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    patch
}

/// What the hub shows for a time that has not come yet (live hub).
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";
