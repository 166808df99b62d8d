//! What the gateway shows a hub on behalf of a device, and which tokens of devices it can check itself.
//!
//! - **Delegated**: the gateway holds the device's symmetric keys. It makes a fresh token for every connection with one
//!   of them ([`keys`]), and checks what the device signs with either.
//! - **Passed through**: the device brings its own token, which the hub alone can judge: see [`crate::tokens`].

mod keys;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use iothub::{
    HubName, Identity, Timestamp,
    sas::{self, Key},
};
use secrecy::ExposeSecret as _;

use self::keys::{Keys, Signer};
use crate::{
    config::{Config, Credential, KeySource, Mistake, VaultConfig},
    tokens::{Attendance, Purpose, Tokens},
    vault::{Vault, VaultKey},
};

/// The keys by identity, and who is passed through.
pub(crate) struct Credentials {
    keys: HashMap<Identity, Arc<Keys>>,
    passed_through: HashSet<Identity>,
    /// Hubs whose devices are passed through if nothing else is said of them.
    open_hubs: HashSet<HubName>,
    gateway_names: Vec<String>,
    tokens: Arc<Tokens>,
    vault: Option<Vault>,
    token_lifetime: Duration,
}

/// How a device is vouched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Delegated,
    PassThrough,
}

/// What one session shows the hub.
pub(crate) enum SessionCredential {
    Delegated(Signer),
    PassThrough(Attendance),
    None,
}

/// What one connection needs. Holds a secret, so it has no `Debug`.
pub(crate) struct Login {
    /// The password of the CONNECT.
    pub(crate) password: String,
    /// How long from now a fresher one should take its place.
    pub(crate) renew_after: Duration,
    /// How long from now the hub takes this one.
    pub(crate) lasts_for: Duration,
    /// Whether the gateway made it, or the hub has taken it before.
    pub(crate) is_proved: bool,
}

/// There is nothing to show the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoCredential {
    /// The device is not configured.
    #[error("the gateway holds no key for this device")]
    NoKey,
    /// The device is passed through, and has not shown a token that is still good, or none that is fresher.
    #[error("the device has shown no token that can be used")]
    NoToken,
}

impl Credentials {
    /// Reads all keys that the configuration names. Opens files, so not for an async thread.
    ///
    /// # Errors
    ///
    /// Every key that cannot be had.
    pub(crate) fn load(config: &Config, tokens: Arc<Tokens>) -> Result<Self, Vec<Mistake>> {
        let mut keys = HashMap::with_capacity(config.devices.len());
        let mut passed_through = HashSet::new();
        let mut mistakes = Vec::new();
        for (index, identity, device) in config.devices_with_identity() {
            let mut read = |field: &str, source: Option<&KeySource>| {
                let note = |problem| {
                    mistakes.push(Mistake {
                        key: format!("devices[{index}].{field}"),
                        problem,
                    });
                };
                source.and_then(|source| keys::read(source, Key::from_base64).map_err(note).ok())
            };
            match device.credential {
                Credential::PassThrough => {
                    passed_through.insert(identity);
                }
                Credential::Delegated => {
                    let primary = read("key", device.key.as_ref());
                    let secondary = read("secondary_key", device.secondary_key.as_ref());
                    // A key that is not even named is a mistake of the configuration, which was looked for before.
                    if let Some(primary) = primary {
                        keys.insert(identity, Arc::new(Keys::new(primary, secondary)));
                    }
                }
            }
        }
        let vault = match &config.vault {
            Some(vault) => open_vault(vault)
                .map_err(|mistake| mistakes.push(mistake))
                .ok(),
            None => None,
        };
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let open_hubs = config.hubs.iter().filter(|hub| hub.pass_through);
        Ok(Self {
            keys,
            passed_through,
            open_hubs: open_hubs.map(|hub| hub.name.clone()).collect(),
            gateway_names: config.gateway_names.clone(),
            tokens,
            vault,
            token_lifetime: config.token_lifetime,
        })
    }

    /// How a device is vouched for; none if the gateway does not serve it.
    pub(crate) fn mode(&self, identity: &Identity) -> Option<Mode> {
        if self.keys.contains_key(identity) {
            Some(Mode::Delegated)
        } else if self.passed_through.contains(identity) || self.open_hubs.contains(identity.hub())
        {
            Some(Mode::PassThrough)
        } else {
            None
        }
    }

