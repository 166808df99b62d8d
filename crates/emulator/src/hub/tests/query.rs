use iothub::ErrorCode;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::hub::query::Position;

/// Three devices, `a` with two modules.
fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.hub
        .delete_device(&dev1(), &IfMatch::Any, rig.now)
        .unwrap();
    for (id, tags, desired) in [
        (
            "a",
            json!({"site": "north", "floor": 1}),
            json!({"rate": 5, "on": true}),
        ),
        (
            "b",
            json!({"site": "north", "floor": 2.5, "note": null}),
            json!({"rate": 10}),
        ),
        (
            "c",
            json!({"site": "south", "deep": {"er": "x'y"}}),
            json!({"rate": "fast"}),
        ),
    ] {
        rig.add_device(id);
        let twin = TwinChange::Merge {
            tags: Some(object(tags)),
            desired: Some(object(desired)),
        };
        rig.hub.update_twin(&whom(id), twin, None, rig.now).unwrap();
    }
    for module in ["m1", "m2"] {
        let (a, id) = ("a".parse().unwrap(), module.parse().unwrap());
        rig.hub
            .create_module(&a, &id, ModuleSpec::default(), rig.now)
            .unwrap();
    }
    rig
}

fn found(rig: &Rig, query: &str) -> Vec<Value> {
    let page = rig.hub.query(query, 1000, None);
    page.unwrap_or_else(|error| panic!("{query}: {error}"))
        .items
}

/// The devices that meet a condition.
#[track_caller]
fn devices(rig: &Rig, condition: &str) -> String {
    let query = format!("SELECT deviceId FROM devices WHERE {condition}");
    let ids = found(rig, &query);
    ids.iter()
        .map(|row| row["deviceId"].as_str().unwrap())
        .collect()
}

#[test]
fn conditions_find_devices() {
    let rig = rig();
    for (condition, expected) in [
        ("tags.site = 'north'", "ab"),
        ("tags.site = \"south\"", "c"),
        ("devices.tags.site = 'south'", "c"),
        ("TAGS.site = 'south'", "c"),
        ("tags.Site = 'south'", ""),
        ("tags.deep.er = 'x\\'y'", "c"),
        ("tags.deep.er = 'x\\u0027y'", "c"),
        ("tags.[[site]] = 'north'", "ab"),
        ("tags.site != 'north'", "c"),
        ("tags.site <> 'north'", "c"),
        ("properties.desired.rate > 5", "b"),
        ("properties.desired.rate >= 5", "ab"),
        ("properties.desired.rate < 10", "a"),
        ("properties.desired.rate <= 0xA", "ab"),
        ("properties.desired.rate = 5.0", "a"),
        ("properties.desired.rate = -5 + 5 * 2", "a"),
        ("properties.desired.rate % 3 = 1", "b"),
        ("properties.desired.rate / 4 - 2.5 = 0", "b"),
        ("properties.desired.rate / 0 = 1", ""),
        ("(1 + 1) * 2 = 4 AND tags.floor = 1", "a"),
        ("properties.desired.on", "a"),
        ("properties.desired.on = true", "a"),
        ("NOT properties.desired.on = true", ""),
        ("NOT (tags.site = 'north')", "c"),
        ("tags.site = 'south' OR tags.floor = 1", "ac"),
        ("tags.floor = 9 OR tags.site = 'south' AND true", "c"),
        ("deviceId IN ['a', 'c', 'nobody']", "ac"),
        ("deviceId NIN ['a', 'c']", "b"),
        ("deviceId IN []", ""),
        ("tags.floor NIN [1]", "b"),
        ("is_defined(tags.floor)", "ab"),
        ("NOT IS_DEFINED(tags.floor)", "c"),
        ("IS_NUMBER(properties.desired.rate)", "ab"),
        ("IS_STRING(properties.desired.rate)", "c"),
        ("IS_BOOL(properties.desired.on)", "a"),
        ("IS_OBJECT(tags.deep)", "c"),
        ("IS_NULL(statusReason)", "abc"),
        ("statusReason = null", "abc"),
        ("tags.floor = undefined", ""),
        ("STARTSWITH(tags.site, 'no')", "ab"),
        ("starts_with(tags.site, 'so')", "c"),
        ("ENDSWITH(tags.site, 'uth')", "c"),
        ("CONTAINS(tags.site, 'ort')", "ab"),
        ("CONTAINS(properties.desired.rate, 'a')", "c"),
        (
            "status = 'enabled' AND connectionState = 'Disconnected'",
            "abc",
        ),
        ("capabilities.iotEdge = false", "abc"),
        ("properties.desired.$version = 2", "abc"),
        (
            "is_defined(properties.desired.$metadata.rate.$lastUpdated)",
            "abc",
        ),
        ("properties.reported.nothing != null", ""),
        ("properties.desired.rate < 'zebra'", "c"),
    ] {
        assert_eq!(devices(&rig, condition), expected, "{condition}");
    }
}

