use iothub::ErrorCode;
use serde_json::json;

use super::*;

const GET: &str = "$iothub/twin/GET/?$rid=r1";
const REPORT: &str = "$iothub/twin/PATCH/properties/reported/?$rid=r2";

fn patch(rig: &mut Rig, desired: Value) -> Value {
    let change = TwinChange::Merge {
        tags: None,
        desired: Some(object(desired)),
    };
    rig.hub
        .update_twin(&whom("dev1"), change, None, rig.now)
        .unwrap()
}

fn json(got: &Got) -> Value {
    serde_json::from_str(&got.message().payload).unwrap()
}

#[test]
fn a_device_reads_and_reports() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(TWIN_ANSWERS, 1)]);
    let got = rig.send(id, &publish(GET, b" ", Some(3)));
    assert_eq!(got[0], Got::Puback(3));
    assert_eq!(got[1].message().topic, "$iothub/twin/res/200/?$rid=r1");
    assert_eq!(got[1].message().qos, 0, "whatever was subscribed");
    assert_eq!(
        json(&got[1]),
        json!({"desired": {"$version": 1}, "reported": {"$version": 1}})
    );

    let got = rig.send(
        id,
        &publish(REPORT, br#"{"fw":"2","gone":null,"a":{"b":1}}"#, None),
    );
    assert_eq!(
        got[0].message().topic,
        "$iothub/twin/res/204/?$rid=r2&$version=2"
    );
    assert_eq!(got[0].message().payload, "");
    let got = rig.send(id, &publish(GET, b"", None));
    assert_eq!(
        json(&got[0])["reported"],
        json!({"fw": "2", "a": {"b": 1}, "$version": 2})
    );
}

#[test]
fn an_error_has_a_status_and_a_body() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(TWIN_ANSWERS, 0)]);
    for (body, code) in [
        (&b"no json"[..], 400_006),
        (b"[]", 400_006),
        (br#"{"a.b":1}"#, 400_004),
        (br#"{"a":[null]}"#, 400_004),
        (
            br#"{"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":{"i":{"j":{"k":1}}}}}}}}}}}"#,
            400_004,
        ),
    ] {
        let got = rig.send(id, &publish(REPORT, body, None));
        assert_eq!(got[0].message().topic, "$iothub/twin/res/400/?$rid=r2");
        let answer = json(&got[0]);
        assert_eq!(answer["errorCode"], code);
        assert!(answer["trackingId"].is_string() && answer["timestampUtc"].is_string());
        assert!(answer["info"].is_null());
    }
    assert_eq!(
        rig.hub.twin(&whom("dev1")).unwrap()["properties"]["reported"]["$version"],
        1
    );
}

#[test]
fn a_section_grows_to_32_kb_and_no_further() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(TWIN_ANSWERS, 0)]);
    for number in 0..8 {
        let value = "x".repeat(4094);
        let body = json!({ format!("k{number}"): value }).to_string();
        let got = rig.send(id, &publish(REPORT, body.as_bytes(), None));
        assert!(got[0].message().topic.contains("/204/"), "{number}");
    }
    let got = rig.send(id, &publish(REPORT, br#"{"one":1}"#, None));
    assert_eq!(json(&got[0])["errorCode"], 400_004);
}

#[test]
fn without_an_api_version_reported_properties_are_refused() {
    let mut rig = Rig::new();
    let (id, _) = rig.say(&Hello {
        username: format!("{HUB}/dev1"),
        ..Hello::dev1()
    });
    rig.send(id, &subscribe(1, &[(TWIN_ANSWERS, 0)]));
    let got = rig.send(id, &publish(REPORT, b"{}", None));
    assert_eq!(json(&got[0])["errorCode"], 400_001);
}

#[test]
fn a_desired_change_is_announced_with_its_version() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(DESIRED, 1)]);
    patch(&mut rig, json!({"a": 1, "b": {"c": 2}}));
    patch(&mut rig, json!({"b": {"c": null}}));
    let got = rig.got(id);
    assert_eq!(
        got[0].message().topic,
        "$iothub/twin/PATCH/properties/desired/?$version=2"
    );
    assert_eq!(json(&got[0]), json!({"a": 1, "b": {"c": 2}, "$version": 2}));
    assert_eq!(json(&got[1]), json!({"b": {"c": null}, "$version": 3}));
    assert_eq!(got[1].message().qos, 0);
}

