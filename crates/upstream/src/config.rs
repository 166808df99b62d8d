//! Hubs, devices and times, as the operator writes them.

use std::{
    collections::BTreeSet, fmt, num::NonZeroU32, num::NonZeroUsize, path::PathBuf, str::FromStr,
    time::Duration,
};

use iothub::{DeviceId, HubName, Identity, ModuleId, limits};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use store::{Custody, DeviceRecord, MethodPolicy};

/// What this half of the gateway needs to know.
///
/// Times are written with their unit: `"300ms"`, `"10s"`, `"10m"`, `"1h"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The hubs that requests may reach. Nothing else is ever connected to.
    pub hubs: Vec<HubConfig>,
    /// The devices and modules whose keys the gateway holds.
    pub devices: Vec<DeviceConfig>,
    /// How long a session stays open after the last request that needed it. Default 10 minutes. Short: more
    /// connects, which hubs throttle; long: more memory (about 16 KiB a session).
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long after the last request that could carry a direct method the hub still offers them. Default 5 seconds.
    /// Short: a method between two polls is refused; long: callers of a sleeping device wait in vain.
    #[serde(with = "humantime_serde")]
    pub presence_grace: Duration,
    /// How long a device has for the answer to a direct method. Default 30 seconds, which is also the default of those
    /// who call; 5 seconds to 5 minutes. The hub does not tell a device how long its caller waits.
    #[serde(with = "humantime_serde")]
    pub method_timeout: Duration,
    /// Time for each step of a connection: name, TCP, TLS. Default 10 seconds. Too short: a slow network looks like no
    /// network; too long: a request waits for a hub that is away.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest silence of a session before a ping; 1 second to 19 minutes. Default 4 minutes. Short: traffic; long: a
    /// dead connection is noticed late, unless something is sent on it.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// Longest wait between two attempts to connect. Default 5 minutes. Waits are random and double from 1 second (from
    /// 30 seconds after a refusal). Short: a hub that comes back is pressed; long: devices are away longer than it.
    #[serde(with = "humantime_serde")]
    pub backoff_limit: Duration,
    /// How long a token that the gateway makes for a device is valid. Default 1 hour, at least 10 minutes. The session is
    /// moved to a fresh one at about 80 % of this.
    #[serde(with = "humantime_serde")]
    pub token_lifetime: Duration,
    /// Sessions that this node holds at most. Default 50,000. Devices beyond it wait until another session ends.
    pub max_sessions: NonZeroUsize,
}

/// A hub.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubConfig {
    /// Its full host name, for example `contoso.azure-devices.net`. Certificates are checked for this name, whatever
    /// `address` says.
    pub name: HubName,
    /// Where it is reached, as `host` or `host:port`, if not under its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<HubAddress>,
    /// Port for MQTT over TLS where `address` names none. Default 8883.
    #[serde(default = "default_mqtt_port")]
    pub mqtt_port: u16,
    /// PEM file with certificates that are trusted beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// New connections that the hub's tier admits in a second. Default 100 (S1, one unit). The gateway keeps below it;
    /// too high, and the hub refuses some.
    #[serde(default = "default_connects_per_second")]
    pub connects_per_second: NonZeroU32,
}

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
    /// Where its key is.
    pub key: KeySource,
    /// Who keeps a cloud-to-device message until the device has settled it: `"hub"`. Default `"hub"`.
    #[serde(default)]
    pub custody: Custody,
    /// What becomes of a direct method while the device cannot answer: `"fail-fast"`, `"hold"`, or `{ answer = 503 }`.
    /// Default `"fail-fast"`.
    #[serde(default)]
    pub methods: MethodPolicy,
    /// Whether its session stays open without a request that needs it. Default false.
    #[serde(default)]
    pub pinned: bool,
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

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HubAddress {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The port, if one is named.
    pub port: Option<u16>,
}

/// A rule that the configuration breaks as a whole, though each value has the right form.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Mistake {
    /// The key, for example `devices[2].custody`.
    pub key: String,
    /// What is wrong, and what is accepted.
    pub problem: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hubs: Vec::new(),
            devices: Vec::new(),
            linger: Duration::from_secs(600),
            presence_grace: Duration::from_secs(5),
            method_timeout: Duration::from_secs(limits::METHOD_RESPONSE_TIMEOUT_DEFAULT_S),
            connect_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(240),
            backoff_limit: Duration::from_secs(300),
            token_lifetime: Duration::from_secs(3600),
            max_sessions: const { NonZeroUsize::new(50_000).expect("50,000 is not zero") },
        }
    }
}

