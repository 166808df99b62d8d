//! The names that the service goes by: id scopes, registrations, groups.

use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

use iothub::DeviceId;
use serde::{Deserialize, Serialize};

/// The name of one provisioning service among all: `0ne` and eight hexadecimal digits in Microsoft's examples.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdScope(Arc<str>);

/// Names a registration, and the individual enrollment that it comes from.
///
/// Up to 128 letters, digits and `-`, `.`, `_`, `:`, none of these four at the ends; compared without regard to case (the
/// service's REST specification). How it was written is kept: tokens and derived keys are made from that.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistrationId {
    written: Arc<str>,
    folded: Arc<str>,
}

/// Names an enrollment group; the same rules as those of [`RegistrationId`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(RegistrationId);

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// None, or more than 128 characters.
    #[error("an id has 1 to {MOST} characters, this one has {0}")]
    Length(usize),
    /// A character that may not be there.
    #[error("an id has letters, digits and - . _ :, and these four not at its ends")]
    Character,
}

/// Why a text is no id scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id scope has 1 to {MOST} letters and digits")]
pub struct InvalidIdScope;

impl IdScope {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a device means this scope.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0.eq_ignore_ascii_case(text)
    }
}

impl FromStr for IdScope {
    type Err = InvalidIdScope;

    fn from_str(text: &str) -> Result<Self, InvalidIdScope> {
        let is_valid = (1..=MOST).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidIdScope)
        }
    }
}

impl fmt::Display for IdScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl RegistrationId {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// In lower case: equal for all spellings.
    pub(super) fn folded(&self) -> &str {
        &self.folded
    }

    /// The device that has this name at its hub if its enrollment says no other.
    pub(super) fn device(&self) -> DeviceId {
        let device = self.written.parse();
        device.expect("its alphabet and length are within those of device ids")
    }
}

impl FromStr for RegistrationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if !(1..=MOST).contains(&text.len()) {
            return Err(InvalidId::Length(text.chars().count()));
        }
        let is_special = |byte: u8| b"-._:".contains(&byte);
        let bytes = text.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        if bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || is_special(*b))
            && !ends.into_iter().flatten().any(|b| is_special(*b))
        {
            Ok(Self {
                written: text.into(),
                folded: text.to_ascii_lowercase().into(),
            })
        } else {
            Err(InvalidId::Character)
        }
    }
}

impl TryFrom<String> for RegistrationId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<RegistrationId> for String {
    fn from(id: RegistrationId) -> Self {
        id.written.as_ref().to_owned()
    }
}

impl PartialEq for RegistrationId {
    fn eq(&self, other: &Self) -> bool {
        self.folded == other.folded
    }
}

impl Eq for RegistrationId {}

impl PartialOrd for RegistrationId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RegistrationId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded.cmp(&other.folded)
    }
}

impl fmt::Display for RegistrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Debug for RegistrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl GroupId {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for GroupId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.parse().map(Self)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Characters of an id (the service's REST specification).
const MOST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_128_characters() {
        let id = |text: &str| text.parse::<RegistrationId>().map(|id| id.to_string());
        assert_eq!(id(""), Err(InvalidId::Length(0)));
        assert!(id("a").is_ok());
        assert!(id(&"a".repeat(127)).is_ok());
        assert!(id(&"a".repeat(128)).is_ok());
        assert_eq!(id(&"a".repeat(129)), Err(InvalidId::Length(129)));
    }

    #[test]
    fn an_id_keeps_to_its_alphabet() {
        for good in ["reg-1", "sn-007-888-abc-mac-a1-b2", "a:b.c_d", "R2"] {
            assert!(good.parse::<RegistrationId>().is_ok(), "{good}");
        }
        for bad in ["-a", "a-", ".a", "a:", "a/b", "a b", "a%b", "é", "a\n"] {
            assert_eq!(bad.parse::<GroupId>(), Err(InvalidId::Character), "{bad}");
        }
    }

    #[test]
    fn ids_are_compared_without_case_and_keep_their_spelling() {
        let id: RegistrationId = "Reg-1".parse().unwrap();
        assert_eq!(id, "rEG-1".parse().unwrap());
        assert_eq!(id.as_str(), "Reg-1");
        assert_eq!(id.device().as_str(), "Reg-1");
    }

    #[test]
    fn a_scope_has_letters_and_digits() {
        assert!("0ne00000001".parse::<IdScope>().unwrap().is("0NE00000001"));
        for bad in ["", "0ne/1", "0ne 1", &"a".repeat(129)] {
            assert_eq!(bad.parse::<IdScope>(), Err(InvalidIdScope));
        }
    }
}
