//! What operators do.

use super::*;
use crate::{
    hub::IfMatch,
    provisioning::service::{Code, check_query},
};

#[test]
fn an_enrollment_is_written_and_read() {
    let mut rig = Rig::new();
    let body = enrollment(json!({
        "registrationId": "Reg-2",
        "deviceId": "pump-7",
        "initialTwin": {
            "tags": { "site": "x" },
            "properties": { "desired": { "interval": 5, "$version": 1 } },
        },
        "iotHubs": ["b.example"],
        "allocationPolicy": "static",
        "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false },
        "optionalDeviceInformation": { "rack": 3 },
    }));
    let written = write(&mut rig, "Reg-2", body, None).unwrap();
    let keys = &written["attestation"]["symmetricKey"];
    assert!(keys["primaryKey"].is_string() && keys["secondaryKey"].is_string());
    let read = rig.service.read::<Individual>(&reg("reg-2")).unwrap();
    assert_eq!(
        read,
        json!({
            "registrationId": "Reg-2",
            "attestation": { "type": "symmetricKey" },
            "capabilities": { "iotEdge": false },
            "etag": written["etag"],
            "initialTwin": {
                "tags": { "site": "x" },
                "properties": { "desired": { "interval": 5 } },
            },
            "provisioningStatus": "enabled",
            "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false },
            "createdDateTimeUtc": "2025-12-31T23:50:00Z",
            "lastUpdatedDateTimeUtc": "2025-12-31T23:50:00Z",
            "allocationPolicy": "static",
            "deviceId": "pump-7",
            "optionalDeviceInformation": { "rack": 3 },
            "iotHubs": ["b.example"],
        })
    );
    let mechanism = rig.service.mechanism::<Individual>(&reg("reg-2")).unwrap();
    assert_eq!(mechanism, written["attestation"]);
}

#[test]
fn an_enrollment_shows_its_registration() {
    let mut rig = Rig::new();
    rig.provision("reg-1", Ok(()));
    let read = rig.service.read::<Individual>(&reg("reg-1")).unwrap();
    assert_eq!(read["registrationState"]["status"], "assigned");
    assert_eq!(
        rig.service.registration(&reg("reg-1")).unwrap(),
        read["registrationState"]
    );
}

#[test]
fn what_is_not_emulated_is_refused_by_name() {
    for (body, named) in [
        (json!({ "attestation": { "type": "tpm" } }), "tpm"),
        (json!({ "attestation": { "type": "none" } }), "none"),
        (json!({ "attestation": {} }), "attestation.type"),
        (json!({}), "attestation"),
        (json!({ "attestation": { "type": "x509" } }), "x509"),
        (
            json!({ "attestation": { "type": "x509", "x509": {} } }),
            "clientCertificates",
        ),
        (
            json!({ "attestation": { "type": "x509", "x509": { "clientCertificates": { "primary": { "certificate": "AAAA" } } } } }),
            "clientCertificates.primary",
        ),
        (
            json!({ "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": "x" } } }),
            "primaryKey",
        ),
        (
            enrollment(json!({ "registrationId": "reg-3" })),
            "registrationId",
        ),
        (enrollment(json!({ "deviceId": "a/b" })), "deviceId"),
        (
            enrollment(json!({ "allocationPolicy": "custom" })),
            "custom",
        ),
        (
            enrollment(json!({ "allocationPolicy": "static" })),
            "static",
        ),
        (enrollment(json!({ "allocationPolicy": "best" })), "best"),
        (enrollment(json!({ "iotHubs": ["c.example"] })), "c.example"),
        (
            enrollment(json!({ "capabilities": { "iotEdge": true } })),
            "iotEdge",
        ),
        (
            enrollment(json!({ "provisioningStatus": "maybe" })),
            "maybe",
        ),
        (
            enrollment(json!({ "initialTwin": { "tags": { "a.b": 1 } } })),
            "initialTwin",
        ),
        (json!([]), "no enrollment"),
    ] {
        let mut rig = Rig::new();
        let refused = write(&mut rig, "reg-2", body.clone(), None).unwrap_err();
        assert_eq!(refused.code, Code::BadFormat, "{body}");
        assert!(
            refused.message.contains(named),
            "{body}: {}",
            refused.message
        );
    }
}

