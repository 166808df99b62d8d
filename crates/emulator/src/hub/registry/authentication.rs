//! How an identity shows who it is.

use iothub::sas::Key;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    hub::{Random, snapshot::key},
    x509::Thumbprint,
};

/// How a device or module shows who it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Authentication {
    /// By a signature with one of two symmetric keys.
    Sas(DeviceKeys),
    /// By a certificate that is known by its thumbprint, whoever signed it.
    SelfSigned(Thumbprints),
    /// By a certificate in its name whose chain leads to an authority that the hub trusts.
    CertificateAuthority,
}

/// The two symmetric keys of a device or module; either signs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceKeys {
    /// One.
    #[serde(with = "key")]
    pub primary: Key,
    /// The other.
    #[serde(with = "key")]
    pub secondary: Key,
}

/// The thumbprints of one or two certificates; either opens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thumbprints {
    /// One.
    pub primary: Option<Thumbprint>,
    /// The other.
    pub secondary: Option<Thumbprint>,
}

impl Authentication {
    pub(super) fn mint(random: &mut Random) -> Self {
        Self::Sas(DeviceKeys {
            primary: random.key(),
            secondary: random.key(),
        })
    }

    /// The keys, if it is by keys.
    #[must_use]
    pub const fn keys(&self) -> Option<&DeviceKeys> {
        match self {
            Self::Sas(keys) => Some(keys),
            Self::SelfSigned(_) | Self::CertificateAuthority => None,
        }
    }

    /// The name of the kind in JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sas(_) => "sas",
            Self::SelfSigned(_) => "selfSigned",
            Self::CertificateAuthority => "certificateAuthority",
        }
    }

    /// `x509Thumbprint` as twins and identities show it.
    pub(crate) fn thumbprints_to_json(&self) -> Value {
        let (primary, secondary) = match self {
            Self::SelfSigned(prints) => (prints.primary.as_ref(), prints.secondary.as_ref()),
            Self::Sas(_) | Self::CertificateAuthority => (None, None),
        };
        json!({
            "primaryThumbprint": primary.map(Thumbprint::as_str),
            "secondaryThumbprint": secondary.map(Thumbprint::as_str),
        })
    }
}

impl From<DeviceKeys> for Authentication {
    fn from(keys: DeviceKeys) -> Self {
        Self::Sas(keys)
    }
}

impl Thumbprints {
    /// Those that there are.
    pub(in crate::hub) fn iter(&self) -> impl Iterator<Item = &Thumbprint> {
        self.primary.iter().chain(&self.secondary)
    }
}
