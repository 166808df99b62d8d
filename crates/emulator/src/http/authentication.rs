//! The `authentication` of a device or module in JSON.

use iothub::sas::Key;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::HttpError;
use crate::{
    hub::{self, DeviceKeys, Thumbprints},
    x509::Thumbprint,
};

/// What the SDKs send.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Authentication {
    #[serde(rename = "type")]
    kind: Option<String>,
    symmetric_key: Option<SymmetricKey>,
    x509_thumbprint: Option<X509Thumbprint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SymmetricKey {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct X509Thumbprint {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

/// What a body gives; none if the hub shall make keys.
pub(super) fn parse(
    given: Option<Authentication>,
) -> Result<Option<hub::Authentication>, HttpError> {
    let Some(given) = given else {
        return Ok(None);
    };
    match given.kind.as_deref() {
        None | Some("sas") => {
            let keys = given.symmetric_key.map(SymmetricKey::parse).transpose()?;
            Ok(keys.flatten().map(Into::into))
        }
        Some("selfSigned") => {
            let thumbprints = given
                .x509_thumbprint
                .map(X509Thumbprint::parse)
                .transpose()?;
            let thumbprints = thumbprints.flatten().ok_or_else(|| {
                HttpError::invalid("Authentication of type selfSigned needs a thumbprint.")
            })?;
            Ok(Some(hub::Authentication::SelfSigned(thumbprints)))
        }
        Some("certificateAuthority") => Ok(Some(hub::Authentication::CertificateAuthority)),
        // A hub refuses "none" as well, which modules of an Edge device have (live hub).
        Some(kind) => Err(HttpError::invalid(format!(
            "There is no authentication of type {kind}."
        ))),
    }
}

pub(super) fn to_json(authentication: &hub::Authentication) -> Value {
    let keys = authentication.keys();
    json!({
        "symmetricKey": {
            "primaryKey": keys.map(|keys| keys.primary.to_base64()),
            "secondaryKey": keys.map(|keys| keys.secondary.to_base64()),
        },
        "x509Thumbprint": authentication.thumbprints_to_json(),
        "type": authentication.kind(),
    })
}

impl SymmetricKey {
    /// `""` or nothing for both: the hub makes them. One alone is refused (live hub).
    fn parse(self) -> Result<Option<DeviceKeys>, HttpError> {
        match (given(self.primary_key), given(self.secondary_key)) {
            (None, None) => Ok(None),
            (Some(primary), Some(secondary)) => Ok(Some(DeviceKeys {
                primary: key("primaryKey", &primary)?,
                secondary: key("secondaryKey", &secondary)?,
            })),
            (Some(_), None) | (None, Some(_)) => Err(HttpError::invalid(
                "primaryKey and secondaryKey are given both or neither.",
            )),
        }
    }
}

impl X509Thumbprint {
    /// One is enough: the second is for the time in which a certificate is replaced.
    fn parse(self) -> Result<Option<Thumbprints>, HttpError> {
        let thumbprint = |name, text| {
            given(text)
                .map(|text| text.parse::<Thumbprint>())
                .transpose()
                .map_err(|error| HttpError::invalid(format!("{name}: {error}.")))
        };
        let primary = thumbprint("primaryThumbprint", self.primary_thumbprint)?;
        let secondary = thumbprint("secondaryThumbprint", self.secondary_thumbprint)?;
        if primary.is_none() && secondary.is_none() {
            return Ok(None);
        }
        Ok(Some(Thumbprints { primary, secondary }))
    }
}

/// The SDKs write `""` for what is left out.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn key(name: &str, text: &str) -> Result<Key, HttpError> {
    Key::from_base64(text).map_err(|error| HttpError::invalid(format!("{name}: {error}.")))
}