    /// Whether a token names this identity, or what it belongs to, and a key that may speak for it has signed: its own,
    /// or that of its device if it is a module. Every key is tried, so the time tells nothing.
    pub(crate) fn has_signed(&self, identity: &Identity, token: &sas::Token) -> bool {
        let device = identity
            .module_id()
            .map(|_| Identity::device(identity.hub().clone(), identity.device_id().clone()));
        let keys = [Some(identity), device.as_ref()].into_iter().flatten();
        let keys = keys.filter_map(|identity| self.keys.get(identity));
        let is_signed = keys
            .flat_map(|keys| keys.all())
            .fold(false, |is_signed, key| is_signed | token.is_signed_by(key));
        let gateway_names = self.gateway_names.iter().map(String::as_str);
        let mut hosts = [identity.hub().as_str()].into_iter().chain(gateway_names);
        let names_it =
            hosts.any(|host| token.covers_at_any_port(&sas::resource_at(host, identity)));
        is_signed && names_it
    }

    /// What a session of this identity shows the hub.
    pub(crate) fn for_session(&self, identity: &Identity, now: Instant) -> SessionCredential {
        match (self.mode(identity), self.keys.get(identity)) {
            (Some(Mode::Delegated), Some(keys)) => {
                let keys = Arc::clone(keys);
                let signer = Signer::new(identity.clone(), keys, self.token_lifetime);
                SessionCredential::Delegated(signer)
            }
            (Some(Mode::PassThrough), _) => {
                SessionCredential::PassThrough(self.tokens.attend(identity, now))
            }
            (Some(Mode::Delegated) | None, _) => SessionCredential::None,
        }
    }

    /// The tokens of devices that are passed through.
    pub(crate) const fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    /// Where they are kept, if they are.
    pub(crate) const fn vault(&self) -> Option<&Vault> {
        self.vault.as_ref()
    }
}

