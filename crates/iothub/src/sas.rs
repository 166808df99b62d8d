//! Shared access signatures.
//!
//! ```text
//! SharedAccessSignature sr={sr}&sig={sig}&se={se}[&skn={policy}]
//! sig = percent_encode(base64(HMAC-SHA256(base64_decode(key), sr + "\n" + se)))
//! ```
//!
//! The signature is over `sr` exactly as it is written, and Microsoft's SDKs write it in three ways (raw, `%2F`,
//! `%2f`; .NET encodes special ids twice). So [`Token`] keeps the literal texts and decodes only to compare.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{HubName, Identity, Timestamp};

/// A symmetric key of 16 to 64 bytes. Has no `Display`, no equality, and wipes itself.
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

/// A parsed token whose signature has not been judged yet.
#[derive(Clone)]
pub struct Token {
    /// `sr`, exactly as written.
    sr: String,
    /// The decoded signature.
    signature: Vec<u8>,
    /// `se`, exactly as written.
    se: String,
    expires_at: Timestamp,
    policy: Option<String>,
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not base64.
    #[error("a key is base64 text")]
    Encoding,
    /// Not 16 to 64 bytes.
    #[error("a key has 16 to 64 bytes, this one has {0}")]
    Length(usize),
}

/// Why a text is no token. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseTokenError {
    /// Does not start with `SharedAccessSignature `.
    #[error("a token starts with \"SharedAccessSignature \"")]
    Scheme,
    /// A field that is missing or stands twice.
    #[error("a token has exactly one field {0}")]
    Field(&'static str),
    /// The signature is not base64 of 32 bytes.
    #[error("field sig is not the base64 form of 32 bytes")]
    Signature,
    /// `se` is not a decimal number.
    #[error("field se is not a time in seconds since 1970")]
    Expiry,
}

impl Key {
    /// Reads base64 text.
    ///
    /// # Errors
    ///
    /// The text is not base64, or not of 16 to 64 bytes.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKey> {
        let bytes = Zeroizing::new(BASE64.decode(text).map_err(|_| InvalidKey::Encoding)?);
        Self::from_bytes(bytes.to_vec())
    }

    /// Takes the bytes themselves.
    ///
    /// # Errors
    ///
    /// They are not 16 to 64.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidKey> {
        let bytes = Zeroizing::new(bytes);
        if (16..=64).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(InvalidKey::Length(bytes.len()))
        }
    }

    /// The base64 text: a secret.
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64.encode(&*self.0)
    }

    /// The key that DPS derives for one registration from a group's key.
    #[must_use]
    pub fn derive(&self, registration_id: &str) -> Self {
        Self(Zeroizing::new(
            self.hmac(&[registration_id.as_bytes()]).to_vec(),
        ))
    }

    /// Makes a token for a resource, written in the `%2F` form, valid until `expires_at`.
    #[must_use]
    pub fn sign(&self, resource: &str, policy: Option<&str>, expires_at: Timestamp) -> String {
        let sr = utf8_percent_encode(resource, ENCODED).to_string();
        let se = expires_at.unix_seconds();
        let signature =
            BASE64.encode(self.hmac(&[sr.as_bytes(), b"\n", se.to_string().as_bytes()]));
        let signature = utf8_percent_encode(&signature, ENCODED);
        match policy {
            None => format!("{SCHEME}sr={sr}&sig={signature}&se={se}"),
            Some(policy) => format!("{SCHEME}sr={sr}&sig={signature}&se={se}&skn={policy}"),
        }
    }

    fn hmac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Token {
    /// Reads the wire form. Fields may stand in any order; unknown ones are passed over; an empty `skn` is none.
    ///
    /// # Errors
    ///
    /// The text has another form. Nothing is said of whether the signature is right.
    pub fn parse(text: &str) -> Result<Self, ParseTokenError> {
        let fields = text.strip_prefix(SCHEME).ok_or(ParseTokenError::Scheme)?;
        let (mut sr, mut sig, mut se, mut skn) = (None, None, None, None);
        for (name, value) in fields.split('&').filter_map(|field| field.split_once('=')) {
            let (place, name) = match name.trim_start() {
                "sr" => (&mut sr, "sr"),
                "sig" => (&mut sig, "sig"),
                "se" => (&mut se, "se"),
                "skn" => (&mut skn, "skn"),
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(ParseTokenError::Field(name));
            }
        }
        let sr = sr
            .filter(|sr| !sr.is_empty())
            .ok_or(ParseTokenError::Field("sr"))?
            .to_owned();
        let se = se.ok_or(ParseTokenError::Field("se"))?.to_owned();
        let sig = sig.ok_or(ParseTokenError::Field("sig"))?;
        let signature = BASE64.decode(percent_decode_str(sig).collect::<Vec<u8>>());
        let signature = signature
            .ok()
            .filter(|s| s.len() == 32)
            .ok_or(ParseTokenError::Signature)?;
        let is_number = !se.is_empty() && se.bytes().all(|b| b.is_ascii_digit());
        let seconds = if is_number {
            se.parse::<i64>().ok()
        } else {
            None
        };
        let expires_at = Timestamp::from_unix_seconds(seconds.ok_or(ParseTokenError::Expiry)?);
        let policy = skn
            .filter(|skn| !skn.is_empty())
            .map(|skn| percent_decode_str(skn).decode_utf8_lossy().into_owned());
        Ok(Self {
            sr,
            signature,
            se,
            expires_at,
            policy,
        })
    }

    /// The host name at the start of the token's resource, in lower case: the hub's, or the name under which a device
    /// knows its hub. Bare: without a port, and without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> String {
        let once = decode(&self.sr);
        // A host name has no '%', so decoding once more than needed changes nothing.
        let resource = decode(&once);
        let host = resource.split('/').next().unwrap_or_default();
        bare(host).to_ascii_lowercase()
    }

    /// The moment from which the token is no longer valid.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The shared access policy that signed, if the token names one.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// Whether `key` made the signature. Takes the same time whatever the answer is.
    #[must_use]
    pub fn is_signed_by(&self, key: &Key) -> bool {
        key.hmac(&[self.sr.as_bytes(), b"\n", self.se.as_bytes()])
            .ct_eq(&self.signature)
            .into()
    }

    /// Whether the token's resource is `resource` or a whole-segment prefix of it: `/a/b` covers `/a/b/c`, not `/a/bc`.
    /// The first segment, the host, is compared without regard to case.
    #[must_use]
    pub fn covers(&self, resource: &str) -> bool {
        let once = decode(&self.sr);
        covers(&once, resource) || covers(&decode(&once), resource)
    }

    /// Like [`Token::covers`], whatever port the token's resource names behind its host. A hub knows no port, so this is
    /// for who is called in a hub's place, at a port of its own: Microsoft's SDKs sign the `HostName` of the connection
    /// string as it stands.
    #[must_use]
    pub fn covers_at_any_port(&self, resource: &str) -> bool {
        let once = decode(&self.sr);
        let covers = |sr: &str| {
            let host = sr.split('/').next().unwrap_or_default();
            covers(&format!("{}{}", bare(host), &sr[host.len()..]), resource)
        };
        covers(&once) || covers(&decode(&once))
    }

    /// Whether the token's resource is exactly `resource`.
    #[must_use]
    pub fn is_for(&self, resource: &str) -> bool {
        let once = decode(&self.sr);
        let is_same = |sr: &str| covers(sr, resource) && covers(resource, sr);
        is_same(&once) || is_same(&decode(&once))
    }
}