impl Config {
    /// Everything that is wrong with it; nothing if it can be used.
    #[must_use]
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let mut note = |key: String, problem: String| mistakes.push(Mistake { key, problem });
        if self.hubs.is_empty() {
            note("hubs".to_owned(), "name at least one hub".to_owned());
        }
        let mut names = BTreeSet::new();
        for (index, hub) in self.hubs.iter().enumerate() {
            if !names.insert(&hub.name) {
                note(
                    format!("hubs[{index}].name"),
                    format!("{} stands twice", hub.name),
                );
            }
        }
        let mut identities = BTreeSet::new();
        for (index, device) in self.devices.iter().enumerate() {
            match self.hub_of(device) {
                Err(problem) => note(format!("devices[{index}].hub"), problem),
                Ok(hub) => {
                    let identity = device.identity(hub.clone());
                    if !identities.insert(identity.clone()) {
                        note(
                            format!("devices[{index}].id"),
                            format!("{identity} stands twice"),
                        );
                    }
                }
            }
            match device.custody {
                Custody::Hub => {}
                Custody::Gateway => note(
                    format!("devices[{index}].custody"),
                    "\"gateway\" needs the durable store, which this version does not have; write \"hub\"".to_owned(),
                ),
            }
        }
        let times = [
            (
                "method_timeout",
                self.method_timeout,
                secs(*limits::METHOD_RESPONSE_TIMEOUT_S.start()),
                secs(*limits::METHOD_RESPONSE_TIMEOUT_S.end()),
            ),
            (
                "connect_timeout",
                self.connect_timeout,
                Duration::from_millis(100),
                secs(120),
            ),
            (
                "keep_alive",
                self.keep_alive,
                secs(1),
                secs(limits::KEEP_ALIVE_S.into()),
            ),
            ("backoff_limit", self.backoff_limit, secs(1), secs(3600)),
            (
                "token_lifetime",
                self.token_lifetime,
                secs(600),
                secs(365 * 86_400),
            ),
        ];
        for (key, value, least, most) in times {
            if !(least..=most).contains(&value) {
                let [least, most] =
                    [least, most].map(humantime_serde::re::humantime::format_duration);
                note(
                    key.to_owned(),
                    format!("write a time from \"{least}\" to \"{most}\""),
                );
            }
        }
        mistakes
    }

    /// The devices as the registry keeps them. Those whose hub is not known are left out; [`Config::mistakes`] names
    /// them.
    pub(crate) fn records(&self) -> impl Iterator<Item = DeviceRecord> {
        self.devices_with_identity()
            .map(|(_, identity, device)| DeviceRecord {
                identity,
                custody: device.custody,
                method_policy: device.methods,
                is_pinned: device.pinned,
            })
    }

    pub(crate) fn devices_with_identity(
        &self,
    ) -> impl Iterator<Item = (usize, Identity, &DeviceConfig)> {
        self.devices
            .iter()
            .enumerate()
            .filter_map(|(index, device)| {
                let hub = self.hub_of(device).ok()?;
                Some((index, device.identity(hub.clone()), device))
            })
    }

    fn hub_of<'a>(&'a self, device: &'a DeviceConfig) -> Result<&'a HubName, String> {
        match (&device.hub, self.hubs.as_slice()) {
            (Some(name), hubs) if hubs.iter().any(|hub| hub.name == *name) => Ok(name),
            (Some(name), _) => Err(format!("{name} is not among the hubs")),
            (None, [hub]) => Ok(&hub.name),
            (None, _) => Err("name the hub, because there is not exactly one".to_owned()),
        }
    }
}

impl HubConfig {
    /// A hub with the defaults.
    #[must_use]
    pub fn new(name: HubName) -> Self {
        Self {
            name,
            address: None,
            mqtt_port: default_mqtt_port(),
            ca_file: None,
            connects_per_second: default_connects_per_second(),
        }
    }
}