impl SessionCredential {
    /// What the next connection shows.
    pub(crate) fn login(
        &mut self,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Login, NoCredential> {
        match self {
            Self::Delegated(signer) => {
                // Sessions that were opened together are not renewed together.
                let share = RENEW_AT - RENEW_SPREAD * fastrand::f64();
                Ok(Login {
                    password: signer.sign(now),
                    renew_after: signer.lifetime().mul_f64(share),
                    lasts_for: signer.lifetime(),
                    is_proved: true,
                })
            }
            Self::PassThrough(attendance) => {
                let (token, is_proved) = attendance
                    .login(purpose, now)
                    .ok_or(NoCredential::NoToken)?;
                let left = token.expires_at.saturating_since(now);
                Ok(Login {
                    password: token.text.expose_secret().to_owned(),
                    renew_after: left.saturating_sub(MOVE_BEFORE),
                    lasts_for: left,
                    is_proved,
                })
            }
            Self::None => Err(NoCredential::NoKey),
        }
    }

    /// The hub has accepted the last login.
    pub(crate) fn accepted(&mut self, now: Instant) {
        match self {
            Self::Delegated(signer) => signer.accepted(),
            Self::PassThrough(attendance) => attendance.accepted(now),
            Self::None => {}
        }
    }

    /// The hub has refused the last login. True if that is no answer yet: the gateway has something else to show, and
    /// [`SessionCredential::poll_freshened`] says so.
    pub(crate) fn refused(&mut self, now: Instant) -> bool {
        match self {
            Self::Delegated(signer) => signer.refused(),
            Self::PassThrough(attendance) => {
                attendance.refused(now);
                false
            }
            Self::None => false,
        }
    }

    /// The last login was not judged.
    pub(crate) fn failed(&mut self) {
        if let Self::PassThrough(attendance) = self {
            attendance.failed();
        }
    }

    /// The connection has ended.
    pub(crate) fn lost(&self, now: Instant) {
        if let Self::PassThrough(attendance) = self {
            attendance.lost(now);
        }
    }

    /// Waits until there may be a credential to try that was not there before.
    pub(crate) fn poll_freshened(&self, cx: &Context<'_>) -> Poll<()> {
        match self {
            Self::Delegated(signer) => signer.poll_freshened(cx),
            Self::PassThrough(attendance) => attendance.poll_fresh(cx),
            Self::None => Poll::Pending,
        }
    }

    /// Whether the session may be kept for requests to come: not as long as nobody but a stranger has asked for it.
    pub(crate) fn is_proved(&self) -> bool {
        match self {
            Self::PassThrough(attendance) => attendance.is_proved(),
            Self::Delegated(_) | Self::None => true,
        }
    }
}

/// Reads the keys of the vault. Blocking.
fn open_vault(config: &VaultConfig) -> Result<Vault, Mistake> {
    let read = |key: String, source| {
        let read = keys::read(source, VaultKey::from_base64);
        read.map_err(|problem| Mistake { key, problem })
    };
    let newest = read("vault.key".to_owned(), &config.key)?;
    let older = config.older_keys.iter().enumerate();
    let older = older.map(|(index, source)| read(format!("vault.older_keys[{index}]"), source));
    Ok(Vault::new(newest, older.collect::<Result<_, _>>()?))
}

/// Share of a token's lifetime after which it is renewed at the latest, as Azure's C SDK does
/// (`SAS_REFRESH_MULTIPLIER`).
const RENEW_AT: f64 = 0.8;
/// Share of the lifetime over which renewals are spread.
const RENEW_SPREAD: f64 = 0.05;
/// How long before the end of a device's own token the session moves to a newer one. Earlier it would only cost connects.
const MOVE_BEFORE: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{DeviceConfig, HubConfig},
        tokens::Secret,
    };

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const OTHER_KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
    const MODULE_KEY: &str = "bW9kdWxlLWtleS1tb2R1bGUta2V5LW1vZHVsZS1rZXk=";

    fn config(key: KeySource) -> Config {
        Config {
            hubs: vec![HubConfig::new("hub.example".parse().unwrap())],
            devices: vec![DeviceConfig::new("watch-1".parse().unwrap(), key)],
            ..Config::default()
        }
    }

    fn load(config: &Config) -> Result<Credentials, Vec<Mistake>> {
        Credentials::load(config, tokens())
    }

    fn tokens() -> Arc<Tokens> {
        Tokens::new(Secret::random().unwrap())
    }

    fn device(id: &str) -> Identity {
        Identity::device("hub.example".parse().unwrap(), id.parse().unwrap())
    }

    fn module(id: &str) -> Identity {
        Identity::module(
            "hub.example".parse().unwrap(),
            "watch-1".parse().unwrap(),
            id.parse().unwrap(),
        )
    }

    #[test]
    fn a_login_is_a_token_for_exactly_this_device() {
        let credentials = load(&config(KeySource::Text(KEY.into()))).expect("the key is good");
        let identity = device("watch-1");
        let now = Timestamp::from_unix_seconds(1_700_000_000);

        let mut credential = credentials.for_session(&identity, Instant::now());
        let login = credential.login(Purpose::Open, now);
        let login = login.expect("the key is there");

        let token = sas::Token::parse(&login.password).expect("a token");
        assert!(token.is_for("hub.example/devices/watch-1"));
        assert!(token.is_signed_by(&Key::from_base64(KEY).unwrap()));
        assert_eq!(
            token.expires_at(),
            Timestamp::from_unix_seconds(1_700_003_600)
        );
        assert!((2700..=2880).contains(&login.renew_after.as_secs()));
    }

    #[test]
    fn other_identities_have_none() {
        let credentials = load(&config(KeySource::Text(KEY.into()))).unwrap();
        let other = module("m");
        assert_eq!(credentials.mode(&other), None);
        let mut credential = credentials.for_session(&other, Instant::now());
        let login = credential.login(Purpose::Open, Timestamp::from_unix_seconds(0));
        assert_eq!(login.err(), Some(NoCredential::NoKey));
    }

    #[test]
    fn a_device_is_vouched_for_by_what_is_said_of_it_then_by_what_is_said_of_its_hub() {
        let mut config = config(KeySource::Text(KEY.into()));
        let passed = DeviceConfig::passed_through("watch-2".parse().unwrap());
        config.devices.push(passed);
        let modes = |config: &Config| {
            let credentials = load(config).unwrap();
            ["watch-1", "watch-2", "watch-3"].map(|id| credentials.mode(&device(id)))
        };
        let (delegated, passed) = (Some(Mode::Delegated), Some(Mode::PassThrough));
        assert_eq!(modes(&config), [delegated, passed, None]);
        config.hubs[0].pass_through = true;
        assert_eq!(modes(&config), [delegated, passed, passed]);
    }

    #[test]
    fn a_key_speaks_for_its_device_and_the_modules_of_it() {
        let mut config = config(KeySource::Text(KEY.into()));
        config.gateway_names = ["gateway.example", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .into();
        config.devices[0].secondary_key = Some(KeySource::Text(OTHER_KEY.into()));
        config.devices.push(DeviceConfig {
            module: Some("m".parse().unwrap()),
            ..DeviceConfig::new(
                "watch-1".parse().unwrap(),
                KeySource::Text(MODULE_KEY.into()),
            )
        });
        let credentials = load(&config).unwrap();
        let later = Timestamp::from_unix_seconds(1_767_225_600);
        let signed = |resource: &str, key: &str| {
            let token = Key::from_base64(key).unwrap().sign(resource, None, later);
            sas::Token::parse(&token).unwrap()
        };
        let (watch, module) = (device("watch-1"), module("m"));
        for (identity, resource, key, is_good) in [
            (&watch, "hub.example/devices/watch-1", KEY, true),
            (&watch, "HUB.Example/devices/watch-1", KEY, true),
            (&watch, "hub.example/devices/watch-1", OTHER_KEY, true),
            (&watch, "hub.example/devices/watch-1", MODULE_KEY, false),
            (&watch, "gateway.example/devices/watch-1", KEY, true),
            (&watch, "127.0.0.1/devices/watch-1", OTHER_KEY, true),
            (&watch, "gateway.example:8443/devices/watch-1", KEY, true),
            (&watch, "[::1]:8443/devices/watch-1", KEY, true),
            (&watch, "[::1]/devices/watch-1", KEY, true),
            (&watch, "gateway.example:/devices/watch-1", KEY, false),
            (&watch, "gateway.example:x/devices/watch-1", KEY, false),
            (&watch, "hub.example/devices", KEY, true),
            (&watch, "hub.example", KEY, true),
            (&watch, "hub.example/devices/watch", KEY, false),
            (&watch, "hub.example/devices/watch-10", KEY, false),
            (&watch, "hub.example/devices/Watch-1", KEY, false),
            (&watch, "hub.example/devices/watch-1/modules/m", KEY, false),
            (&watch, "other.example/devices/watch-1", KEY, false),
            (&watch, "gateway.example.org/devices/watch-1", KEY, false),
            (
                &module,
                "hub.example/devices/watch-1/modules/m",
                MODULE_KEY,
                true,
            ),
            (
                &module,
                "gateway.example/devices/watch-1/modules/m",
                MODULE_KEY,
                true,
            ),
            (&module, "hub.example/devices/watch-1/modules/m", KEY, true),
            (&module, "hub.example/devices/watch-1", OTHER_KEY, true),
            (
                &module,
                "hub.example/devices/watch-1/modules/mm",
                KEY,
                false,
            ),
            (
                &device("watch-2"),
                "hub.example/devices/watch-2",
                KEY,
                false,
            ),
        ] {
            let token = signed(resource, key);
            assert_eq!(
                credentials.has_signed(identity, &token),
                is_good,
                "{resource} for {identity}"
            );
        }
    }

    #[test]
    fn a_key_is_read_from_a_file_and_a_bad_one_is_named_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, format!("{KEY}\n")).unwrap();
        assert!(load(&config(KeySource::File(path))).is_ok());

        let Err(mistakes) = load(&config(KeySource::Text("not base64".into()))) else {
            panic!("a bad key was taken");
        };
        assert_eq!(mistakes[0].key, "devices[0].key");
        assert!(!mistakes[0].problem.contains("not base64"));

        let mut config = config(KeySource::Text(KEY.into()));
        for (newest, older, mistaken) in [
            (KEY, "short", "vault.older_keys[0]"),
            ("c2hvcnQ=", KEY, "vault.key"),
        ] {
            config.vault = Some(VaultConfig {
                key: KeySource::Text(newest.into()),
                older_keys: vec![KeySource::Text(older.into())],
            });
            let mistakes = load(&config).err().expect("a vault key has 32 bytes");
            assert_eq!(mistakes.last().unwrap().key, mistaken);
        }
        config.vault = None;
        let missing = KeySource::Env("TOMBOLO_NO_SUCH_VARIABLE".to_owned());
        config.devices[0].secondary_key = Some(missing);
        let mistakes = load(&config).err().expect("there is no such variable");
        assert_eq!(mistakes[0].key, "devices[0].secondary_key");
    }
}
