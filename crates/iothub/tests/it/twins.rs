use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tombolo_iothub::twin::{
    DesiredPatch, ReportedPatch, Rule, Section, Twin, TwinVersion, check_size, merge, section_size,
};

use crate::{arbitrary, golden};

fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn merged(mut document: Map<String, Value>, patch: &Map<String, Value>) -> Map<String, Value> {
    merge(&mut document, patch);
    document
}

fn rule(patch: Value) -> Result<(), Rule> {
    ReportedPatch::new(object(patch))
        .map(|_| ())
        .map_err(|broken| broken.rule)
}

#[test]
fn patches_merge_as_rfc_7396_says() {
    for (document, patch, result) in golden::json::<
        Vec<(Map<String, Value>, Map<String, Value>, Map<String, Value>)>,
    >("merges.json")
    {
        assert_eq!(
            merged(document.clone(), &patch),
            result,
            "{document:?} {patch:?}"
        );
    }
}

/// The gateway writes a patch anew, so it must read a number as what it is, to the last bit.
#[test]
fn a_fraction_keeps_its_value() {
    for text in [
        "0.1234535780246913580246",
        "0.1",
        "-2.5e-7",
        "5e-324",
        "1.7976931348623157e308",
    ] {
        let patch = ReportedPatch::parse(format!("{{\"a\":{text}}}").as_bytes()).unwrap();
        let again = ReportedPatch::parse(&patch.to_json()).unwrap();
        for patch in [patch, again] {
            assert_eq!(patch.as_map()["a"].as_f64(), text.parse().ok(), "{text}");
        }
    }
}

#[test]
fn a_key_has_1_to_1024_bytes() {
    let with_key = |key: &str| rule(json!({ key: 1 }));
    assert_eq!(with_key(""), Err(Rule::EmptyKey));
    assert_eq!(with_key(&"k".repeat(1023)), Ok(()));
    assert_eq!(with_key(&"k".repeat(1024)), Ok(()));
    assert_eq!(with_key(&"k".repeat(1025)), Err(Rule::KeyTooLong(1025)));
    assert_eq!(
        with_key(&"é".repeat(512)),
        Ok(()),
        "bytes count, not characters"
    );
    assert_eq!(with_key(&"é".repeat(513)), Err(Rule::KeyTooLong(1026)));
}

#[test]
fn a_key_keeps_out_what_a_path_is_made_of() {
    for bad in [
        '.', '$', '#', ' ', '\t', '\0', '\u{7f}', '\u{85}', '\u{9f}', '\u{a0}',
    ] {
        assert_eq!(
            rule(json!({ format!("a{bad}"): 1 })),
            Err(Rule::KeyCharacter(bad))
        );
    }
    assert_eq!(rule(json!({"ä-_/\\\"'%&+~": 1})), Ok(()));
    let nested = ReportedPatch::new(object(json!({"a": {"b": {"$version": 1}}}))).unwrap_err();
    assert_eq!(nested.path, "a.b.$version");
}

#[test]
fn a_string_has_up_to_4096_bytes() {
    let with_string = |text: String| rule(json!({ "a": text }));
    assert_eq!(with_string("s".repeat(4095)), Ok(()));
    assert_eq!(with_string("s".repeat(4096)), Ok(()));
    assert_eq!(
        with_string("s".repeat(4097)),
        Err(Rule::StringTooLong(4097))
    );
    assert_eq!(with_string("é".repeat(2048)), Ok(()));
    assert_eq!(
        with_string("é".repeat(2049)),
        Err(Rule::StringTooLong(4098))
    );
    assert_eq!(
        rule(json!({"a": ["s".repeat(4097)]})),
        Err(Rule::StringTooLong(4097))
    );
}

#[test]
fn an_integer_has_53_bits() {
    let with_integer = |integer: i64| rule(json!({ "a": integer }));
    let (least, most) = (-4_503_599_627_370_496_i64, 4_503_599_627_370_495_i64);
    assert_eq!(with_integer(least - 1), Err(Rule::Integer));
    assert_eq!(with_integer(least), Ok(()));
    assert_eq!(with_integer(least + 1), Ok(()));
    assert_eq!(with_integer(most - 1), Ok(()));
    assert_eq!(with_integer(most), Ok(()));
    assert_eq!(with_integer(most + 1), Err(Rule::Integer));
    assert_eq!(rule(json!({"a": u64::MAX})), Err(Rule::Integer));
    assert_eq!(
        rule(json!({"a": 1e300})),
        Ok(()),
        "a number with a fraction has no such bound"
    );
}