impl DeviceConfig {
    /// A device of the only hub, with the defaults.
    #[must_use]
    pub fn new(id: DeviceId, key: KeySource) -> Self {
        Self {
            id,
            module: None,
            hub: None,
            key,
            custody: Custody::default(),
            methods: MethodPolicy::default(),
            pinned: false,
        }
    }

    fn identity(&self, hub: HubName) -> Identity {
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

/// The text is no address of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an address is a host, or host:port; an IPv6 address with a port stands in brackets")]
pub struct InvalidHubAddress;

impl FromStr for HubAddress {
    type Err = InvalidHubAddress;

    fn from_str(text: &str) -> Result<Self, InvalidHubAddress> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(InvalidHubAddress)?;
                match rest {
                    "" => (host, None),
                    rest => (host, Some(rest.strip_prefix(':').ok_or(InvalidHubAddress)?)),
                }
            }
            None => match text.split_once(':') {
                None => (text, None),
                // A bare IPv6 address.
                Some((_, rest)) if rest.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
            },
        };
        let port = port
            .map(str::parse)
            .transpose()
            .map_err(|_| InvalidHubAddress)?;
        if host.is_empty() || host.contains(['/', ' ', '@']) || port == Some(0) {
            return Err(InvalidHubAddress);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.host.contains(':')) {
            (None, _) => f.write_str(&self.host),
            (Some(port), false) => write!(f, "{}:{port}", self.host),
            (Some(port), true) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

impl TryFrom<String> for HubAddress {
    type Error = InvalidHubAddress;

    fn try_from(text: String) -> Result<Self, InvalidHubAddress> {
        text.parse()
    }
}

impl From<HubAddress> for String {
    fn from(address: HubAddress) -> Self {
        address.to_string()
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn default_mqtt_port() -> u16 {
    8883
}

/// "IoT Hub quotas and throttling": a hub of tier S1 with one unit admits 100 connections in a second.
const fn default_connects_per_second() -> NonZeroU32 {
    const { NonZeroU32::new(100).expect("100 is not zero") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        toml::from_str(text).expect("a config")
    }

    #[test]
    fn a_small_config_is_enough() {
        let config = read(
            r#"
            [[hubs]]
            name = "contoso.azure-devices.net"

            [[devices]]
            id = "watch-1"
            key.file = "keys/watch-1"
            methods = { answer = 503 }
            "#,
        );
        assert_eq!(config.mistakes(), []);
        let record = config.records().next().expect("one device");
        assert_eq!(
            record.identity.to_string(),
            "contoso.azure-devices.net/watch-1"
        );
        assert_eq!(record.method_policy, MethodPolicy::Answer(503));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let config = read(
            r#"
            method_timeout = "1s"

            [[hubs]]
            name = "a.example"
            [[hubs]]
            name = "b.example"

            [[devices]]
            id = "one"
            key.env = "ONE"
            [[devices]]
            id = "two"
            hub = "c.example"
            custody = "gateway"
            key.text = "c2VjcmV0"
            "#,
        );
        let keys: Vec<_> = config
            .mistakes()
            .into_iter()
            .map(|mistake| mistake.key)
            .collect();
        assert_eq!(
            keys,
            [
                "devices[0].hub",
                "devices[1].hub",
                "devices[1].custody",
                "method_timeout"
            ]
        );
    }

    #[test]
    fn a_key_is_never_shown() {
        let config = read(
            r#"
            [[devices]]
            id = "one"
            key.text = "c2VjcmV0"
            "#,
        );
        assert!(!format!("{config:?}").contains("c2VjcmV0"));
        assert!(!toml::to_string(&config).expect("text").contains("c2VjcmV0"));
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        for text in [
            "lingr = \"1m\"",
            "linger = 10",
            "max_sessions = 0",
            "[[hubs]]\nname = \"a\"\nconnects_per_second = 0",
            "[[hubs]]\nname = \"https://a\"",
            "[[hubs]]\nname = \"a\"\naddress = \"a:b\"",
            "[[devices]]\nid = \"a\"",
            "[[devices]]\nid = \"a\"\nkey = { file = \"a\", env = \"b\" }",
        ] {
            assert!(toml::from_str::<Config>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_may_be_of_any_kind() {
        for text in ["localhost", "127.0.0.1:8883", "::1", "[::1]:8883"] {
            let address: HubAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
    }
}
