//! Where the tokens of devices that are passed through are kept, so that what is stored for such a device reaches the hub
//! although the device has gone, or the gateway was started anew.
//!
//! A token is sealed with a key of the operator's (AES-256-GCM) before it leaves this half, and what the store keeps is worth
//! nothing without that key:
//!
//! ```text
//!   1 | name of the key (4) | nonce (12) | ciphertext, tag (16)       bound to: identity, end of the token
//! ```
//!
//! It is the newest token that the hub has taken, one for each identity, until it ends. There may be older keys beside the one
//! that seals: what they have sealed is opened, so that a key can be changed while tokens are kept.

mod kept;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use iothub::{Identity, Timestamp};
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use sha2::{Digest as _, Sha256};
use store::SealedCredential;

/// Seals and opens tokens.
pub(crate) struct Vault {
    newest: VaultKey,
    older: Vec<VaultKey>,
}

/// A key that seals tokens.
pub(crate) struct VaultKey {
    name: [u8; NAME_LEN],
    key: RandomizedNonceKey,
}

/// What a key must be that seals tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a vault key is the base64 form of 32 random bytes: make one with \"openssl rand -base64 32\""
)]
pub(crate) struct InvalidVaultKey;

impl Vault {
    /// Seals with the first key, opens with any.
    pub(crate) const fn new(newest: VaultKey, older: Vec<VaultKey>) -> Self {
        Self { newest, older }
    }

    /// Seals a token; `None` if that cannot be done, which has no reason that an operator could mend.
    pub(crate) fn seal(
        &self,
        identity: &Identity,
        token: &SecretString,
        expires_at: Timestamp,
    ) -> Option<SealedCredential> {
        let mut text = Zeroizing::new(token.expose_secret().as_bytes().to_vec());
        let context = Aad::from(context(identity, expires_at));
        let key = &self.newest.key;
        let nonce = key.seal_in_place_append_tag(context, &mut *text).ok()?;
        let mut sealed = vec![VERSION];
        sealed.extend(self.newest.name);
        sealed.extend(nonce.as_ref());
        sealed.extend(&*text);
        SealedCredential::new(sealed.into(), expires_at).ok()
    }

    /// The token; `None` if no key of this vault has sealed it for this identity and this end.
    pub(crate) fn open(
        &self,
        identity: &Identity,
        credential: &SealedCredential,
    ) -> Option<SecretString> {
        let (version, rest) = credential.sealed().split_first()?;
        let (name, rest) = rest.split_first_chunk::<NAME_LEN>()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>()?;
        if *version != VERSION {
            return None;
        }
        let mut keys = [&self.newest].into_iter().chain(&self.older);
        let key = &keys.find(|key| key.name == *name)?.key;
        let mut text = Zeroizing::new(ciphertext.to_vec());
        let context = Aad::from(context(identity, credential.expires_at()));
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.open_in_place(nonce, context, &mut text).ok()?;
        Some(SecretString::from(str::from_utf8(opened).ok()?))
    }
}

impl VaultKey {
    /// The key that this base64 text is.
    pub(crate) fn from_base64(text: &str) -> Result<Self, InvalidVaultKey> {
        let bytes = BASE64.decode(text).map_err(|_| InvalidVaultKey)?;
        let bytes = Zeroizing::new(bytes);
        if bytes.len() != KEY_LEN {
            return Err(InvalidVaultKey);
        }
        let digest: [u8; 32] = Sha256::new()
            .chain_update(b"tombolo vault key")
            .chain_update(&*bytes)
            .finalize()
            .into();
        let (name, _) = digest.split_first_chunk().expect("32 bytes have 4");
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| InvalidVaultKey)?;
        Ok(Self { name: *name, key })
    }
}

/// What a sealed token is bound to. No id has a zero in it.
fn context(identity: &Identity, expires_at: Timestamp) -> Vec<u8> {
    let mut context = b"tombolo token\0".to_vec();
    for part in [
        identity.hub().as_str(),
        identity.device_id().as_str(),
        identity.module_id().map_or("", |module| module.as_str()),
    ] {
        context.extend(part.as_bytes());
        context.push(0);
    }
    context.extend(expires_at.unix_millis().to_le_bytes());
    context
}

const VERSION: u8 = 1;
const KEY_LEN: usize = 32;
/// Bytes by which a key is found among a few. They tell nobody what it is.
const NAME_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> VaultKey {
        VaultKey::from_base64(&BASE64.encode([byte; 32])).unwrap()
    }

    fn device(id: &str) -> Identity {
        Identity::device("hub.example".parse().unwrap(), id.parse().unwrap())
    }

    fn end(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    const TOKEN: &str = "SharedAccessSignature sr=hub.example%2Fdevices%2Fdev1&sig=x&se=60";

    fn sealed(vault: &Vault) -> SealedCredential {
        vault
            .seal(&device("dev1"), &TOKEN.into(), end(60))
            .expect("it can be sealed")
    }

    #[test]
    fn what_is_sealed_is_opened_for_the_same_device_and_end_alone() {
        let vault = Vault::new(key(1), Vec::new());
        let sealed = sealed(&vault);
        let opened = vault.open(&device("dev1"), &sealed);
        assert_eq!(opened.expect("it opens").expose_secret(), TOKEN);
        assert!(vault.open(&device("dev2"), &sealed).is_none());
        let later = SealedCredential::new(sealed.sealed().to_vec().into(), end(61)).unwrap();
        assert!(vault.open(&device("dev1"), &later).is_none());
        let is_inside = |text: &[u8]| sealed.sealed().windows(text.len()).any(|part| part == text);
        assert!(!is_inside(b"SharedAccess"));
    }

    #[test]
    fn no_byte_can_be_changed_and_none_left_out() {
        let vault = Vault::new(key(1), Vec::new());
        let good = sealed(&vault).sealed().to_vec();
        let opens = |bytes: Vec<u8>| {
            let credential = SealedCredential::new(bytes.into(), end(60)).unwrap();
            vault.open(&device("dev1"), &credential).is_some()
        };
        assert!(opens(good.clone()));
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert!(!opens(bad), "byte {place}");
            assert!(!opens(good[..place].to_vec()), "{place} bytes");
        }
    }

    #[test]
    fn an_older_key_opens_and_a_newer_one_seals() {
        let before = Vault::new(key(1), Vec::new());
        let after = Vault::new(key(2), vec![key(1)]);
        let without = Vault::new(key(2), Vec::new());
        let old = sealed(&before);
        assert!(after.open(&device("dev1"), &old).is_some());
        assert!(without.open(&device("dev1"), &old).is_none());
        let new = sealed(&after);
        assert!(without.open(&device("dev1"), &new).is_some());
        assert!(before.open(&device("dev1"), &new).is_none());
    }

    #[test]
    fn the_longest_token_can_be_sealed() {
        let vault = Vault::new(key(1), Vec::new());
        let longest = SecretString::from("x".repeat(2048));
        assert!(vault.seal(&device("dev1"), &longest, end(60)).is_some());
    }

    #[test]
    fn a_key_has_32_bytes() {
        for (bytes, is_good) in [(31, false), (32, true), (33, false)] {
            let key = VaultKey::from_base64(&BASE64.encode(vec![1; bytes]));
            assert_eq!(key.is_ok(), is_good, "{bytes}");
        }
        assert!(VaultKey::from_base64("no base64!").is_err());
    }
}
