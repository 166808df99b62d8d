//! The keys of a device for which the gateway makes tokens.
//!
//! IoT Hub gives an identity two keys and takes either, so that one of them can be made anew while the other is in use
//! (REST reference of the identity registry, `authentication.symmetricKey`). So what the gateway signs with one key and the hub
//! refuses, it signs with the other one before it takes the refusal for an answer:
//!
//! ```text
//!             refused                    refused
//!   (first) ----------> (second, at once) -----> back-off, then the first again
//!      |                     |
//!      +------ accepted -----+---> this one is the first from here on
//! ```
//!
//! With two keys a device that the hub does not let in costs two connections where it would cost one.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use iothub::{
    Identity, Timestamp,
    sas::{self, Key},
};
use secrecy::ExposeSecret as _;

use crate::{config::KeySource, nudge::Nudge};

/// A device's keys, as the hub has them.
pub(crate) struct Keys {
    primary: Key,
    secondary: Option<Key>,
    /// Whether the hub has taken the secondary key last.
    prefers_secondary: AtomicBool,
}

/// One of two keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    Primary,
    Secondary,
}

/// The keys in the hands of a session, which signs with them for its connections.
pub(crate) struct Signer {
    identity: Identity,
    keys: Arc<Keys>,
    lifetime: Duration,
    /// What the next token is made with.
    which: Which,
    /// Whether the hub has just refused the other key.
    is_second: bool,
    /// Told when the other key is to be tried at once.
    fresh: Nudge,
}

impl Keys {
    pub(super) const fn new(primary: Key, secondary: Option<Key>) -> Self {
        Self {
            primary,
            secondary,
            prefers_secondary: AtomicBool::new(false),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Key> {
        [&self.primary].into_iter().chain(&self.secondary)
    }

    fn preferred(&self) -> Which {
        match &self.secondary {
            Some(_) if self.prefers_secondary.load(Ordering::Relaxed) => Which::Secondary,
            Some(_) | None => Which::Primary,
        }
    }

    /// Whether it was another one before.
    fn prefer(&self, which: Which) -> bool {
        let is_secondary = which == Which::Secondary;
        self.prefers_secondary.swap(is_secondary, Ordering::Relaxed) != is_secondary
    }

    fn get(&self, which: Which) -> &Key {
        match (which, &self.secondary) {
            (Which::Secondary, Some(secondary)) => secondary,
            (Which::Primary, _) | (Which::Secondary, None) => &self.primary,
        }
    }
}

impl Signer {
    /// Signs tokens for an identity, each good for `lifetime`.
    pub(super) fn new(identity: Identity, keys: Arc<Keys>, lifetime: Duration) -> Self {
        Self {
            identity,
            which: keys.preferred(),
            keys,
            lifetime,
            is_second: false,
            fresh: Nudge::default(),
        }
    }

    /// A token for exactly the identity.
    pub(super) fn sign(&self, now: Timestamp) -> String {
        let expires_at = now.saturating_add(self.lifetime);
        let key = self.keys.get(self.which);
        key.sign(&sas::resource(&self.identity), None, expires_at)
    }

    /// How long each token is good.
    pub(super) const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The hub has taken the last token.
    pub(super) fn accepted(&mut self) {
        self.is_second = false;
        if self.keys.prefer(self.which) {
            let key = self.which.setting();
            tracing::warn!(device = %self.identity, key, "the hub takes the device's other key");
        }
    }

    /// The hub has refused the last token. Whether another key is to be tried at once.
    pub(super) fn refused(&mut self) -> bool {
        self.is_second = !self.is_second && self.keys.secondary.is_some();
        if self.is_second {
            tracing::debug!(
                device = %self.identity,
                key = self.which.setting(),
                "refused; the other key is tried"
            );
            self.which = self.which.other();
            self.fresh.give();
        } else {
            self.which = self.keys.preferred();
        }
        self.is_second
    }

    /// Waits until the other key is to be tried at once.
    pub(super) fn poll_freshened(&self, cx: &Context<'_>) -> Poll<()> {
        self.fresh.poll_taken(cx)
    }
}

impl Which {
    const fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }

    /// The setting that names it.
    const fn setting(self) -> &'static str {
        match self {
            Self::Primary => "key",
            Self::Secondary => "secondary_key",
        }
    }
}

/// Reads a key from where it is. Blocking.
pub(super) fn read<K, E: Display>(
    source: &KeySource,
    parse: impl FnOnce(&str) -> Result<K, E>,
) -> Result<K, String> {
    let text = match source {
        KeySource::File(path) => std::fs::read_to_string(path)
            .map(Into::into)
            .map_err(|error| format!("{} could not be read: {error}", path.display()))?,
        KeySource::Env(name) => std::env::var(name)
            .map(Into::into)
            .map_err(|_| format!("the environment has no variable {name}"))?,
        KeySource::Text(text) => text.clone(),
    };
    parse(text.expose_secret().trim()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::from_bytes(vec![byte; 32]).unwrap()
    }

    /// Which key the signer signs with.
    fn signs_with(signer: &Signer) -> Which {
        let token = signer.sign(Timestamp::from_unix_seconds(0));
        let token = sas::Token::parse(&token).unwrap();
        let signed_by = |byte: u8| token.is_signed_by(&key(byte));
        assert!(signed_by(1) != signed_by(2));
        if signed_by(1) {
            Which::Primary
        } else {
            Which::Secondary
        }
    }

    fn signer(keys: &Arc<Keys>) -> Signer {
        let identity = Identity::device("hub.example".parse().unwrap(), "dev1".parse().unwrap());
        Signer::new(identity, Arc::clone(keys), Duration::from_secs(60))
    }

    #[test]
    fn a_refused_key_is_followed_by_the_other_once() {
        let keys = Arc::new(Keys::new(key(1), Some(key(2))));
        let mut signer = signer(&keys);
        for _ in 0..2 {
            assert_eq!(signs_with(&signer), Which::Primary);
            assert!(signer.refused());
            assert_eq!(signs_with(&signer), Which::Secondary);
            assert!(!signer.refused(), "both are refused");
        }
    }

    #[test]
    fn the_key_that_the_hub_has_taken_is_the_first_from_then_on() {
        let keys = Arc::new(Keys::new(key(1), Some(key(2))));
        let mut first = signer(&keys);
        assert!(first.refused());
        first.accepted();
        let mut second = signer(&keys);
        assert_eq!(signs_with(&second), Which::Secondary);
        // The operator has changed this one as well.
        assert!(second.refused());
        assert_eq!(signs_with(&second), Which::Primary);
        second.accepted();
        assert_eq!(signs_with(&signer(&keys)), Which::Primary);
    }

    #[test]
    fn a_single_key_is_refused_once() {
        let keys = Arc::new(Keys::new(key(1), None));
        let mut signer = signer(&keys);
        assert!(!signer.refused());
        assert_eq!(signs_with(&signer), Which::Primary);
    }
}
