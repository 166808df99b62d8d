//! Where a query goes on: the continuation token.
//!
//! It names the last row that was given, not a number of rows, so devices that come and go between two pages make no other
//! device appear twice or not at all. It belongs to one query's text and says nothing that the caller may not see.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use iothub::ErrorCode;

use crate::hub::Error;

/// Where the next page begins.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(in crate::hub) struct Position {
    /// Rows that were given so far: `TOP` counts over all pages.
    pub(in crate::hub) given: u64,
    /// The key of the last one; empty at the beginning.
    pub(in crate::hub) after: String,
}

impl Position {
    /// The token for what was asked with `text`.
    pub(in crate::hub) fn encode(&self, text: &str) -> String {
        BASE64.encode(format!(
            "{:016x}.{}.{}",
            digest(text),
            self.given,
            self.after
        ))
    }

    /// # Errors
    ///
    /// It is no token of ours, or that of another query.
    pub(in crate::hub) fn decode(token: &str, text: &str) -> Result<Self, Error> {
        let read = || {
            if token.len() > TOKEN {
                return None;
            }
            let bytes = BASE64.decode(token).ok()?;
            let content = String::from_utf8(bytes).ok()?;
            let mut parts = content.splitn(3, '.');
            let (owner, given, after) = (parts.next()?, parts.next()?, parts.next()?);
            let is_ours = owner == format!("{:016x}", digest(text));
            Some(Self {
                given: given.parse().ok().filter(|_| is_ours)?,
                after: after.to_owned(),
            })
        };
        read().ok_or_else(|| {
            Error::new(
                ErrorCode::ArgumentInvalid,
                "The continuation token is not one of this query.",
            )
        })
    }
}

fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Characters of a token: the longest key is that of a module's job, of three ids of 128 characters at most.
const TOKEN: usize = 1024;