#[test]
fn what_comes_out_is_twins_or_columns() {
    let rig = rig();
    let all = rig.hub.query("SELECT * FROM devices", 1000, None).unwrap();
    let twins = ["a", "b", "c"].map(|id| rig.hub.twin(&whom(id)).unwrap());
    assert_eq!((all.items, all.item_type), (twins.into(), ItemType::Twin));
    let modules = found(&rig, "select * from devices.modules where moduleId != 'm1'");
    assert_eq!(modules, [rig.hub.twin(&whom("a/m2")).unwrap()]);
    let columns = "SELECT DeviceID, tags.floor, tags.site AS place FROM devices";
    let raw = rig.hub.query(columns, 1000, None).unwrap();
    assert_eq!(raw.item_type, ItemType::Raw);
    let expected = [
        json!({"DeviceID": "a", "floor": 1, "place": "north"}),
        json!({"DeviceID": "b", "floor": 2.5, "place": "north"}),
        json!({"DeviceID": "c", "place": "south"}),
    ];
    assert_eq!(raw.items, expected);
}

#[test]
fn rows_are_counted_and_summed_in_groups() {
    let rig = rig();
    let rate = "properties.desired.rate";
    for (query, expected) in [
        (
            "SELECT COUNT() AS n FROM devices".to_owned(),
            json!([{"n": 3}]),
        ),
        (
            "SELECT COUNT() FROM devices WHERE false".to_owned(),
            json!([{"$1": 0}]),
        ),
        (
            format!(
                "SELECT SUM({rate}) AS s, AVG({rate}) AS a, MIN({rate}) AS l, MAX({rate}) AS m FROM devices"
            ),
            json!([{"s": 15, "a": 7.5, "l": 5, "m": 10}]),
        ),
        (
            format!("SELECT AVG({rate}) AS a, COUNT() AS n FROM devices WHERE tags.site = 'south'"),
            json!([{"n": 1}]),
        ),
        (
            "SELECT tags.site AS site, COUNT() AS n FROM devices GROUP BY tags.site".to_owned(),
            json!([{"site": "north", "n": 2}, {"site": "south", "n": 1}]),
        ),
        (
            "SELECT TOP 1 tags.site AS site FROM devices GROUP BY tags.site, status".to_owned(),
            json!([{"site": "north"}]),
        ),
        (
            "SELECT COUNT() AS n FROM devices.modules".to_owned(),
            json!([{"n": 2}]),
        ),
    ] {
        assert_eq!(json!(found(&rig, &query)), expected, "{query}");
    }
}

#[test]
fn pages_go_on_where_the_last_one_ended() {
    let mut rig = rig();
    let query = "SELECT deviceId FROM devices";
    let first = rig.hub.query(query, 2, None).unwrap();
    assert_eq!(
        first.items,
        [json!({"deviceId": "a"}), json!({"deviceId": "b"})]
    );
    let token = first.continuation.unwrap();
    // What comes and goes meanwhile moves no other device.
    rig.hub
        .delete_device(&"a".parse().unwrap(), &IfMatch::Any, rig.now)
        .unwrap();
    rig.add_device("aa");
    rig.add_device("d");
    let second = rig.hub.query(query, 2, Some(&token)).unwrap();
    assert_eq!(
        second.items,
        [json!({"deviceId": "c"}), json!({"deviceId": "d"})]
    );
    assert_eq!(second.continuation, None, "nothing is left");

    for (token, query) in [
        (token.as_str(), "SELECT deviceId FROM devices "),
        ("", query),
        ("AAAA", query),
        ("?", query),
        (&"A".repeat(1025), query),
    ] {
        let refused = rig.hub.query(query, 2, Some(token));
        assert_eq!(refused.unwrap_err().code, ErrorCode::ArgumentInvalid);
    }
}

#[test]
fn a_token_that_somebody_made_up_does_no_harm() {
    let rig = rig();
    for query in [
        "SELECT * FROM devices",
        "SELECT COUNT() FROM devices",
        "SELECT TOP 2 deviceId FROM devices",
    ] {
        for after in ["", "a", "no id", "a/b", "/"] {
            let position = Position {
                given: u64::MAX,
                after: after.to_owned(),
            };
            let page = rig.hub.query(query, 1, Some(&position.encode(query)));
            assert!(page.is_ok(), "{query} after {after:?}");
        }
    }
}

#[test]
fn top_counts_over_all_pages() {
    let rig = rig();
    let query = "SELECT TOP 2 deviceId FROM devices";
    let first = rig.hub.query(query, 1, None).unwrap();
    let second = rig
        .hub
        .query(query, 1, first.continuation.as_deref())
        .unwrap();
    assert_eq!(second.items, [json!({"deviceId": "b"})]);
    assert_eq!(second.continuation, None);
}