#[test]
fn nesting_has_10_levels() {
    let nested =
        |levels: usize| (1..levels).fold(json!({"k": 1}), |inner, _| json!({ "k": inner }));
    assert_eq!(rule(nested(9)), Ok(()));
    assert_eq!(rule(nested(10)), Ok(()));
    assert_eq!(rule(nested(11)), Err(Rule::TooDeep));
    let arrays = (0..10).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(
        rule(json!({ "k": arrays })),
        Err(Rule::TooDeep),
        "an array is a level"
    );
}

#[test]
fn null_removes_but_never_inside_an_array() {
    assert_eq!(rule(json!({"a": null, "b": {"c": null}})), Ok(()));
    assert_eq!(rule(json!({"a": [null]})), Err(Rule::NullInArray));
    assert_eq!(rule(json!({"a": [{"b": null}]})), Err(Rule::NullInArray));
    assert_eq!(
        rule(json!({"a": [{"b": {"c": [1, null]}}]})),
        Err(Rule::NullInArray)
    );
}

/// Keys in bytes; strings in characters without control characters; numbers 8, booleans 4.
#[test]
fn size_counts_what_the_hub_counts() {
    let size = |value| section_size(&object(value));
    assert_eq!(size(json!({})), 0);
    assert_eq!(size(json!({"ab": 1})), 10);
    assert_eq!(size(json!({"é": true})), 6);
    assert_eq!(size(json!({"a": "éé\n"})), 3);
    assert_eq!(
        size(json!({"a": {"b": [1, 2.5, "xyz"]}})),
        1 + 1 + 8 + 8 + 3
    );
}

#[test]
fn a_section_has_up_to_32_kib() {
    // Eight strings, each with a key of one byte, fill the section but for what the last one leaves.
    let with_size = |bytes: usize| {
        let mut properties = Map::new();
        for key in ["a", "b", "c", "d", "e", "f", "g"] {
            properties.insert(key.to_owned(), "s".repeat(4095).into());
        }
        properties.insert("h".to_owned(), "s".repeat(bytes - 7 * 4096 - 1).into());
        assert_eq!(section_size(&properties), bytes);
        properties
    };
    let limit = 32 * 1024;
    for (size, is_right) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        assert_eq!(
            check_size(&with_size(size), limit).is_ok(),
            is_right,
            "{size}"
        );
        assert_eq!(
            ReportedPatch::new(with_size(size)).is_ok(),
            is_right,
            "{size}"
        );
    }
}

#[test]
fn a_twin_is_read_as_the_hub_sends_it() {
    let body = br#"{"desired":{"interval":5,"$version":7},"reported":{"fw":"1","$version":1}}"#;
    let twin = Twin::parse(body).unwrap();
    assert_eq!(twin.desired.version, TwinVersion(7));
    assert_eq!(twin.reported.properties, object(json!({"fw": "1"})));
    assert_eq!(twin.to_json().to_string().as_bytes(), body);
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"desired":{},"reported":{}}"#,
        r#"{"desired":{"$version":-1},"reported":{"$version":1}}"#,
    ] {
        assert!(Twin::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn merging_a_patch_again_changes_nothing(document in arbitrary::object(), patch in arbitrary::object()) {
        let once = merged(document, &patch);
        prop_assert_eq!(merged(once.clone(), &patch), once);
    }

    #[test]
    fn an_empty_patch_changes_nothing(document in arbitrary::object()) {
        prop_assert_eq!(merged(document.clone(), &Map::new()), document);
    }

    /// What a patch removes is gone, what it sets is there, what it does not name stays.
    #[test]
    fn a_patch_rules_its_own_keys_alone(document in arbitrary::object(), patch in arbitrary::object()) {
        let result = merged(document.clone(), &patch);
        for (key, value) in &document {
            if !patch.contains_key(key) {
                prop_assert_eq!(result.get(key), Some(value));
            }
        }
        for (key, value) in &patch {
            prop_assert_eq!(result.contains_key(key), !value.is_null());
        }
    }

    /// Following the changes leads to where reading the twin anew would.
    #[test]
    fn following_changes_is_reading_anew(start in arbitrary::object(), patches in prop::collection::vec(arbitrary::object(), 0..5)) {
        let mut hub = start.clone();
        let mut followed = Section { properties: start, version: TwinVersion(1) };
        for (version, patch) in (2..).zip(patches) {
            merge(&mut hub, &patch);
            let change = DesiredPatch { patch, version: TwinVersion(version) };
            prop_assert!(followed.apply(&change));
            prop_assert!(followed.apply(&change), "twice is harmless");
        }
        prop_assert_eq!(followed.properties, hub);
    }

    #[test]
    fn parsing_never_panics(bytes: Vec<u8>, object in arbitrary::object()) {
        let _ = Twin::parse(&bytes);
        let _ = ReportedPatch::parse(&bytes);
        let _ = DesiredPatch::parse(&bytes);
        let _ = ReportedPatch::new(object);
    }
}
