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

    /// One patch that does what this one and then `later` do; `None` if no patch does, or if it breaks a rule.
    ///
    /// None does where a value is replaced or removed and has members afterwards: a patch with members keeps those that
    /// were there before (RFC 7396, section 2).
    #[must_use]
    pub fn then(&self, later: &Self) -> Option<Self> {
        let mut joined = self.0.clone();
        if join(&mut joined, &later.0) {
            Self::new(joined).ok()
        } else {
            None
        }
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

/// Makes a patch do what `later` does after it. False if no patch can; it is of no use then.
fn join(patch: &mut Map<String, Value>, later: &Map<String, Value>) -> bool {
    later
        .iter()
        .all(|(key, change)| match (patch.get_mut(key), change) {
            (Some(Value::Object(earlier)), Value::Object(change)) => join(earlier, change),
            (Some(_), Value::Object(_)) => false,
            (Some(_) | None, change) => {
                patch.insert(key.clone(), change.clone());
                true
            }
        })
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
    use proptest::prelude::*;
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

    fn patch(value: Value) -> ReportedPatch {
        ReportedPatch::new(object(value)).unwrap()
    }

    #[test]
    fn a_patch_that_replaces_and_then_fills_is_not_one_patch() {
        for (first, second) in [
            (json!({"a": null}), json!({"a": {"b": 1}})),
            (json!({"a": 1}), json!({"a": {"b": 1}})),
            (json!({"a": [1]}), json!({"a": {}})),
            (json!({"x": {"a": null}}), json!({"x": {"a": {"b": 1}}})),
        ] {
            assert_eq!(patch(first).then(&patch(second)), None);
        }
    }

    #[test]
    fn a_joined_patch_keeps_to_the_size_of_a_patch() {
        let patch_of = |keys: std::ops::Range<u32>, rest: usize| {
            let mut fields = Map::new();
            for key in keys {
                let text = "x".repeat(limits::TWIN_STRING_BYTES - 2);
                fields.insert(format!("{key:02}"), text.into());
            }
            fields.insert("zz".to_owned(), "x".repeat(rest).into());
            ReportedPatch::new(fields).unwrap()
        };
        // Seven fields of 4,096 bytes, and one that fills up to the limit.
        for (rest, fits) in [(4093, true), (4094, true), (4095, false)] {
            let joined = patch_of(0..4, 1).then(&patch_of(4..7, rest));
            assert_eq!(joined.is_some(), fits, "{rest}");
        }
    }

    /// Small documents, so that keys meet.
    fn documents() -> impl Strategy<Value = Map<String, Value>> {
        let leaf = prop_oneof![
            Just(Value::Null),
            (0..3).prop_map(Value::from),
            Just(json!([1])),
            Just(json!({})),
        ];
        let value = leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
        });
        prop::collection::btree_map("[abc]", value, 0..3)
            .prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_joined_patch_does_what_both_do(
            content in documents(),
            first in documents(),
            second in documents(),
        ) {
            let (first, second) = (patch(first.into()), patch(second.into()));
            let mut document = Map::new();
            merge(&mut document, &content);
            if let Some(joined) = first.then(&second) {
                let mut at_once = document.clone();
                merge(&mut at_once, joined.as_map());
                merge(&mut document, first.as_map());
                merge(&mut document, second.as_map());
                prop_assert_eq!(at_once, document);
            }
        }
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
