//! Hubs, devices and times, as the operator writes them.

mod address;
mod device;
mod vault;

use std::{
    collections::BTreeSet,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use iothub::{HubName, Identity, limits};
use serde::{Deserialize, Serialize};
use store::{Custody, DeviceRecord};

pub use self::{
    address::{HubAddress, InvalidHubAddress},
    device::{Credential, DeviceConfig, KeySource},
    vault::VaultConfig,
};

/// What this half of the gateway needs to know.
///
/// Times are written with their unit: `"300ms"`, `"10s"`, `"10m"`, `"1h"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The hubs that requests may reach. Nothing else is ever connected to.
    pub hubs: Vec<HubConfig>,
    /// The devices and modules whose keys the gateway holds, and others that are to be treated in their own way.
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
    /// Sessions that this node holds at most. Default 50,000. A device beyond it gets the place of the session that has
    /// been idle for longest, or waits until one is idle.
    pub max_sessions: NonZeroUsize,
    /// With what the tokens of devices that are passed through are sealed and kept, so that their writes can be stored. Without
    /// it those wait for the hub, and fail where it is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultConfig>,
    /// Host names by which devices call this gateway: a device whose key is held may sign its tokens for one of them. Not
    /// read from a file: whoever composes the gateway knows them from its listeners.
    #[serde(skip)]
    pub gateway_names: Vec<String>,
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
    /// Where its HTTPS API is reached, as `host` or `host:port`, if not under its name at port 443. Only devices that are
    /// passed through make use of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_address: Option<HubAddress>,
    /// PEM file with certificates that are trusted beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// New connections that the hub's tier admits in a second. Default 100 (S1, one unit). The gateway keeps below it;
    /// too high, and the hub refuses some.
    #[serde(default = "default_connects_per_second")]
    pub connects_per_second: NonZeroU32,
    /// Whether devices that are not listed are served if they bring a token that the hub takes. Default false. True: the hub
    /// decides who is a device of this gateway, and is asked about every token.
    #[serde(default)]
    pub pass_through: bool,
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

/// Who keeps the cloud-to-device messages of a device of which nothing else is said: the gateway, if it can.
pub(crate) const fn default_custody(is_durable: bool) -> Custody {
    if is_durable {
        Custody::Gateway
    } else {
        Custody::Hub
    }
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
            vault: None,
            gateway_names: Vec::new(),
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
            for (field, problem) in device.mistakes() {
                note(format!("devices[{index}].{field}"), problem.to_owned());
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

    /// What is wrong with it if the store keeps nothing across a restart; [`mistakes`](Self::mistakes) is what is wrong
    /// with any store.
    pub fn mistakes_without_disk(&self) -> impl Iterator<Item = Mistake> {
        let devices = self.devices.iter().enumerate();
        let kept = devices.filter(|(_, device)| device.custody == Some(Custody::Gateway));
        let kept = kept.map(|(index, _)| Mistake {
            key: format!("devices[{index}].custody"),
            problem: "\"gateway\" needs a store with a disk; give it one, or write \"hub\""
                .to_owned(),
        });
        kept.chain(self.vault.iter().map(|_| {
            Mistake {
                key: "vault".to_owned(),
                problem:
                    "tokens are kept in a store with a disk; give it one, or leave the vault out"
                        .to_owned(),
            }
        }))
    }

    /// The devices as the registry keeps them. Those whose hub is not known are left out; [`Config::mistakes`] names
    /// them.
    pub(crate) fn records(&self, is_durable: bool) -> impl Iterator<Item = DeviceRecord> {
        self.devices_with_identity()
            .map(move |(_, identity, device)| DeviceRecord {
                identity,
                custody: device
                    .custody
                    .unwrap_or_else(|| default_custody(is_durable)),
                method_policy: device.methods,
                is_pinned: device.pinned,
                is_passed_through: device.credential == Credential::PassThrough,
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
            https_address: None,
            mqtt_port: default_mqtt_port(),
            ca_file: None,
            connects_per_second: default_connects_per_second(),
            pass_through: false,
        }
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
    use store::MethodPolicy;

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
        let record = config.records(true).next().expect("one device");
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
            key.text = "c2VjcmV0"
            "#,
        );
        let keys: Vec<_> = config
            .mistakes()
            .into_iter()
            .map(|mistake| mistake.key)
            .collect();
        assert_eq!(keys, ["devices[0].hub", "devices[1].hub", "method_timeout"]);
    }

    #[test]
    fn the_gateway_takes_custody_if_it_has_a_disk() {
        let config = read(
            r#"
            hubs = [{ name = "a.example" }]
            devices = [
                { id = "one", key.env = "K" },
                { id = "two", key.env = "K", custody = "hub" },
                { id = "three", key.env = "K", custody = "gateway" },
            ]
            "#,
        );
        let custody = |is_durable| -> Vec<Custody> {
            let records = config.records(is_durable);
            records.map(|record| record.custody).collect()
        };
        let (gateway, hub) = (Custody::Gateway, Custody::Hub);
        assert_eq!(custody(true), [gateway, hub, gateway]);
        assert_eq!(custody(false), [hub, hub, gateway]);
        let mistakes = config.mistakes_without_disk();
        let keys: Vec<_> = mistakes.map(|mistake| mistake.key).collect();
        assert_eq!(keys, ["devices[2].custody"]);
    }

    #[test]
    fn a_vault_needs_a_disk_and_a_key() {
        let config = read("hubs = [{ name = \"a.example\" }]\nvault = { key.env = \"K\" }");
        assert!(config.mistakes().is_empty());
        let mistakes = config.mistakes_without_disk();
        let keys: Vec<_> = mistakes.map(|mistake| mistake.key).collect();
        assert_eq!(keys, ["vault"]);
        let without_key = toml::from_str::<Config>("vault = {}").unwrap_err();
        assert!(without_key.to_string().contains("missing field `key`"));
    }

    #[test]
    fn a_device_has_a_key_or_is_passed_through() {
        for (device, mistaken) in [
            ("", &["key"][..]),
            ("secondary_key.env = \"K\"", &["key"]),
            ("key.env = \"K\"\nsecondary_key.env = \"L\"", &[]),
            ("credential = \"pass-through\"", &[]),
            ("credential = \"pass-through\"\nkey.env = \"K\"", &["key"]),
            (
                "credential = \"pass-through\"\nsecondary_key.env = \"K\"\npinned = true",
                &["secondary_key", "pinned"],
            ),
        ] {
            let config = read(&format!(
                "hubs = [{{ name = \"a.example\" }}]\n[[devices]]\nid = \"a\"\n{device}"
            ));
            let keys: Vec<_> = config
                .mistakes()
                .into_iter()
                .map(|mistake| mistake.key)
                .collect();
            let expected: Vec<_> = mistaken
                .iter()
                .map(|key| format!("devices[0].{key}"))
                .collect();
            assert_eq!(keys, expected, "{device}");
        }
    }

    #[test]
    fn times_have_a_range() {
        for (key, least, less, most, more) in [
            ("method_timeout", "5s", "4999ms", "5m", "300001ms"),
            ("connect_timeout", "100ms", "99ms", "2m", "120001ms"),
            ("keep_alive", "1s", "999ms", "19m", "1140001ms"),
            ("backoff_limit", "1s", "999ms", "1h", "3600001ms"),
            (
                "token_lifetime",
                "10m",
                "599999ms",
                "365days",
                "31536000001ms",
            ),
        ] {
            for (time, is_good) in [(less, false), (least, true), (most, true), (more, false)] {
                let config = read(&format!(
                    "{key} = \"{time}\"\n[[hubs]]\nname = \"a.example\""
                ));
                let mistakes = config.mistakes();
                let keys: Vec<_> = mistakes
                    .iter()
                    .map(|mistake| mistake.key.as_str())
                    .collect();
                assert_eq!(keys.is_empty(), is_good, "{key} = {time}: {keys:?}");
            }
        }
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
            "gateway_names = [\"a\"]",
            "[[devices]]\nid = \"a\"\ncredential = \"vaulted\"",
            "[[devices]]\nid = \"a\"\nkey = { file = \"a\", env = \"b\" }",
        ] {
            assert!(toml::from_str::<Config>(text).is_err(), "{text}");
        }
    }
}
