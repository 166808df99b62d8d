//! The `authentication` of a device or module in JSON.

use iothub::sas::Key;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::HttpError;
use crate::hub::DeviceKeys;

/// What the SDKs send.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Authentication {
    #[serde(rename = "type")]
    kind: Option<String>,
    symmetric_key: Option<SymmetricKey>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SymmetricKey {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

/// The keys that a body gives; none if the hub shall make them.
pub(super) fn keys(given: Option<Authentication>) -> Result<Option<DeviceKeys>, HttpError> {
    let keys = given.map(Authentication::into_keys).transpose()?;
    Ok(keys.flatten())
}

pub(super) fn to_json(keys: &DeviceKeys) -> Value {
    json!({
        "symmetricKey": {
            "primaryKey": keys.primary.to_base64(),
            "secondaryKey": keys.secondary.to_base64(),
        },
        "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
        "type": "sas",
    })
}

impl Authentication {
    /// `""` or nothing for both: the hub makes them. One alone is refused (live hub).
    fn into_keys(self) -> Result<Option<DeviceKeys>, HttpError> {
        match self.kind.as_deref() {
            None | Some("sas") => {}
            Some(kind @ ("selfSigned" | "certificateAuthority")) => {
                return Err(HttpError::invalid(format!(
                    "The emulator has no authentication of type {kind} yet, only sas."
                )));
            }
            Some(kind) => {
                return Err(HttpError::invalid(format!(
                    "There is no authentication of type {kind}."
                )));
            }
        }
        let (primary, secondary) = self
            .symmetric_key
            .map_or((None, None), |keys| (keys.primary_key, keys.secondary_key));
        let given = |key: Option<String>| key.filter(|key| !key.is_empty());
        match (given(primary), given(secondary)) {
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

fn key(name: &str, text: &str) -> Result<Key, HttpError> {
    Key::from_base64(text).map_err(|error| HttpError::invalid(format!("{name}: {error}.")))
}
