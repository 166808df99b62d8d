//! `$metadata`: when each property was written last. Mirrors the tree of the properties.

use iothub::{Timestamp, twin::TwinVersion};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The metadata of one section.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Metadata(Map<String, Value>);

/// What is written on each property of a patch.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    at: Timestamp,
    /// Desired properties only.
    version: Option<TwinVersion>,
}

impl Stamp {
    pub(super) const fn desired(at: Timestamp, version: TwinVersion) -> Self {
        Self {
            at,
            version: Some(version),
        }
    }

    pub(super) const fn reported(at: Timestamp) -> Self {
        Self { at, version: None }
    }

    fn write(self, node: &mut Map<String, Value>) {
        node.insert("$lastUpdated".to_owned(), self.at.to_string().into());
        if let Some(version) = self.version {
            node.insert("$lastUpdatedVersion".to_owned(), version.0.into());
        }
    }
}

impl Metadata {
    pub(super) fn new(at: Timestamp) -> Self {
        let mut root = Map::new();
        Stamp::reported(at).write(&mut root);
        Self(root)
    }

    /// Stamps every property that a patch names, changed or not (iotedge issue 1246), and all that hold them.
    pub(super) fn stamp(&mut self, patch: &Map<String, Value>, stamp: Stamp) {
        stamp_object(&mut self.0, patch, stamp);
    }

    pub(super) fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

fn stamp_object(node: &mut Map<String, Value>, patch: &Map<String, Value>, stamp: Stamp) {
    stamp.write(node);
    for (key, value) in patch {
        match value {
            Value::Null => {
                node.shift_remove(key);
            }
            Value::Object(patch) => {
                let child = node
                    .entry(key.clone())
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(child) = child {
                    stamp_object(child, patch, stamp);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                let mut leaf = Map::new();
                stamp.write(&mut leaf);
                node.insert(key.clone(), Value::Object(leaf));
            }
        }
    }
}
