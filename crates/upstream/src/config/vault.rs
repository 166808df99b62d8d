//! What is said of the vault.

use serde::{Deserialize, Serialize};

use super::KeySource;

/// The vault for the tokens of devices that are passed through.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultConfig {
    /// Where the key is that seals: the base64 form of 32 random bytes. Who has it and the store's folder has the tokens, until
    /// they end.
    pub key: KeySource,
    /// Where the keys are that have sealed before, so that what they have sealed can be opened. A token ends within hours or
    /// days; a key is needed no longer than the tokens that it has sealed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older_keys: Vec<KeySource>,
}
