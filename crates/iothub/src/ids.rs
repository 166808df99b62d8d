//! Who speaks, at which hub.
//!
//! Ids are exact: IoT Hub compares them by code unit and never decodes them in client ids, usernames or topics.
//! They are checked against the id alphabet once, when they are made, so later code cannot meet a bad one.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::limits;

/// A device's id: 1 to 128 characters of the id alphabet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(Arc<str>);

/// A module's id, unique within its device; the same alphabet as [`DeviceId`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModuleId(Arc<str>);

/// A hub's full host name in lower case, for example `contoso.azure-devices.net`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HubName(Arc<str>);

/// A device, or a module of a device, at a hub. Cheap to clone, to compare with its clones and to hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    /// First, so that two that differ are told apart by it.
    digest: u64,
    hub: HubName,
    device: DeviceId,
    module: Option<ModuleId>,
}

impl Parts {
    const fn names(&self) -> (&HubName, &DeviceId, Option<&ModuleId>) {
        (&self.hub, &self.device, self.module.as_ref())
    }
}

impl Identity {
    /// A device at a hub.
    #[must_use]
    pub fn device(hub: HubName, device: DeviceId) -> Self {
        Self::new(hub, device, None)
    }

    /// A module of a device at a hub.
    #[must_use]
    pub fn module(hub: HubName, device: DeviceId, module: ModuleId) -> Self {
        Self::new(hub, device, Some(module))
    }

    fn new(hub: HubName, device: DeviceId, module: Option<ModuleId>) -> Self {
        let mut hash = Sha256::new();
        hash.update(hub.as_str());
        hash.update([0]);
        hash.update(device.as_str());
        hash.update([0]);
        hash.update(module.as_ref().map_or("", ModuleId::as_str));
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        Self(Arc::new(Parts {
            digest: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            hub,
            device,
            module,
        }))
    }

    /// The beginning of a SHA-256 of the names: the same on every machine and in every version, and nobody can choose
    /// names that come together. It is made once, with the identity.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.0.digest
    }

    /// The hub that knows this identity.
    #[must_use]
    pub fn hub(&self) -> &HubName {
        &self.0.hub
    }

    /// The device, or the device that the module belongs to.
    #[must_use]
    pub fn device_id(&self) -> &DeviceId {
        &self.0.device
    }

    /// The module, if this is one.
    #[must_use]
    pub fn module_id(&self) -> Option<&ModuleId> {
        self.0.module.as_ref()
    }

    /// The MQTT client id: `{device}` or `{device}/{module}`.
    #[must_use]
    pub fn client_id(&self) -> String {
        match &self.0.module {
            None => self.0.device.to_string(),
            Some(module) => format!("{}/{module}", self.0.device),
        }
    }
}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.digest);
    }
}

/// By hub, device and module, so that a list reads well.
impl Ord for Identity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.names().cmp(&other.0.names())
    }
}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A map by identity that takes the digest for a hash.
pub type IdentityMap<V> = HashMap<Identity, V, BuildHasherDefault<DigestHasher>>;

/// Passes on the digest of an identity.
#[derive(Clone, Copy, Default, Debug)]
pub struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write_u64(&mut self, digest: u64) {
        self.0 = digest;
    }

    /// Not what it is for, though as right as any hash.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// `{hub}/{device}` or `{hub}/{device}/{module}`, for logs.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.hub, self.0.device)?;
        self.0
            .module
            .as_ref()
            .map_or(Ok(()), |module| write!(f, "/{module}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no device or module id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text has no character.
    #[error("an id has at least one character")]
    Empty,
    /// The text is longer than [`limits::ID_LENGTH`].
    #[error("an id has at most {limit} characters, this one has {0}", limit = limits::ID_LENGTH)]
    TooLong(usize),
    /// A character outside the alphabet.
    #[error("an id consists of A-Z a-z 0-9 and - : . % _ * ? ! ( ) , = @ ; $ ', not {0:?}")]
    Character(char),
    /// `+` and `#` are in IoT Hub's alphabet, but they are wildcards in MQTT topics, so such a device could never
    /// receive anything over MQTT.
    #[error("an id with {0:?} cannot be used over MQTT, where it is a wildcard")]
    Wildcard(char),
}

/// The alphabet of device and module ids, from `IotHubConnectionStringBuilder` of the .NET service SDK.
fn check_id(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    for character in text.chars() {
        match character {
            '+' | '#' => return Err(InvalidId::Wildcard(character)),
            'A'..='Z' | 'a'..='z' | '0'..='9' => {}
            '-' | ':' | '.' | '%' | '_' | '*' | '?' | '!' | '(' | ')' | ',' | '=' | '@' | ';'
            | '$' | '\'' => {}
            other => return Err(InvalidId::Character(other)),
        }
    }
    if text.len() > limits::ID_LENGTH {
        return Err(InvalidId::TooLong(text.len()));
    }
    Ok(())
}

/// Why a text is no hub name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a hub name is a host name, for example contoso.azure-devices.net, without scheme, port or path"
)]
pub struct InvalidHubName;