#[test]
fn the_older_way_to_name_a_hub_is_taken() {
    let mut rig = Rig::new();
    let body = enrollment(json!({ "iotHubHostName": "b.example" }));
    let written = write(&mut rig, "reg-2", body, None).unwrap();
    assert_eq!(written["allocationPolicy"], "static");
    assert_eq!(written["iotHubs"], json!(["b.example"]));
}

#[test]
fn a_condition_is_kept() {
    let mut rig = Rig::new();
    let any = IfMatch::Any;
    let missing = write(&mut rig, "reg-2", enrollment(json!({})), Some(&any)).unwrap_err();
    assert_eq!(missing.code.number(), 404_201);
    let first = write(&mut rig, "reg-2", enrollment(json!({})), None).unwrap();
    let etag = IfMatch::parse(first["etag"].as_str().unwrap());
    let second = write(&mut rig, "reg-2", enrollment(json!({})), Some(&etag)).unwrap();
    assert_ne!(first["etag"], second["etag"]);
    let stale = write(&mut rig, "reg-2", enrollment(json!({})), Some(&etag)).unwrap_err();
    assert_eq!(stale.code.status(), 412);
    let stale = rig.service.remove::<Individual>(&reg("reg-2"), Some(&etag));
    assert_eq!(stale.unwrap_err().code.status(), 412);
    rig.service
        .remove::<Individual>(&reg("reg-2"), Some(&any))
        .unwrap();
    let gone = rig.service.remove::<Individual>(&reg("reg-2"), None);
    assert_eq!(gone.unwrap_err().code.number(), 404_201);
}

#[test]
fn a_registration_is_deleted_by_its_tag_or_with_its_enrollment() {
    let mut rig = Rig::new();
    rig.provision("reg-1", Ok(()));
    let other = IfMatch::Etag("other".to_owned());
    let refused = rig.service.delete_registration(&reg("reg-1"), Some(&other));
    assert_eq!(refused.unwrap_err().code.status(), 412);
    rig.service
        .delete_registration(&reg("reg-1"), None)
        .unwrap();
    rig.provision("reg-1", Ok(()));
    rig.service
        .remove::<Individual>(&reg("reg-1"), None)
        .unwrap();
    assert_eq!(
        rig.service.registration(&reg("reg-1")).unwrap_err().code,
        Code::NotFound
    );
}

#[test]
fn lists_come_in_pages() {
    let mut rig = Rig::new();
    for id in ["reg-2", "reg-3"] {
        rig.enroll(id, |_| {});
    }
    let list = |rig: &Rig, most, token: Option<&str>| {
        let page = rig.service.list::<Individual>(most, token).unwrap();
        let ids = page
            .items
            .iter()
            .map(|item| item["registrationId"].as_str().unwrap().to_owned());
        (ids.collect::<Vec<_>>(), page.continuation)
    };
    let (first, token) = list(&rig, 2, None);
    assert_eq!(first, ["reg-1", "reg-2"]);
    let token = token.unwrap();
    let (second, end) = list(&rig, 2, Some(&token));
    assert_eq!((second, end), (vec!["reg-3".to_owned()], None));
    assert_eq!(list(&rig, 3, None).1, None);
    for wrong in ["", "!", "cmVn"] {
        assert_eq!(
            rig.service
                .list::<Individual>(2, Some(wrong))
                .unwrap_err()
                .code,
            Code::BadFormat
        );
    }
    assert!(rig.service.list::<Group>(2, Some(&token)).is_err());
}

#[test]
fn registrations_are_listed_by_group() {
    let mut rig = Rig::new();
    rig.provision("reg-1", Ok(()));
    for id in ["a", "b", "c"] {
        let token = group_key().derive(id).sign(
            &format!("{SCOPE}/registrations/{id}"),
            None,
            Timestamp::from_unix_seconds(EXPIRY),
        );
        rig.service
            .register(&reg(id), by_token(&token), b"", rig.now)
            .unwrap();
    }
    let group = "Group-1".parse().unwrap();
    let page = rig.service.list_registrations(&group, 2, None).unwrap();
    assert_eq!(page.items.len(), 2);
    let token = page.continuation.unwrap();
    let page = rig
        .service
        .list_registrations(&group, 2, Some(&token))
        .unwrap();
    assert_eq!(page.items[0]["registrationId"], "c");
    assert_eq!(page.continuation, None);
    let unknown = "group-2".parse().unwrap();
    assert!(rig.service.list_registrations(&unknown, 2, None).is_err());
    rig.service.remove::<Group>(&group, None).unwrap();
    assert!(rig.service.registration(&reg("a")).is_err());
    assert!(rig.service.registration(&reg("reg-1")).is_ok());
}

