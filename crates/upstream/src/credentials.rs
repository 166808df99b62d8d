//! What the gateway shows a hub on behalf of a device.
//!
//! Today one kind: the device's symmetric key, which makes a fresh token for every connection. The session asks for
//! [`Login`]s only, so that a device's own tokens and encrypted keys find their place behind the same question.

use std::{collections::HashMap, time::Duration};

use iothub::{
    Identity, Timestamp,
    sas::{self, Key},
};
use secrecy::ExposeSecret as _;

use crate::config::{Config, KeySource, Mistake};

/// The keys by identity.
pub(crate) struct Credentials {
    keys: HashMap<Identity, Key>,
    token_lifetime: Duration,
}

/// What one connection needs. Holds a secret, so it has no `Debug`.
pub(crate) struct Login {
    /// The password of the CONNECT.
    pub(crate) password: String,
    /// How long from now a fresher one should take its place.
    pub(crate) renew_after: Duration,
}

/// The gateway holds nothing that it could show the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway holds no key for this device")]
pub(crate) struct NoCredential;

impl Credentials {
    /// Reads all keys that the configuration names. Opens files, so not for an async thread.
    ///
    /// # Errors
    ///
    /// Every key that cannot be had.
    pub(crate) fn load(config: &Config) -> Result<Self, Vec<Mistake>> {
        let mut keys = HashMap::with_capacity(config.devices.len());
        let mut mistakes = Vec::new();
        for (index, identity, device) in config.devices_with_identity() {
            match read_key(&device.key) {
                Ok(key) => {
                    keys.insert(identity, key);
                }
                Err(problem) => mistakes.push(Mistake {
                    key: format!("devices[{index}].key"),
                    problem,
                }),
            }
        }
        if mistakes.is_empty() {
            Ok(Self {
                keys,
                token_lifetime: config.token_lifetime,
            })
        } else {
            Err(mistakes)
        }
    }

    /// Makes what the next connection of this identity shows.
    pub(crate) fn login(&self, identity: &Identity, now: Timestamp) -> Result<Login, NoCredential> {
        let key = self.keys.get(identity).ok_or(NoCredential)?;
        let expires_at = now.saturating_add(self.token_lifetime);
        // Sessions that were opened together are not renewed together.
        let share = RENEW_AT - RENEW_SPREAD * fastrand::f64();
        Ok(Login {
            password: key.sign(&sas::resource(identity), None, expires_at),
            renew_after: self.token_lifetime.mul_f64(share),
        })
    }
}

fn read_key(source: &KeySource) -> Result<Key, String> {
    let text = match source {
        KeySource::File(path) => std::fs::read_to_string(path)
            .map(Into::into)
            .map_err(|error| format!("{} could not be read: {error}", path.display()))?,
        KeySource::Env(name) => std::env::var(name)
            .map(Into::into)
            .map_err(|_| format!("the environment has no variable {name}"))?,
        KeySource::Text(text) => text.clone(),
    };
    Key::from_base64(text.expose_secret().trim()).map_err(|error| error.to_string())
}

/// Share of a token's lifetime after which it is renewed at the latest, as Azure's C SDK does
/// (`SAS_REFRESH_MULTIPLIER`).
const RENEW_AT: f64 = 0.8;
/// Share of the lifetime over which renewals are spread.
const RENEW_SPREAD: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DeviceConfig, HubConfig};

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    fn config(key: KeySource) -> Config {
        Config {
            hubs: vec![HubConfig::new("hub.example".parse().unwrap())],
            devices: vec![DeviceConfig::new("watch-1".parse().unwrap(), key)],
            ..Config::default()
        }
    }

    #[test]
    fn a_login_is_a_token_for_exactly_this_device() {
        let config = config(KeySource::Text(KEY.into()));
        let credentials = Credentials::load(&config).expect("the key is good");
        let (_, identity, _) = config.devices_with_identity().next().unwrap();
        let now = Timestamp::from_unix_seconds(1_700_000_000);

        let login = credentials.login(&identity, now).expect("the key is there");

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
        let credentials = Credentials::load(&config(KeySource::Text(KEY.into()))).unwrap();
        let module = Identity::module(
            "hub.example".parse().unwrap(),
            "watch-1".parse().unwrap(),
            "m".parse().unwrap(),
        );
        assert!(
            credentials
                .login(&module, Timestamp::from_unix_seconds(0))
                .is_err()
        );
    }

    #[test]
    fn a_key_is_read_from_a_file_and_a_bad_one_is_named_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, format!("{KEY}\n")).unwrap();
        assert!(Credentials::load(&config(KeySource::File(path))).is_ok());

        let Err(mistakes) = Credentials::load(&config(KeySource::Text("not base64".into()))) else {
            panic!("a bad key was taken");
        };
        assert_eq!(mistakes[0].key, "devices[0].key");
        assert!(!mistakes[0].problem.contains("not base64"));

        let missing = KeySource::Env("TOMBOLO_NO_SUCH_VARIABLE".to_owned());
        assert!(Credentials::load(&config(missing)).is_err());
    }
}