#[test]
fn a_change_while_the_device_is_away_is_not_announced_later() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(DESIRED, 0)]);
    rig.send(id, &DISCONNECT);
    patch(&mut rig, json!({"a": 1}));
    assert_eq!(rig.connect().1, [Got::accepted(true)]);
}

#[test]
fn a_replacement_is_announced_by_existence() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(DESIRED, 0)]);
    patch(&mut rig, json!({"a": 1, "b": 2, "o": {"x": 1, "y": 1}}));
    rig.got(id);
    let change = TwinChange::Replace {
        tags: Map::new(),
        desired: object(json!({"a": 1, "c": 100, "o": {"x": 1}})),
    };
    let twin = rig
        .hub
        .update_twin(&whom("dev1"), change, None, rig.now)
        .unwrap();
    let announced = json(&rig.got(id)[0]);
    assert_eq!(
        announced,
        json!({"a": 1, "c": 100, "o": {"x": 1, "y": null}, "b": null, "$version": 3})
    );
    let mut desired = twin["properties"]["desired"].clone();
    desired.as_object_mut().unwrap().shift_remove("$metadata");
    assert_eq!(
        desired,
        json!({"a": 1, "o": {"x": 1}, "c": 100, "$version": 3})
    );
}

#[test]
fn every_property_that_was_sent_is_stamped() {
    let mut rig = Rig::new();
    patch(&mut rig, json!({"a": 1, "b": {"c": 2}}));
    rig.wait(Duration::from_secs(60));
    let twin = patch(&mut rig, json!({"a": 1}));
    let metadata = &twin["properties"]["desired"]["$metadata"];
    assert_eq!(metadata["a"]["$lastUpdatedVersion"], 3);
    assert_eq!(metadata["a"]["$lastUpdated"], "2025-01-01T00:01:00Z");
    assert_eq!(metadata["b"]["c"]["$lastUpdated"], "2025-01-01T00:00:00Z");
    assert_eq!(metadata["b"]["$lastUpdatedVersion"], 2);
    assert_eq!(metadata["$lastUpdatedVersion"], 3);
    let reported = &twin["properties"]["reported"]["$metadata"];
    assert!(reported.get("$lastUpdatedVersion").is_none());
}

#[test]
fn the_etag_moves_with_the_service_only_and_guards() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(TWIN_ANSWERS, 0)]);
    assert_eq!(rig.hub.twin(&whom("dev1")).unwrap()["etag"], "AAAAAAAAAAE=");
    rig.send(id, &publish(REPORT, b"{}", None));
    assert_eq!(rig.hub.twin(&whom("dev1")).unwrap()["etag"], "AAAAAAAAAAE=");
    let change = || TwinChange::Merge {
        tags: Some(object(json!({"room": 1}))),
        desired: None,
    };
    let first = IfMatch::parse("\"AAAAAAAAAAE=\"");
    let twin = rig
        .hub
        .update_twin(&whom("dev1"), change(), Some(&first), rig.now)
        .unwrap();
    assert_eq!(
        (&twin["etag"], &twin["tags"]),
        (&json!("AAAAAAAAAAI="), &json!({"room": 1}))
    );
    assert_eq!(twin["properties"]["desired"]["$version"], 1);
    let stale = rig
        .hub
        .update_twin(&whom("dev1"), change(), Some(&first), rig.now);
    assert_eq!(stale.unwrap_err().code, ErrorCode::PreconditionFailed);
}

#[test]
fn tags_have_a_limit_of_their_own_and_a_broken_rule_changes_nothing() {
    let mut rig = Rig::new();
    let change = TwinChange::Merge {
        tags: Some(object(
            json!({"a": "x".repeat(4096), "b": "x".repeat(4096)}),
        )),
        desired: Some(object(json!({"a": 1}))),
    };
    let error = rig
        .hub
        .update_twin(&whom("dev1"), change, None, rig.now)
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::ArgumentInvalid);
    let twin = rig.hub.twin(&whom("dev1")).unwrap();
    assert_eq!(
        (&twin["etag"], &twin["tags"]),
        (&json!("AAAAAAAAAAE="), &json!({}))
    );
    assert_eq!(twin["properties"]["desired"]["$version"], 1);
}
