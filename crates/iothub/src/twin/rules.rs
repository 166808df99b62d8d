//! What a twin may hold ("Understand and use device twins in IoT Hub"; EdgeHub's `ReportedPropertiesValidator`).

use serde_json::{Map, Value};

use super::limits;

/// A rule of the twin that a patch or document breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("property {path:?}: {rule}")]
pub struct RuleBroken {
    /// Keys from the root, joined by dots; empty for the whole document.
    pub path: String,
    /// The rule.
    pub rule: Rule,
}

/// The rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// A key with no character.
    #[error("a key is not empty")]
    EmptyKey,
    /// A key longer than [`limits::TWIN_KEY_BYTES`].
    #[error("a key has at most {limit} bytes, this one has {0}", limit = limits::TWIN_KEY_BYTES)]
    KeyTooLong(usize),
    /// A character that keys cannot have.
    #[error(
        "a key cannot have the character {0:?} (no control characters, white space, '.', '$' or '#')"
    )]
    KeyCharacter(char),
    /// Deeper than [`limits::TWIN_DEPTH`].
    #[error("nesting is at most {} levels deep", limits::TWIN_DEPTH)]
    TooDeep,
    /// A string longer than [`limits::TWIN_STRING_BYTES`].
    #[error(
        "a string has at most {limit} bytes, this one has {0}",
        limit = limits::TWIN_STRING_BYTES
    )]
    StringTooLong(usize),
    /// An integer outside [`limits::TWIN_INTEGER`].
    #[error("an integer is between {} and {}", limits::TWIN_INTEGER.start(), limits::TWIN_INTEGER.end())]
    Integer,
    /// `null` inside an array.
    #[error("null, which removes a property, cannot stand inside an array")]
    NullInArray,
    /// A section larger than it may be.
    #[error("the properties have at most {limit} bytes, these have {size}")]
    TooLarge {
        /// Bytes as the hub counts them.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Checks what one merge patch can break alone.
///
/// # Errors
///
/// The first rule that is broken, in document order.
pub fn check_patch(patch: &Map<String, Value>) -> Result<(), RuleBroken> {
    check_object(patch, &mut Vec::new(), false)?;
    check_size(patch, limits::TWIN_SECTION_BYTES)
}

/// Checks the size of a section, or of the tags, as the hub counts it.
///
/// # Errors
///
/// It is larger than `limit` bytes.
pub fn check_size(properties: &Map<String, Value>, limit: usize) -> Result<(), RuleBroken> {
    let size = section_size(properties);
    if size <= limit {
        return Ok(());
    }
    Err(RuleBroken {
        path: String::new(),
        rule: Rule::TooLarge { size, limit },
    })
}

/// Bytes of a section as the hub counts them: keys in UTF-8; strings by characters without control characters,
/// numbers 8, booleans 4.
#[must_use]
pub fn section_size(properties: &Map<String, Value>) -> usize {
    properties
        .iter()
        .map(|(key, value)| key.len() + value_size(value))
        .sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.chars().filter(|c| !c.is_control()).count(),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(object) => section_size(object),
    }
}

fn check_object<'a>(
    object: &'a Map<String, Value>,
    path: &mut Vec<&'a str>,
    in_array: bool,
) -> Result<(), RuleBroken> {
    for (key, value) in object {
        path.push(key);
        check_key(key)
            .and_then(|()| check_depth(path.len()))
            .map_err(|rule| broken(path, rule))?;
        check_value(value, path, in_array)?;
        path.pop();
    }
    Ok(())
}

fn check_value<'a>(
    value: &'a Value,
    path: &mut Vec<&'a str>,
    in_array: bool,
) -> Result<(), RuleBroken> {
    let rule = match value {
        Value::Null if in_array => Some(Rule::NullInArray),
        Value::Null | Value::Bool(_) => None,
        Value::Number(number) => (!is_in_range(number)).then_some(Rule::Integer),
        Value::String(text) => {
            (text.len() > limits::TWIN_STRING_BYTES).then_some(Rule::StringTooLong(text.len()))
        }
        Value::Array(items) => return items.iter().try_for_each(|item| check_item(item, path)),
        Value::Object(object) => return check_object(object, path, in_array),
    };
    rule.map_or(Ok(()), |rule| Err(broken(path, rule)))
}

/// An array counts as a level of its own, or nested arrays could be as deep as they like.
fn check_item<'a>(item: &'a Value, path: &mut Vec<&'a str>) -> Result<(), RuleBroken> {
    path.push("[]");
    check_depth(path.len()).map_err(|rule| broken(path, rule))?;
    check_value(item, path, true)?;
    path.pop();
    Ok(())
}

fn check_key(key: &str) -> Result<(), Rule> {
    if key.is_empty() {
        return Err(Rule::EmptyKey);
    }
    if let Some(bad) = key
        .chars()
        .find(|c| c.is_control() || c.is_whitespace() || matches!(c, '.' | '$' | '#'))
    {
        return Err(Rule::KeyCharacter(bad));
    }
    if key.len() > limits::TWIN_KEY_BYTES {
        return Err(Rule::KeyTooLong(key.len()));
    }
    Ok(())
}

fn check_depth(depth: usize) -> Result<(), Rule> {
    if depth > limits::TWIN_DEPTH {
        Err(Rule::TooDeep)
    } else {
        Ok(())
    }
}

fn is_in_range(number: &serde_json::Number) -> bool {
    if number.is_f64() {
        return true;
    }
    number
        .as_i64()
        .is_some_and(|integer| limits::TWIN_INTEGER.contains(&integer))
}

fn broken(path: &[&str], rule: Rule) -> RuleBroken {
    RuleBroken {
        path: path.join("."),
        rule,
    }
}
