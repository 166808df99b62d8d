//! The twin document, its versions and its rules ("Understand and use device twins in IoT Hub").
//!
//! A twin has two sections that a device sees: *desired* properties, which the cloud writes, and *reported*
//! properties, which the device writes. Each has a `$version` that moves by one with every write. Writes are
//! merge patches (RFC 7396): `null` removes.

mod rules;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use rules::{Rule, RuleBroken, check_patch, check_size, section_size};

use crate::limits;

/// The version of a twin section: grows by one with every write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TwinVersion(pub u64);

/// One section: its properties, without any `$` member, and its version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// The properties.
    pub properties: Map<String, Value>,
    /// Their version.
    pub version: TwinVersion,
}

/// What a device reads: both sections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Twin {
    /// What the cloud wants.
    pub desired: Section,
    /// What the device has said.
    pub reported: Section,
}

/// A merge patch that a device sends for its reported properties, checked against the rules for one patch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportedPatch(Map<String, Value>);

/// A change of the desired properties as the hub announces it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DesiredPatch {
    /// The merge patch, without `$version`.
    pub patch: Map<String, Value>,
    /// The version that it leads to.
    pub version: TwinVersion,
}

/// Why bytes are no twin document or patch.
#[derive(Debug, thiserror::Error)]
pub enum ParseTwinError {
    /// No JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// Another value than an object.
    #[error("a twin document or patch is a JSON object")]
    NotAnObject,
    /// A part that must be there.
    #[error("the document has no {0}")]
    Missing(&'static str),
    /// A rule of the twin.
    #[error(transparent)]
    Rule(#[from] RuleBroken),
}

impl Section {
    /// An empty section of a new twin.
    #[must_use]
    pub fn new() -> Self {
        Self {
            properties: Map::new(),
            version: TwinVersion(1),
        }
    }

    /// The JSON form that devices read: the properties and `$version`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = self.properties.clone();
        object.insert(VERSION.to_owned(), self.version.0.into());
        Value::Object(object)
    }

    /// Reads the JSON form; members that start with `$` are not properties.
    ///
    /// # Errors
    ///
    /// It is no object, or has no `$version`.
    pub fn from_json(value: Value) -> Result<Self, ParseTwinError> {
        let Value::Object(mut properties) = value else {
            return Err(ParseTwinError::NotAnObject);
        };
        let version = properties
            .get(VERSION)
            .and_then(Value::as_u64)
            .ok_or(ParseTwinError::Missing(VERSION))?;
        properties.retain(|key, _| !key.starts_with('$'));
        Ok(Self {
            properties,
            version: TwinVersion(version),
        })
    }

    /// Applies an announced change.
    ///
    /// Returns false, and changes nothing, if it does not lead from this section's version to the next: a change was
    /// missed, and the twin must be read again.
    #[must_use]
    pub fn apply(&mut self, change: &DesiredPatch) -> bool {
        if change.version <= self.version {
            // A change from before the twin was read; it is in the document already.
            return true;
        }
        if change.version.0 != self.version.0 + 1 {
            return false;
        }
        merge(&mut self.properties, &change.patch);
        self.version = change.version;
        true
    }
}

impl Twin {
    /// Reads the body of the hub's answer to a twin GET: `{"desired":{...},"reported":{...}}`.
    ///
    /// # Errors
    ///
    /// The bytes are no such document.
    pub fn parse(body: &[u8]) -> Result<Self, ParseTwinError> {
        let mut object = parse_object(body)?;
        let mut section = |name| {
            object
                .remove(name)
                .ok_or(ParseTwinError::Missing(name))
                .and_then(Section::from_json)
        };
        Ok(Self {
            desired: section("desired")?,
            reported: section("reported")?,
        })
    }

    /// The JSON form of [`Twin::parse`].
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::json!({ "desired": self.desired.to_json(), "reported": self.reported.to_json() })
    }
}

impl ReportedPatch {
    /// Checks a patch against the rules that one patch can break alone: keys, depth, values, size.
    ///
    /// # Errors
    ///
    /// The rule that is broken, with the path of the property.
    pub fn new(patch: Map<String, Value>) -> Result<Self, RuleBroken> {
        check_patch(&patch)?;
        Ok(Self(patch))
    }

    /// Reads JSON and checks it like [`ReportedPatch::new`].
    ///
    /// # Errors
    ///
    /// The bytes are no JSON object, or break a rule.
    pub fn parse(body: &[u8]) -> Result<Self, ParseTwinError> {
        Ok(Self::new(parse_object(body)?)?)
    }

    /// The patch.
    #[must_use]
    pub const fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The JSON text that the hub takes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("a map of JSON values has a JSON form")
    }
}

impl DesiredPatch {
    /// Reads the body of the hub's announcement: the patch and `$version` in it.
    ///
    /// # Errors
    ///
    /// The bytes are no JSON object, or have no `$version`.
    pub fn parse(body: &[u8]) -> Result<Self, ParseTwinError> {
        let mut patch = parse_object(body)?;
        let version = patch
            .get(VERSION)
            .and_then(Value::as_u64)
            .ok_or(ParseTwinError::Missing(VERSION))?;
        patch.retain(|key, _| !key.starts_with('$'));
        Ok(Self {
            patch,
            version: TwinVersion(version),
        })
    }

    /// The JSON form of [`DesiredPatch::parse`].
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = self.patch.clone();
        object.insert(VERSION.to_owned(), self.version.0.into());
        Value::Object(object)
    }
}

/// Merges a patch into properties as the hub does: RFC 7396, with `null` removing and `{}` staying.
pub fn merge(properties: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, change) in patch {
        match change {
            Value::Null => {
                properties.shift_remove(key);
            }
            Value::Object(change) => match properties.get_mut(key) {
                Some(Value::Object(old)) => merge(old, change),
                _ => {
                    let mut fresh = Map::new();
                    merge(&mut fresh, change);
                    properties.insert(key.clone(), Value::Object(fresh));
                }
            },
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                properties.insert(key.clone(), change.clone());
            }
        }
    }
}

fn parse_object(body: &[u8]) -> Result<Map<String, Value>, ParseTwinError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ParseTwinError::NotAnObject),
        Err(error) => Err(ParseTwinError::Json(error.to_string())),
    }
}

const VERSION: &str = "$version";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else {
            panic!("not an object")
        };
        object
    }

    fn merged(document: Value, patch: Value) -> Value {
        let mut document = object(document);
        merge(&mut document, &object(patch));
        Value::Object(document)
    }

    #[test]
    fn null_removes_and_an_empty_object_stays() {
        assert_eq!(
            merged(json!({"a": {"b": 1}, "c": 2}), json!({"a": {"b": null}})),
            json!({"a": {}, "c": 2})
        );
        assert_eq!(
            merged(json!({"a": 1}), json!({"a": {"b": {"c": null}}})),
            json!({"a": {"b": {}}})
        );
    }

    #[test]
    fn arrays_are_replaced_as_a_whole() {
        assert_eq!(
            merged(json!({"a": [1, 2]}), json!({"a": [3]})),
            json!({"a": [3]})
        );
    }

    #[test]
    fn a_gap_in_the_version_is_noticed() {
        let mut section = Section {
            properties: Map::new(),
            version: TwinVersion(4),
        };
        let change = |version| DesiredPatch {
            patch: object(json!({"x": version})),
            version: TwinVersion(version),
        };
        assert!(section.apply(&change(5)));
        assert!(
            section.apply(&change(5)),
            "an old change is in the document already"
        );
        assert!(!section.apply(&change(7)));
        assert_eq!(section.to_json(), json!({"x": 5, "$version": 5}));
    }
}
