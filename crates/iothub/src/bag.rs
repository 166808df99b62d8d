//! The property bag at the end of a topic: `key=value&key=value`, percent-encoded.
//!
//! A space is `%20`; `+` is a literal plus. A key without `=` has no value, `key=` has an empty one.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Ordered key-values; keys may repeat, as they do on the wire.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PropertyBag(Vec<(String, Option<String>)>);

/// Why a text is no property bag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseBagError {
    /// The percent-decoded bytes are no UTF-8.
    #[error("property {index} is not UTF-8 after percent-decoding")]
    NotUtf8 {
        /// Place of the pair in the bag, from 0.
        index: usize,
    },
    /// A character that must be percent-encoded stands raw. The hub closes the connection on it.
    #[error("property {index} has a raw {character:?} that must be percent-encoded")]
    Raw {
        /// Place of the pair in the bag, from 0.
        index: usize,
        /// The character.
        character: char,
    },
}

impl PropertyBag {
    /// An empty bag.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a pair at the end.
    pub fn push(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.push((key.into(), Some(value.into())));
    }

    /// Adds a key that has no value.
    pub fn push_key(&mut self, key: impl Into<String>) {
        self.0.push((key.into(), None));
    }

    /// The value of the first pair with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .and_then(|(_, v)| v.as_deref())
    }

    /// Whether there is no pair.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_deref()))
    }

    /// Reads the wire form. An empty text is an empty bag; empty pairs (`a=1&&b=2`, a trailing `&`) are passed over.
    ///
    /// # Errors
    ///
    /// A raw character that the hub refuses, or text that is not UTF-8.
    pub fn parse(text: &str) -> Result<Self, ParseBagError> {
        let mut bag = Self::new();
        for (index, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
            // "If there are characters in the bag that must be encoded, a raw ':' for one, the hub closes the
            // connection" (azure-iot-sdk-c issue 869). '/' would be another topic level.
            if let Some(character) = pair
                .chars()
                .find(|c| matches!(c, ':' | '/' | '#' | '+' | ' ') || c.is_control())
            {
                return Err(ParseBagError::Raw { index, character });
            }
            let decode = |part: &str| {
                percent_decode_str(part)
                    .decode_utf8()
                    .map(std::borrow::Cow::into_owned)
                    .map_err(|_| ParseBagError::NotUtf8 { index })
            };
            match pair.split_once('=') {
                Some((key, value)) => bag.push(decode(key)?, decode(value)?),
                None => bag.push_key(decode(pair)?),
            }
        }
        Ok(bag)
    }

    /// Writes the wire form onto `topic`.
    pub fn encode_onto(&self, topic: &mut String) {
        for (index, (key, value)) in self.0.iter().enumerate() {
            if index > 0 {
                topic.push('&');
            }
            topic.extend(utf8_percent_encode(key, ENCODED));
            if let Some(value) = value {
                topic.push('=');
                topic.extend(utf8_percent_encode(value, ENCODED));
            }
        }
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for PropertyBag {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(k, v)| (k.into(), Some(v.into())))
                .collect(),
        )
    }
}

/// All but RFC 3986's unreserved characters: the captures of Microsoft's SDKs encode at least `/ + # & = % ? :`
/// and space, and `$` as `%24`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
