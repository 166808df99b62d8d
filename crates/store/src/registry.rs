//! Devices, the tokens that speak for them, and what is remembered of their writes.

use async_trait::async_trait;
use iothub::{Identity, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    Answer, Fingerprint, KeyError, KeyId, KeyState, Page, Partition, PutTokenError, Receipt,
    Scopes, SealedCredential, StoreError, SubmissionId,
};

/// Keeps devices and tokens, receipts and keys.
#[async_trait]
pub trait Registry: Send + Sync {
    /// What is known of a device or module; `None` if this gateway does not serve it.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn device(&self, identity: &Identity) -> Result<Option<DeviceRecord>, StoreError>;

    /// Adds or replaces a device.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn put_device(&self, record: DeviceRecord) -> Result<(), StoreError>;

    /// Devices of a partition.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn devices(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<DeviceRecord>, StoreError>;

    /// Adds a token; it returns when the token survives a restart, if the engine can do that. One of the same identity and
    /// id makes way. Tokens that have expired before, of whatever identity, are forgotten on the way.
    ///
    /// # Errors
    ///
    /// The identity has as many tokens as it may have, or the store failed.
    async fn put_token(&self, record: TokenRecord) -> Result<(), PutTokenError>;

    /// The token with this hash, perhaps an expired one; `None` if there is none, or it is revoked or forgotten.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>, StoreError>;

    /// Revokes a token of an identity. False if it has none of this id. Tokens that have expired are forgotten on the way.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn revoke_token(&self, identity: &Identity, id: &TokenId) -> Result<bool, StoreError>;

    /// The tokens of an identity, the newest last.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn tokens(&self, identity: &Identity) -> Result<Vec<TokenRecord>, StoreError>;

    /// What is known of a submission that was durable or had a fingerprint, for [`Receipt::KEPT`]; `None` if there was none.
    /// Receipts without a fingerprint are bounded, and the oldest of what is settled make way.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn receipt(
        &self,
        identity: &Identity,
        id: SubmissionId,
    ) -> Result<Option<Receipt>, StoreError>;

    /// Begins to use an idempotency key for a request that is no submission, or of more than one. When this returns, the
    /// record survives a restart, if the engine can do that. What a submission does needs no such record: its own id and
    /// [fingerprint](crate::Submission::fingerprint) are one.
    ///
    /// # Errors
    ///
    /// The key was used for another request, a bound is reached, or the store failed.
    async fn begin_key(
        &self,
        identity: &Identity,
        id: KeyId,
        fingerprint: Fingerprint,
    ) -> Result<KeyState, KeyError>;

    /// Notes how far a request has come whose key has begun, so that a repetition does only the rest; the newest note stands
    /// until there is an answer. It returns when the note survives a restart, if the engine can do that. Harmless if the
    /// key has not begun, is answered, or is forgotten.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn note_key(
        &self,
        identity: &Identity,
        id: KeyId,
        note: Answer,
    ) -> Result<(), StoreError>;

    /// Remembers the answer of a request whose key has begun; the first one stands. It returns when the answer survives a
    /// restart, if the engine can do that. Harmless if the key has not begun, or is forgotten.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn answer_key(
        &self,
        identity: &Identity,
        id: KeyId,
        answer: Answer,
    ) -> Result<(), StoreError>;

    /// Forgets a key that has begun and has no answer, with what is noted: nothing was done, and a repetition shall do it.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn forget_key(&self, identity: &Identity, id: KeyId) -> Result<(), StoreError>;

    /// Keeps a sealed credential of an identity, in the place of the one before. It returns when it survives a restart, if the
    /// engine can do that. What is over is forgotten.
    ///
    /// # Errors
    ///
    /// [`StoreError::StorageFull`] if there are as many as may be, or the store failed.
    async fn put_credential(
        &self,
        identity: &Identity,
        credential: SealedCredential,
    ) -> Result<(), StoreError>;

    /// Forgets a sealed credential of an identity, if it is this one that stands.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn forget_credential(
        &self,
        identity: &Identity,
        credential: &SealedCredential,
    ) -> Result<(), StoreError>;

    /// The sealed credential of an identity, if there is one that is not over: of those that survive a restart, if the engine can
    /// do that, the newest.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn credential(&self, identity: &Identity)
    -> Result<Option<SealedCredential>, StoreError>;
}

/// A device or module that this gateway serves. Holds no secret: keys live in `upstream`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceRecord {
    /// Who.
    pub identity: Identity,
    /// Who keeps a cloud-to-device message until the device has settled it.
    pub custody: Custody,
    /// What becomes of a direct method while the device cannot answer.
    pub method_policy: MethodPolicy,
    /// Whether its session stays open without demand.
    pub is_pinned: bool,
    /// Whether the gateway has no key for it: what the device itself shows opens its session.
    pub is_passed_through: bool,
}

/// Who keeps a cloud-to-device message until the device has settled it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Custody {
    /// The gateway's durable inbox; the hub is told at once.
    Gateway,
    /// The hub, which is told when the device has settled.
    #[default]
    Hub,
}

/// What becomes of a direct method while the device cannot answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MethodPolicy {
    /// It waits until its deadline: the method subscription always stands.
    Hold,
    /// The hub tells the caller at once that the device is not online.
    #[default]
    FailFast,
    /// The gateway answers with this status at once.
    Answer(i32),
}

/// The name of a token, not secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub String);

/// SHA-256 of a token. Tokens have 256 random bits, so no salt and no slow hash are needed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash([u8; 32]);

/// A gateway token, without the token itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRecord {
    /// Its name.
    pub id: TokenId,
    /// What it speaks for.
    pub identity: Identity,
    /// How it is recognized.
    pub hash: TokenHash,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when; `None`: until revoked.
    pub expires_at: Option<Timestamp>,
    /// What it opens.
    pub scopes: Scopes,
    /// Where it comes from.
    pub origin: TokenOrigin,
}

/// Where a gateway token comes from: what it hangs on beside its own record.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenOrigin {
    /// An operator made it.
    #[default]
    Operator,
    /// It was bought with a token that the device's key made, and the gateway holds the key.
    Key,
    /// It was bought with a token that the hub took. The registry need not know the device.
    Hub,
    /// It was bought with another gateway token, and is good only as long as that one stands.
    Token(TokenHash),
}

impl TokenHash {
    /// The hash of a token's text.
    #[must_use]
    pub fn of(token: &str) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(token.as_bytes()).into())
    }
}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> Self {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(hash.0)
    }
}

impl TryFrom<String> for TokenHash {
    type Error = InvalidTokenHash;

    fn try_from(text: String) -> Result<Self, InvalidTokenHash> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(InvalidTokenHash)
    }
}

/// The text is no hash of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token hash is the base64 form of 32 bytes")]
pub struct InvalidTokenHash;

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(..)")
    }
}
