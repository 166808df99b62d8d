//! The header `Idempotency-Key`.

use std::{fmt, str::FromStr, sync::Arc};

use crate::limits;

/// A device's own name for one write, by which the gateway recognizes its copies: 16 to 128 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(Arc<str>);

/// Why a text is no idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdempotencyKey {
    /// Too short to be unique, or longer than is kept.
    #[error(
        "an idempotency key has {least} to {most} characters, this one has {0}",
        least = limits::IDEMPOTENCY_KEY_LENGTH.start(),
        most = limits::IDEMPOTENCY_KEY_LENGTH.end()
    )]
    Length(usize),
    /// Something else than visible ASCII.
    #[error("an idempotency key consists of visible ASCII characters")]
    Character,
}

impl IdempotencyKey {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidIdempotencyKey::Character);
        }
        if !limits::IDEMPOTENCY_KEY_LENGTH.contains(&text.len()) {
            return Err(InvalidIdempotencyKey::Length(text.len()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_16_to_128_visible_characters() {
        let parse = |text: &str| text.parse::<IdempotencyKey>().map(|_| ());
        assert_eq!(
            parse(&"k".repeat(15)),
            Err(InvalidIdempotencyKey::Length(15))
        );
        assert_eq!(parse(&"k".repeat(16)), Ok(()));
        assert_eq!(parse(&"~".repeat(128)), Ok(()));
        assert_eq!(
            parse(&"k".repeat(129)),
            Err(InvalidIdempotencyKey::Length(129))
        );
        assert_eq!(
            parse("0123456789 abcdef"),
            Err(InvalidIdempotencyKey::Character)
        );
        assert_eq!(
            parse("0123456789äabcdef"),
            Err(InvalidIdempotencyKey::Character)
        );
    }
}
