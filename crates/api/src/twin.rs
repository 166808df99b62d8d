//! Bodies of the twin.

use iothub::twin::{Section, Twin};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{AdditionalProperties, Type},
    },
};

/// The twin as a device sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TwinDocument {
    /// What the cloud wants.
    pub desired: Properties,
    /// What the device has said.
    pub reported: Properties,
}

/// One section of the twin: its properties, and `$version` among them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Properties(pub Map<String, Value>);

/// A merge patch (RFC 7396) for the reported properties: `null` removes, an array is replaced as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReportedPatch(pub Map<String, Value>);

/// The answer to a patch of the reported properties.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReportedAnswer {
    /// The version that the patch led to; not there if the hub named none.
    #[serde(rename = "$version", default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

impl From<&Twin> for TwinDocument {
    fn from(twin: &Twin) -> Self {
        Self {
            desired: (&twin.desired).into(),
            reported: (&twin.reported).into(),
        }
    }
}

impl From<&Section> for Properties {
    fn from(section: &Section) -> Self {
        let mut properties = section.properties.clone();
        properties.insert("$version".to_owned(), section.version.0.into());
        Self(properties)
    }
}

impl ToSchema for Properties {}

impl PartialSchema for Properties {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some(
                "A section of the twin: its properties, and `$version` among them.",
            ))
            .property(
                "$version",
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(1))
                    .description(Some("Moves by one with every write to the section.")),
            )
            .required("$version")
            .property_names(Some(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some(r"^(\$version|[^$]+)$")),
            ))
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .examples([json!({"interval_s": 60, "$version": 7})])
            .into()
    }
}

impl ToSchema for ReportedPatch {}

impl PartialSchema for ReportedPatch {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some(
                "A merge patch (RFC 7396): `null` removes, an array is replaced as a whole. Keys have 1 to 1,024 bytes \
                 without control characters, white space, `.`, `$`, `#`; strings up to 4,096 bytes; integers between \
                 -4503599627370496 and 4503599627370495; 10 levels; no `null` inside an array. All reported properties \
                 together have at most 32 KiB.",
            ))
            .property_names(Some(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .min_length(Some(1))
                    .max_length(Some(iothub::limits::TWIN_KEY_BYTES))
                    .pattern(Some(r"^[^\s.$#\u0000-\u001f\u007f-\u009f]+$")),
            ))
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .examples([json!({"battery": 0.82, "old_setting": null})])
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_is_shown_as_the_hub_shows_it() {
        let text = r#"{"desired":{"a":1,"$version":7},"reported":{"b":{"c":null},"$version":12}}"#;
        let twin = Twin::parse(text.as_bytes()).unwrap();
        let document = TwinDocument::from(&twin);
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
    }

    #[test]
    fn a_version_is_named_or_left_out() {
        let json = |version| serde_json::to_string(&ReportedAnswer { version }).unwrap();
        assert_eq!(json(Some(12)), r#"{"$version":12}"#);
        assert_eq!(json(None), "{}");
    }
}
