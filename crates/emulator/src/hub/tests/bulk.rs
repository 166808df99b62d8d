use iothub::ErrorCode;

use super::*;

fn item(id: &str, action: BulkAction) -> BulkItem {
    let identity = whom(id);
    BulkItem {
        device: identity.device_id().clone(),
        module: identity.module_id().cloned(),
        action,
    }
}

fn create(id: &str) -> BulkItem {
    item(id, BulkAction::Create(BulkIdentity::default()))
}

fn codes(rig: &mut Rig, items: Vec<BulkItem>) -> Vec<Option<ErrorCode>> {
    codes_of(rig, items.into_iter().map(Ok).collect())
}

fn codes_of(rig: &mut Rig, items: Vec<Result<BulkItem, Error>>) -> Vec<Option<ErrorCode>> {
    let results = rig.hub.apply_bulk(items, rig.now).unwrap();
    let code = |result: Result<(), Error>| result.err().map(|error| error.code);
    results.into_iter().map(code).collect()
}

fn with_tags(tags: Value, if_match: IfMatch) -> BulkTwin {
    BulkTwin {
        if_match,
        tags: Some(object(tags)),
        desired: None,
    }
}

#[test]
fn each_item_stands_alone() {
    let mut rig = Rig::new();
    let unreadable = Err(Error::new(ErrorCode::ArgumentInvalid, "no id"));
    let items = vec![
        Ok(create("dev1")),
        Ok(create("dev2")),
        unreadable,
        Ok(create("dev2/m")),
        Ok(create("no/m")),
    ];
    let expected = [
        Some(ErrorCode::DeviceAlreadyExists),
        None,
        Some(ErrorCode::ArgumentInvalid),
        None,
        Some(ErrorCode::DeviceNotFound),
    ];
    assert_eq!(codes_of(&mut rig, items), expected);
    assert_eq!(rig.hub.modules(&"dev2".parse().unwrap()).unwrap().len(), 1);
}

#[test]
fn a_hundred_items_are_taken_and_one_more_is_not() {
    let mut rig = Rig::new();
    for (count, is_taken) in [(99, true), (100, true), (101, false)] {
        let items = (0..count)
            .map(|n| Ok(create(&format!("of-{count}-{n}"))))
            .collect();
        let result = rig.hub.apply_bulk(items, rig.now);
        assert_eq!(result.is_ok(), is_taken, "{count}");
    }
}

#[test]
fn what_is_named_twice_is_done_not_at_all() {
    let mut rig = Rig::new();
    let twice = Some(ErrorCode::DeviceDefinedMultipleTimes);
    let items = vec![
        create("dev2"),
        create("dev3"),
        create("dev2"),
        create("dev3/m"),
    ];
    assert_eq!(codes(&mut rig, items), [twice, None, twice, None]);
    assert!(rig.hub.device(&"dev2".parse().unwrap()).is_err());
}

#[test]
fn conditions_are_on_the_identity_and_on_the_twin_apart() {
    let mut rig = Rig::new();
    let etag = IfMatch::Etag(rig.hub.device(&dev1()).unwrap().etag);
    let stale = IfMatch::Etag("stale".to_owned());
    let identity = BulkIdentity::default;
    let failed = Some(ErrorCode::PreconditionFailed);
    for (action, expected) in [
        (BulkAction::Update(identity(), stale.clone()), failed),
        (
            BulkAction::CreateOrUpdate(identity(), stale.clone()),
            failed,
        ),
        (BulkAction::Delete(stale.clone()), failed),
        (
            BulkAction::UpdateTwin(with_tags(serde_json::json!({"a": 1}), stale.clone())),
            failed,
        ),
        (BulkAction::Update(identity(), etag), None),
        (BulkAction::CreateOrUpdate(identity(), IfMatch::Any), None),
        (
            BulkAction::UpdateTwin(with_tags(serde_json::json!({"a": 1}), IfMatch::Any)),
            None,
        ),
    ] {
        let name = format!("{action:?}");
        assert_eq!(
            codes(&mut rig, vec![item("dev1", action)]),
            [expected],
            "{name}"
        );
    }
    assert_eq!(rig.hub.twin(&whom("dev1")).unwrap()["tags"]["a"], 1);
    let gone = item("dev1", BulkAction::Delete(IfMatch::Any));
    assert_eq!(codes(&mut rig, vec![gone]), [None]);
    let missing = item("dev1", BulkAction::Update(identity(), IfMatch::Any));
    assert_eq!(
        codes(&mut rig, vec![missing]),
        [Some(ErrorCode::DeviceNotFound)]
    );
    let stale_is_of_one_that_is_there = BulkAction::CreateOrUpdate(identity(), stale);
    let items = vec![item("dev1", stale_is_of_one_that_is_there)];
    assert_eq!(codes(&mut rig, items), [None]);
}

#[test]
fn a_device_whose_twin_breaks_a_rule_is_not_created() {
    let mut rig = Rig::new();
    let new = |tags| {
        BulkAction::Create(BulkIdentity {
            twin: Some(with_tags(tags, IfMatch::Any)),
            ..BulkIdentity::default()
        })
    };
    let items = vec![
        item("good", new(serde_json::json!({"a": 1}))),
        item("bad", new(serde_json::json!({"a.b": 1}))),
    ];
    assert_eq!(
        codes(&mut rig, items),
        [None, Some(ErrorCode::ArgumentInvalid)]
    );
    assert_eq!(rig.hub.twin(&whom("good")).unwrap()["tags"]["a"], 1);
    assert!(rig.hub.device(&"bad".parse().unwrap()).is_err());
}