/// Shows the resource and the expiry, never the signature.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("sr", &self.sr)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The resource that a token of this identity names: `{hub}/devices/{device}[/modules/{module}]`.
#[must_use]
pub fn resource(identity: &Identity) -> String {
    resource_at(identity.hub().as_str(), identity)
}

/// Like [`resource`], at another host name: the gateway's, which a device was given instead of the hub's.
#[must_use]
pub fn resource_at(host: &str, identity: &Identity) -> String {
    let device = format!("{host}/devices/{}", identity.device_id());
    match identity.module_id() {
        None => device,
        Some(module) => format!("{device}/modules/{module}"),
    }
}

/// The resource that a token of the hub's service side names: the hub itself.
#[must_use]
pub fn service_resource(hub: &HubName) -> String {
    hub.to_string()
}

fn decode(text: &str) -> Cow<'_, str> {
    // A '+' is never a space here; bytes that are no UTF-8 match no resource.
    percent_decode_str(text).decode_utf8_lossy()
}

/// A host as a name has it: without the port behind it, and without the brackets in which an address of IPv6 stands before
/// a port.
fn bare(host: &str) -> &str {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let host = match host.rsplit_once(':') {
        // Without brackets the last group of an IPv6 address looks like a port.
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        Some(_) | None => host,
    };
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inside.unwrap_or(host)
}

fn covers(sr: &str, resource: &str) -> bool {
    let (sr_host, sr_path) = sr
        .split_once('/')
        .map_or((sr, None), |(host, path)| (host, Some(path)));
    let (host, path) = resource
        .split_once('/')
        .map_or((resource, None), |(host, path)| (host, Some(path)));
    if !sr_host.eq_ignore_ascii_case(host) {
        return false;
    }
    match (sr_path, path) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(prefix), Some(path)) => path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

const SCHEME: &str = "SharedAccessSignature ";

/// As Microsoft's documentation and the Python SDK encode: all but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
