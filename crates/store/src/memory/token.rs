//! Lock tokens: random GUIDs.

use std::fmt::Write as _;

use crate::{LockToken, StoreError};

/// A lock token as it is kept: the GUID's 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token(u128);

impl Token {
    /// A token that nobody can guess.
    pub(super) fn random() -> Result<Self, StoreError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            tracing::error!(%error, "the system gives no random bytes");
            StoreError::Unavailable
        })?;
        // Version 4, variant 1 (RFC 9562, section 5.4).
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(u128::from_be_bytes(bytes)))
    }

    /// The token with these bits.
    pub(crate) const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub(crate) const fn bits(self) -> u128 {
        self.0
    }

    /// The token with this text, if the text is a GUID at all.
    pub(super) fn parse(token: &LockToken) -> Option<Self> {
        let text = token.as_str();
        let is_guid = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        if !is_guid {
            return None;
        }
        let digits = text.bytes().filter(|byte| *byte != b'-');
        digits
            .map(|byte| char::from(byte).to_digit(16))
            .try_fold(0, |bits, digit| Some(bits << 4 | u128::from(digit?)))
            .map(Self)
    }

    pub(super) fn to_lock_token(self) -> LockToken {
        let mut text = String::with_capacity(36);
        for (index, byte) in self.0.to_be_bytes().into_iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            write!(text, "{byte:02x}").expect("a string takes any text");
        }
        LockToken::from_text(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text() {
        let token = Token::random().unwrap();
        assert_eq!(Token::parse(&token.to_lock_token()), Some(token));
        let text = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let known = Token::parse(&LockToken::from_text(text)).unwrap();
        assert_eq!(known.to_lock_token().as_str(), text);
    }

    #[test]
    fn what_is_no_guid_is_no_token() {
        for text in [
            "",
            "0f8fad5bd9cb469fa16570867728950e",
            "0f8fad5b-d9cb-469f-a165-70867728950",
            "0f8fad5b-d9cb-469f-a165-7086772895é",
            "+f8fad5b-d9cb-469f-a165-70867728950e",
            "0f8fad5b-d9cb-469f-a165-70867728950e0",
        ] {
            assert_eq!(Token::parse(&LockToken::from_text(text)), None, "{text}");
        }
    }
}
