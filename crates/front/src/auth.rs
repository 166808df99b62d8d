//! A credential becomes an identity.
//!
//! A gateway token is `tmb_` and 256 random bits in base64url. The registry knows its SHA-256 only; looking up a hash
//! of that many random bits tells nobody anything by the time it takes.
//!
//! What a credential is *for* is decided after who it *is*: nothing about devices is looked up, or said, before.

use http::{HeaderMap, HeaderValue, header};
use iothub::{Identity, Timestamp};
use secrecy::SecretString;
use store::{Registry, StoreError, TokenHash, TokenId};

/// Why a request speaks for nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// Neither `Authorization` nor `Tombolo-Authorization`.
    #[error(
        "the request has no credential: send a gateway token as \"Authorization: Bearer tmb_...\""
    )]
    Missing,
    /// Two credentials.
    #[error("Authorization and Tombolo-Authorization are both there and differ: send one of them")]
    Conflicting,
    /// IoT Hub's own tokens.
    #[error(
        "shared access signatures are not accepted by this gateway: send a gateway token as \"Bearer tmb_...\""
    )]
    SharedAccessSignature,
    /// A scheme that is not spoken here.
    #[error("the credential's scheme is not known: send a gateway token as \"Bearer tmb_...\"")]
    Scheme,
    /// Never given, or revoked, or of a device that is not served any more.
    #[error("the token is unknown or revoked")]
    Unknown,
    /// Given, and over.
    #[error("the token has expired")]
    Expired,
    /// It could not be found out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Finds out who a request speaks for.
pub(crate) async fn authenticate(
    registry: &dyn Registry,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Identity, AuthError> {
    let hash = TokenHash::of(bearer(credential(headers)?)?);
    let record = registry.token(&hash).await?.ok_or(AuthError::Unknown)?;
    if record.expires_at.is_some_and(|end| end <= now) {
        return Err(AuthError::Expired);
    }
    // A token may outlive its device in the registry.
    registry
        .device(&record.identity)
        .await?
        .ok_or(AuthError::Unknown)?;
    Ok(record.identity)
}

/// The token of a `Bearer` credential.
pub(crate) fn bearer(credential: &HeaderValue) -> Result<&str, AuthError> {
    let text = credential.to_str().map_err(|_| AuthError::Scheme)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthError::Scheme)?;
    if scheme.eq_ignore_ascii_case("Bearer") {
        Ok(token.trim())
    } else if scheme.eq_ignore_ascii_case("SharedAccessSignature") {
        Err(AuthError::SharedAccessSignature)
    } else {
        Err(AuthError::Scheme)
    }
}

/// The one credential of a request. The same one in both headers, or twice in one, is one.
pub(crate) fn credential(headers: &HeaderMap) -> Result<&HeaderValue, AuthError> {
    let mut all = headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .chain(headers.get_all(api::header::TOMBOLO_AUTHORIZATION));
    let first = all.next().ok_or(AuthError::Missing)?;
    if all.all(|other| other == first) {
        Ok(first)
    } else {
        Err(AuthError::Conflicting)
    }
}

/// A gateway token that nobody knows yet.
pub(crate) struct FreshToken {
    /// Its name.
    pub(crate) id: TokenId,
    /// What the device sends.
    pub(crate) token: SecretString,
    /// What is kept.
    pub(crate) hash: TokenHash,
}

impl FreshToken {
    /// A random one. Fails if the system has no randomness to give.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
        let (mut secret, mut id) = ([0; 32], [0; 9]);
        getrandom::fill(&mut secret)?;
        getrandom::fill(&mut id)?;
        let token = format!("{TOKEN_PREFIX}{}", BASE64URL.encode(secret));
        Ok(Self {
            id: TokenId(BASE64URL.encode(id)),
            hash: TokenHash::of(&token),
            token: token.into(),
        })
    }
}

/// Makes a token recognizable, for people and for scanners that look for leaked secrets.
const TOKEN_PREFIX: &str = "tmb_";

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn one_credential_may_stand_in_either_header() {
        for pairs in [
            &[("authorization", "Bearer x")][..],
            &[("tombolo-authorization", "bearer x")],
            &[
                ("authorization", "Bearer x"),
                ("tombolo-authorization", "Bearer x"),
            ],
        ] {
            let headers = headers(pairs);
            assert_eq!(credential(&headers).and_then(bearer).unwrap(), "x");
        }
    }

    #[test]
    fn two_credentials_are_a_mistake() {
        for second in ["authorization", "tombolo-authorization"] {
            let mut headers = headers(&[("authorization", "Bearer x")]);
            headers.append(second, HeaderValue::from_static("Bearer y"));
            assert!(matches!(credential(&headers), Err(AuthError::Conflicting)));
        }
        assert!(matches!(
            credential(&HeaderMap::new()),
            Err(AuthError::Missing)
        ));
    }

    #[test]
    fn only_bearer_is_spoken() {
        let of = |text| bearer(&HeaderValue::from_static(text)).map(str::to_owned);
        assert!(matches!(
            of("SharedAccessSignature sr=x"),
            Err(AuthError::SharedAccessSignature)
        ));
        for other in ["Basic eDp5", "x", "", "Bearer"] {
            assert!(matches!(of(other), Err(AuthError::Scheme)), "{other}");
        }
    }

    #[test]
    fn a_token_has_256_random_bits_and_a_prefix() {
        let (one, other) = (FreshToken::new().unwrap(), FreshToken::new().unwrap());
        let text = one.token.expose_secret();
        assert_eq!(text.len(), 4 + 43);
        assert!(text.starts_with("tmb_"));
        assert_ne!(text, other.token.expose_secret());
        assert_eq!(one.hash, TokenHash::of(text));
    }
}
