//! What opens the session of a device whose key the gateway does not hold, kept so that nobody who reads the store can use it.

use bytes::Bytes;
use iothub::Timestamp;

/// A device's own token, sealed by those who can open it. What the bytes mean is their business alone.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedCredential {
    sealed: Bytes,
    expires_at: Timestamp,
}

/// A sealed credential is longer than any that a token can become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a sealed credential has {bytes} bytes, and may have {} at most",
    SealedCredential::MAX_BYTES
)]
pub struct SealedTooLong {
    /// Its bytes.
    pub bytes: usize,
}

impl SealedCredential {
    /// The longest one: the longest token, and room for what seals it.
    pub const MAX_BYTES: usize = 2048 + 128;

    /// Sealed bytes that are worth nothing from this moment on.
    ///
    /// # Errors
    ///
    /// They are too many.
    pub fn new(sealed: Bytes, expires_at: Timestamp) -> Result<Self, SealedTooLong> {
        if sealed.len() > Self::MAX_BYTES {
            return Err(SealedTooLong {
                bytes: sealed.len(),
            });
        }
        Ok(Self { sealed, expires_at })
    }

    /// The bytes.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// Until when it is good.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

impl std::fmt::Debug for SealedCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedCredential")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_credential_is_bounded() {
        let end = Timestamp::from_unix_seconds(0);
        for (bytes, is_good) in [
            (SealedCredential::MAX_BYTES - 1, true),
            (SealedCredential::MAX_BYTES, true),
            (SealedCredential::MAX_BYTES + 1, false),
        ] {
            let sealed = SealedCredential::new(vec![0; bytes].into(), end);
            assert_eq!(sealed.is_ok(), is_good, "{bytes}");
        }
    }
}