fn check_hub_name(text: &str) -> Result<(), InvalidHubName> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        Ok(())
    } else {
        Err(InvalidHubName)
    }
}

macro_rules! text_newtype {
    ($name:ident, $error:ty, $make:expr) => {
        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                let make: fn(&str) -> Result<Arc<str>, $error> = $make;
                make(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.to_string()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_newtype!(DeviceId, InvalidId, |text| check_id(text)
    .map(|()| text.into()));
text_newtype!(ModuleId, InvalidId, |text| check_id(text)
    .map(|()| text.into()));
text_newtype!(HubName, InvalidHubName, |text| check_hub_name(text)
    .map(|()| text.to_ascii_lowercase().into()));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_128_characters() {
        assert_eq!("".parse::<DeviceId>(), Err(InvalidId::Empty));
        assert!("x".parse::<DeviceId>().is_ok());
        assert!("x".repeat(127).parse::<DeviceId>().is_ok());
        assert!("x".repeat(128).parse::<DeviceId>().is_ok());
        assert_eq!(
            "x".repeat(129).parse::<DeviceId>(),
            Err(InvalidId::TooLong(129))
        );
    }

    #[test]
    fn an_id_keeps_to_the_alphabet() {
        assert!("-:.%_*?!(),=@;$'aZ09".parse::<DeviceId>().is_ok());
        for bad in ['/', '&', ' ', '\0', '\n', 'é', '"', '<', '\\'] {
            assert_eq!(
                format!("a{bad}").parse::<DeviceId>(),
                Err(InvalidId::Character(bad))
            );
        }
        for wildcard in ['+', '#'] {
            assert_eq!(
                format!("a{wildcard}").parse::<ModuleId>(),
                Err(InvalidId::Wildcard(wildcard))
            );
        }
    }

    #[test]
    fn ids_are_exact_and_hub_names_are_not() {
        assert_ne!("Dev1".parse::<DeviceId>(), "dev1".parse::<DeviceId>());
        assert_eq!(
            "Hub.Example".parse::<HubName>(),
            "hub.example".parse::<HubName>()
        );
    }

    #[test]
    fn the_digest_of_an_identity_never_changes() {
        let hub = || "contoso.azure-devices.net".parse().unwrap();
        let device = || "watch-1".parse().unwrap();
        let of_device = Identity::device(hub(), device());
        let of_module = Identity::module(hub(), device(), "sensors".parse().unwrap());
        assert_eq!(of_device.digest(), 0x64a8_3717_4713_9e3f);
        assert_eq!(of_module.digest(), 0xa5d3_3a83_382b_ab99);
    }

    #[test]
    fn identities_are_listed_by_their_names() {
        let identity = |device: &str| {
            Identity::device("hub.example".parse().unwrap(), device.parse().unwrap())
        };
        let mut listed = ["c", "a", "d", "b"].map(identity);
        listed.sort();
        assert_eq!(listed, ["a", "b", "c", "d"].map(identity));
    }

    #[test]
    fn a_hub_name_is_a_bare_host_name() {
        for bad in [
            "",
            "a b",
            "https://a",
            "a:443",
            "a/b",
            ".a",
            "a.",
            "-a",
            "a@b",
            "a..b",
        ] {
            assert_eq!(bad.parse::<HubName>(), Err(InvalidHubName), "{bad}");
        }
    }
}