#[test]
fn a_page_has_a_size() {
    let rig = rig();
    for (most, is_taken) in [(0, false), (1, true), (1000, true), (1001, false)] {
        let page = rig.hub.query("SELECT * FROM devices", most, None);
        assert_eq!(page.is_ok(), is_taken, "{most}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name_and_place() {
    let rig = rig();
    for (query, at, what) in [
        ("", 1, "expected SELECT, found the end"),
        (
            "SELECT * FROM devices ORDER BY deviceId",
            23,
            "ORDER is not supported",
        ),
        (
            "SELECT DISTINCT deviceId FROM devices",
            8,
            "DISTINCT is not supported",
        ),
        (
            "SELECT * FROM c",
            15,
            "after FROM comes devices, devices.modules or devices.jobs",
        ),
        (
            "SELECT * FROM devices WHERE",
            28,
            "expected a name, found the end",
        ),
        (
            "SELECT * FROM devices WHERE a LIKE 'b'",
            31,
            "LIKE is not supported",
        ),
        (
            "SELECT * FROM devices WHERE ABS(a) = 1",
            29,
            "the function ABS is not supported here",
        ),
        (
            "SELECT * FROM devices WHERE IS_NULL(a, b)",
            42,
            "IS_NULL takes 1 argument(s), not 2",
        ),
        (
            "SELECT * FROM devices WHERE a[0] = 1",
            30,
            "the items of an array cannot be named",
        ),
        (
            "SELECT * FROM devices WHERE a = 'b",
            33,
            "the text has no end",
        ),
        (
            "SELECT * FROM devices WHERE a = 'b\\n'",
            35,
            "after \\ comes ', \", \\ or u with four digits",
        ),
        (
            "SELECT * FROM devices WHERE a ; b",
            31,
            "the character ';' has no meaning",
        ),
        (
            "SELECT * FROM devices WHERE a = 1 = 2",
            35,
            "expected the end, found =",
        ),
        (
            "SELECT * FROM devices WHERE a = 1x",
            34,
            "a name does not begin with a digit",
        ),
        (
            "SELECT * FROM devices GROUP BY status",
            1,
            "with GROUP BY the columns are named",
        ),
        (
            "SELECT status, COUNT() FROM devices",
            1,
            "the column status is not in GROUP BY",
        ),
        (
            "SELECT status, status FROM devices",
            16,
            "there are two columns status",
        ),
        ("SELECT COUNT(*) FROM devices", 14, "expected ), found *"),
        (
            "SELECT UPPER(a) FROM devices",
            8,
            "UPPER cannot be selected; COUNT, AVG, SUM, MIN, MAX and attributes can",
        ),
        (
            "SELECT TOP 0 * FROM devices",
            12,
            "TOP is a whole number from 1",
        ),
    ] {
        let error = rig.hub.query(query, 10, None).unwrap_err();
        let expected = format!("The query cannot be used: at character {at}: {what}.");
        assert_eq!(
            (error.code, error.message),
            (ErrorCode::ArgumentInvalid, expected)
        );
    }
}

#[test]
fn a_query_has_bounds() {
    let rig = rig();
    let is_taken = |condition: String| {
        let query = format!("SELECT * FROM devices WHERE {condition}");
        rig.hub.query(&query, 10, None).is_ok()
    };
    for (levels, expected) in [(31, true), (32, true), (33, false)] {
        let nested = format!("{}true{}", "(".repeat(levels), ")".repeat(levels));
        assert_eq!(is_taken(nested), expected, "{levels} levels");
        assert_eq!(is_taken(format!("{}true", "NOT ".repeat(levels))), expected);
        assert_eq!(is_taken(format!("{}1 = 1", "-".repeat(levels))), expected);
    }
    for (parts, expected) in [(499, true), (500, true), (501, false)] {
        let chain = vec!["1"; parts].join("+");
        assert_eq!(is_taken(chain), expected, "{parts} parts");
    }
    for (bytes, expected) in [(8191, true), (8192, true), (8193, false)] {
        let start = "SELECT * FROM devices WHERE status='";
        let query = format!("{start}{}'", "x".repeat(bytes - start.len() - 1));
        assert_eq!(
            rig.hub.query(&query, 10, None).is_ok(),
            expected,
            "{bytes} bytes"
        );
    }
}

proptest! {
    /// Whatever is asked is answered or refused, and pages are the whole, cut.
    #[test]
    fn pages_are_the_whole_cut(words in prop::collection::vec(word(), 0..14), size in 1_usize..4) {
        let rig = rig();
        let text = format!("SELECT {}", words.join(" "));
        let Ok(whole) = rig.hub.query(&text, 1000, None) else { return Ok(()) };
        let (mut items, mut continuation) = (Vec::new(), None);
        loop {
            let page = rig.hub.query(&text, size, continuation.as_deref()).unwrap();
            prop_assert!(page.items.len() <= size);
            items.extend(page.items);
            continuation = page.continuation;
            if continuation.is_none() { break }
        }
        prop_assert_eq!(items, whole.items);
    }
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "*",
        "TOP 2",
        "COUNT()",
        "tags.site",
        "deviceId",
        "AS x",
        ",",
        "FROM devices",
        "FROM devices.modules",
        "WHERE",
        "tags.floor",
        "=",
        "<",
        "'north'",
        "1",
        "AND",
        "OR",
        "NOT",
        "(",
        ")",
        "IN ['a','b']",
        "IS_DEFINED(tags.note)",
        "GROUP BY tags.site",
        "+",
        "-",
        "SUM(tags.floor)",
    ])
}
