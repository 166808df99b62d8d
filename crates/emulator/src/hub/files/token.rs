//! The token with which a device writes its file: a query, as the service SAS of Azure Storage is one, signed with a key that
//! the hub has for itself. It is good for one file, for reading and writing, until a time.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use iothub::Timestamp;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::FileError;
use crate::hub::Random;

/// The parts of the token that are checked.
#[derive(Clone, PartialEq, Eq)]
pub struct BlobToken {
    /// `se`: when its time is over, as it is written.
    pub expires_at: String,
    /// `sp`: what it permits.
    pub permissions: String,
    /// `sig`: base64.
    pub signature: String,
}

/// Signs tokens.
pub(in crate::hub) struct StorageKey(Zeroizing<[u8; 32]>);

/// Never shows the signature.
impl fmt::Debug for BlobToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobToken")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl StorageKey {
    pub(in crate::hub) fn new(random: &mut Random) -> Self {
        Self(Zeroizing::new(random.bytes()))
    }

    pub(super) fn grant(&self, blob: &str, ends_at: Timestamp) -> BlobToken {
        // Rounded down, so that it never outlives the upload.
        let expires_at = Timestamp::from_unix_seconds(ends_at.unix_seconds()).to_string();
        let signature = self.mac(blob, &expires_at, PERMISSIONS).finalize();
        BlobToken {
            permissions: PERMISSIONS.to_owned(),
            signature: BASE64.encode(signature.into_bytes()),
            expires_at,
        }
    }

    pub(super) fn check(
        &self,
        blob: &str,
        token: &BlobToken,
        now: Timestamp,
    ) -> Result<(), FileError> {
        let mac = self.mac(blob, &token.expires_at, &token.permissions);
        let signature = BASE64.decode(&token.signature);
        let is_signed = signature.is_ok_and(|signature| mac.verify_slice(&signature).is_ok());
        let ends_at = token.expires_at.parse::<Timestamp>();
        if is_signed && ends_at.is_ok_and(|at| at > now) {
            Ok(())
        } else {
            Err(FileError::Unauthenticated)
        }
    }

    fn mac(&self, blob: &str, expires_at: &str, permissions: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*self.0).expect("HMAC takes a key of any length");
        // The name comes last: it is the only part that may have a line break, if anything has.
        mac.update(format!("{permissions}\n{expires_at}\n{blob}").as_bytes());
        mac
    }
}

/// What a hub's own token permits ("Upload files with IoT Hub").
const PERMISSIONS: &str = "rw";
