//! Tokens by name, without the token.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use iothub::Identity;
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use sha2::Sha256;

/// A random key of this process: what is remembered of a token tells nothing of it to whoever reads the memory, and
/// nobody can find out by the time a look-up takes.
pub(crate) struct Secret(Zeroizing<[u8; 32]>);

/// Stands for one token of one identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

impl Secret {
    /// A random one. Fails if the system has no randomness to give.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret)?;
        Ok(Self(secret))
    }

    pub(super) fn fingerprint(&self, identity: &Identity, token: &SecretString) -> Fingerprint {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*self.0).expect("HMAC takes a key of any length");
        // No id has a zero in it, so every identity and token has bytes of its own.
        for part in [
            identity.hub().as_str(),
            identity.device_id().as_str(),
            identity.module_id().map_or("", |module| module.as_str()),
        ] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac.update(token.expose_secret().as_bytes());
        Fingerprint(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(..)")
    }
}
