//! What is said of one device.

use std::path::PathBuf;

use iothub::{DeviceId, HubName, Identity, ModuleId};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use store::{Custody, MethodPolicy};

/// A device or module.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// The device's id.
    pub id: DeviceId,
    /// The module's id, if this is a module of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleId>,
    /// Its hub. May be left out if there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubName>,
    /// What its session shows the hub: `"delegated"`, a token that the gateway makes with the device's key, or
    /// `"pass-through"`, the token that the device itself sends. Default `"delegated"`.
    #[serde(default)]
    pub credential: Credential,
    /// Where its key is; for a delegated credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySource>,
    /// Where its other key is. The device may sign with either, as the hub allows. The gateway signs with `key`; when the hub
    /// refuses that one it goes over to the other, so keys can be changed one after the other without a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary_key: Option<KeySource>,
    /// Who keeps a cloud-to-device message until the device has settled it: `"gateway"`, which needs a store with a disk,
    /// or `"hub"`. Default `"gateway"` with a disk, `"hub"` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custody: Option<Custody>,
    /// What becomes of a direct method while the device cannot answer: `"fail-fast"`, `"hold"`, or `{ answer = 503 }`.
    /// Default `"fail-fast"`.
    #[serde(default)]
    pub methods: MethodPolicy,
    /// Whether its session stays open without a request that needs it. Default false.
    #[serde(default)]
    pub pinned: bool,
}

/// Who makes the tokens that the hub sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// The gateway, with the device's key.
    #[default]
    Delegated,
    /// The device.
    PassThrough,
}

/// Where a device's symmetric key is: its base64 text, as the hub shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySource {
    /// In a file: `key.file = "keys/watch-1"`.
    File(PathBuf),
    /// In an environment variable: `key.env = "WATCH_1_KEY"`.
    Env(String),
    /// In the configuration itself: `key.text = "..."`.
    Text(SecretString),
}

impl DeviceConfig {
    /// A device of the only hub, with the defaults.
    #[must_use]
    pub fn new(id: DeviceId, key: KeySource) -> Self {
        Self {
            id,
            module: None,
            hub: None,
            credential: Credential::Delegated,
            key: Some(key),
            secondary_key: None,
            custody: None,
            methods: MethodPolicy::default(),
            pinned: false,
        }
    }

    /// A device of the only hub that is passed through.
    #[must_use]
    pub fn passed_through(id: DeviceId) -> Self {
        Self {
            id,
            module: None,
            hub: None,
            credential: Credential::PassThrough,
            key: None,
            secondary_key: None,
            custody: None,
            methods: MethodPolicy::default(),
            pinned: false,
        }
    }

    /// Fields that do not go together, and why.
    pub(super) fn mistakes(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let is_passed = self.credential == Credential::PassThrough;
        let mistakes = [
            (
                !is_passed && self.key.is_none(),
                (
                    "key",
                    "say where the key is, or write credential = \"pass-through\"",
                ),
            ),
            (
                is_passed && self.key.is_some(),
                (
                    "key",
                    "a device that is passed through keeps its key to itself; leave it out",
                ),
            ),
            (
                is_passed && self.secondary_key.is_some(),
                (
                    "secondary_key",
                    "a device that is passed through keeps its key to itself; leave it out",
                ),
            ),
            (
                is_passed && self.pinned,
                (
                    "pinned",
                    "without a token of the device there is no session; only devices with a key can be pinned",
                ),
            ),
        ];
        let made = mistakes.into_iter().filter(|(is_made, _)| *is_made);
        made.map(|(_, mistake)| mistake)
    }

    pub(super) fn identity(&self, hub: HubName) -> Identity {
        match &self.module {
            None => Identity::device(hub, self.id.clone()),
            Some(module) => Identity::module(hub, self.id.clone(), module.clone()),
        }
    }
}

/// Shows where the key is, never the key.
impl Serialize for KeySource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::File(path) => map.serialize_entry("file", path)?,
            Self::Env(name) => map.serialize_entry("env", name)?,
            Self::Text(_) => map.serialize_entry("text", "***")?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn a_key_is_never_shown() {
        let config: Config = toml::from_str(
            r#"
            [[devices]]
            id = "one"
            key.text = "c2VjcmV0"
            secondary_key.text = "c2VjcmV1"
            "#,
        )
        .expect("a config");
        for text in [
            format!("{config:?}"),
            toml::to_string(&config).expect("text"),
        ] {
            assert!(!text.contains("c2VjcmV"), "{text}");
        }
    }
}
