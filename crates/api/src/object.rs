//! Reading objects as objects.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// A value of a request that is an object.
///
/// What serde derives for a structure also takes a list of its members in order, which no document of ours allows: a list
/// in the place of an object is a mistake that the device should hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(Self)
    }
}

/// The same for a member of a structure.
pub(crate) fn object<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct ObjectVisitor<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(ObjectVisitor(PhantomData))
}

/// The same for a list of them.
pub(crate) fn objects<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(object)| object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{method::MethodAnswer, telemetry::Item, token::TokenRequest};

    #[test]
    fn a_list_is_no_object() {
        fn is_read<T: for<'de> Deserialize<'de>>(text: &str) -> bool {
            serde_json::from_str::<Object<T>>(text).is_ok()
        }
        assert!(is_read::<TokenRequest>("{}") && !is_read::<TokenRequest>("[]"));
        assert!(is_read::<MethodAnswer>(r#"{"status":1}"#) && !is_read::<MethodAnswer>("[1]"));
        assert!(is_read::<Item>(
            r#"{"body":"x","system":{"message_id":"m"}}"#
        ));
        assert!(!is_read::<Item>(r#"["x"]"#));
        assert!(!is_read::<Item>(r#"{"body":"x","system":["m"]}"#));
        assert!(!is_read::<Item>(r#"{"body":"x","more":1}"#));
    }
}
