//! Direct methods: a request from the cloud that expects an answer in time.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::Bytes;

use crate::limits;

/// A direct method's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodName(Arc<str>);

/// A direct method as the device sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MethodRequest {
    /// Which method.
    pub name: MethodName,
    /// JSON, or no byte at all if the caller sent none.
    pub payload: Bytes,
}

/// The device's answer to a direct method.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MethodResponse {
    /// The device's own number for how it went.
    pub status: i32,
    /// JSON, or no byte at all.
    pub payload: Bytes,
}

/// Why a text is no method name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMethodName {
    /// The text has no character.
    #[error("a method name has at least one character")]
    Empty,
    /// The text is longer than [`limits::METHOD_NAME_LENGTH`].
    #[error(
        "a method name has at most {limit} characters, this one has {0}",
        limit = limits::METHOD_NAME_LENGTH
    )]
    TooLong(usize),
    /// A character that the rule excludes.
    #[error("a method name cannot have the character {0:?}")]
    Character(char),
}

impl MethodName {
    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MethodName {
    type Err = InvalidMethodName;

    /// Printable ASCII without `$ ( ) < > @ , ; : \ " / [ ] ? = { }`, space and tab ("Understand and invoke direct
    /// methods"), and without the wildcards of MQTT.
    fn from_str(text: &str) -> Result<Self, InvalidMethodName> {
        if text.is_empty() {
            return Err(InvalidMethodName::Empty);
        }
        if let Some(bad) = text
            .chars()
            .find(|c| !c.is_ascii_graphic() || "$()<>@,;:\\\"/[]?={}+#".contains(*c))
        {
            return Err(InvalidMethodName::Character(bad));
        }
        if text.len() > limits::METHOD_NAME_LENGTH {
            return Err(InvalidMethodName::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_name_has_1_to_100_characters() {
        assert_eq!("".parse::<MethodName>(), Err(InvalidMethodName::Empty));
        assert!("m".repeat(99).parse::<MethodName>().is_ok());
        assert!("m".repeat(100).parse::<MethodName>().is_ok());
        assert_eq!(
            "m".repeat(101).parse::<MethodName>(),
            Err(InvalidMethodName::TooLong(101))
        );
    }

    #[test]
    fn a_method_name_keeps_out_what_a_topic_cannot_hold() {
        for bad in ['$', '/', '?', '=', ' ', '\t', '\n', '+', '#', 'ä'] {
            assert_eq!(
                format!("a{bad}").parse::<MethodName>(),
                Err(InvalidMethodName::Character(bad))
            );
        }
        assert!("set-Limit_2.x!*".parse::<MethodName>().is_ok());
    }
}
