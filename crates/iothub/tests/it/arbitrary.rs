//! Values of every kind, for property tests.

use proptest::{collection::vec, option, prelude::*};
use serde_json::{Map, Value};
use tombolo_iothub::{
    DeviceId, HubName, Identity, MethodName, ModuleId, PropertyBag, topic::RequestId,
};

const ID: &str = "[A-Za-z0-9:.%_*?!(),=@;$'-]{1,128}";

pub(crate) fn device_id() -> impl Strategy<Value = DeviceId> {
    ID.prop_map(|id| id.parse().unwrap())
}

pub(crate) fn module_id() -> impl Strategy<Value = ModuleId> {
    ID.prop_map(|id| id.parse().unwrap())
}

pub(crate) fn hub_name() -> impl Strategy<Value = HubName> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]{1,10}){0,3}".prop_map(|name| name.parse().unwrap())
}

pub(crate) fn identity() -> impl Strategy<Value = Identity> {
    (hub_name(), device_id(), option::of(module_id())).prop_map(
        |(hub, device, module)| match module {
            None => Identity::device(hub, device),
            Some(module) => Identity::module(hub, device, module),
        },
    )
}

pub(crate) fn method_name() -> impl Strategy<Value = MethodName> {
    "[A-Za-z0-9!%&'*._`|~^-]{1,100}".prop_map(|name| name.parse().unwrap())
}

pub(crate) fn request_id() -> impl Strategy<Value = RequestId> {
    "[!-~]{1,64}".prop_filter_map("characters of a topic", |rid| RequestId::new(&rid).ok())
}

pub(crate) fn bag() -> impl Strategy<Value = PropertyBag> {
    vec((any::<String>(), option::of(any::<String>())), 0..6).prop_map(|pairs| {
        let mut bag = PropertyBag::new();
        for (key, value) in pairs {
            match value {
                Some(value) => bag.push(key, value),
                // A pair with neither key nor value is no pair on the wire.
                None if key.is_empty() => {}
                None => bag.push_key(key),
            }
        }
        bag
    })
}

/// Keys and values from a small set, so that documents and patches meet.
pub(crate) fn object() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        "[xy]{0,2}".prop_map(Value::from),
        vec((0..3_i64).prop_map(Value::from), 0..3).prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        vec(("[abc]", inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
    });
    vec(("[abc]", value), 0..4).prop_map(|pairs| pairs.into_iter().collect())
}