#[test]
fn queries_say_everything_or_nothing() {
    for query in [
        "",
        "*",
        "SELECT * FROM enrollments",
        "select *",
        " Select  *  From EnrollmentGroups ",
    ] {
        assert!(check_query(query).is_ok(), "{query}");
    }
    for query in [
        "SELECT etag FROM enrollments",
        "SELECT * FROM enrollments WHERE a = 1",
        "DROP",
    ] {
        assert!(check_query(query).is_err(), "{query}");
    }
}

#[test]
fn a_bulk_operation_does_what_it_can() {
    let mut rig = Rig::new();
    let mut bulk = |mode: &str, items: Vec<Value>| {
        let body = json!({ "mode": mode, "enrollments": items });
        rig.service.bulk::<Individual>(&body, rig.now)
    };
    let item = |id: &str| enrollment(json!({ "registrationId": id }));
    let done = bulk("create", vec![item("reg-1"), item("reg-2"), item("-")]).unwrap();
    assert_eq!(done["isSuccessful"], false);
    let errors = done["errors"].as_array().unwrap();
    let codes: Vec<_> = errors
        .iter()
        .map(|e| (e["registrationId"].clone(), e["errorCode"].clone()))
        .collect();
    assert_eq!(
        codes,
        [
            (json!("reg-1"), json!(409_000)),
            (json!("-"), json!(400_000))
        ]
    );
    let done = bulk("update", vec![item("reg-2"), item("reg-3")]).unwrap();
    assert_eq!(done["errors"][0]["errorCode"], 404_201);
    let mut tagged = item("reg-2");
    tagged["etag"] = json!("\"other\"");
    let done = bulk("updateIfMatchETag", vec![tagged]).unwrap();
    assert_eq!(done["errors"][0]["errorCode"], 412_000);
    let done = bulk("delete", vec![item("reg-1"), item("reg-2")]).unwrap();
    assert_eq!(done, json!({ "isSuccessful": true, "errors": [] }));
    assert!(bulk("replace", vec![]).is_err());
    for (count, is_taken) in [(9, true), (10, true), (11, false)] {
        let items = (0..count).map(|n| item(&format!("reg-{n}"))).collect();
        assert_eq!(bulk("create", items).is_ok(), is_taken, "{count}");
    }
}

#[test]
fn groups_are_bounded() {
    let mut rig = Rig::with(|config| config.limits.groups = 2);
    for (id, is_taken) in [("group-2", true), ("group-3", false), ("group-1", true)] {
        let written =
            rig.service
                .write::<Group>(&id.parse().unwrap(), enrollment(json!({})), None, rig.now);
        assert_eq!(written.is_ok(), is_taken, "{id}");
    }
}

#[test]
fn an_operator_has_a_token_of_the_policy() {
    let rig = Rig::new();
    let at = |seconds| Timestamp::from_unix_seconds(EXPIRY + seconds);
    let owner = Some("provisioningserviceowner");
    let hosts = ["localhost".to_owned()];
    for (token, is_taken) in [
        (key().sign("dps.example", owner, at(0)), true),
        (
            key().derive("secondary").sign("dps.example", owner, at(0)),
            true,
        ),
        (key().sign("localhost", owner, at(0)), true),
        (key().sign("DPS.example", owner, at(0)), true),
        (key().sign("other.example", owner, at(0)), false),
        (key().sign("dps.example", Some("iothubowner"), at(0)), false),
        (key().sign("dps.example", None, at(0)), false),
        (group_key().sign("dps.example", owner, at(0)), false),
        (key().sign("dps.example", owner, at(-900)), false),
        ("Bearer x".to_owned(), false),
    ] {
        let judged = rig.service.authorize(&token, &hosts, rig.now);
        assert_eq!(judged.is_ok(), is_taken, "{token}");
    }
}

fn write(rig: &mut Rig, id: &str, body: Value, if_match: Option<&IfMatch>) -> Result<Value, Error> {
    rig.service
        .write::<Individual>(&reg(id), body, if_match, rig.now)
}
