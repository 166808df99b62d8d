//! A credential becomes a grant: whom it speaks for, and what it opens.
//!
//! Two kinds of credential are spoken, in `Authorization` or in a header of our own:
//!
//! - **A gateway token**: `tmb_` and 256 random bits in base64url. The registry knows its SHA-256 only; looking up a hash
//!   of that many random bits tells nobody anything by the time it takes. A token that was bought with another one is
//!   good as long as that one stands, so every token between it and its origin is looked up.
//! - **A shared access signature**, as IoT Hub's own clients make it. Whether it is good only the other half can say,
//!   through the store's judge. Its resource starts with a host name, which chooses among the hubs of the
//!   configuration and never leads outside of them.
//!
//! What a credential is *for* is decided after who it *is*: nothing about devices is looked up, or said, before.

mod failures;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use iothub::{
    DeviceId, HubName, Identity, ModuleId, Timestamp,
    sas::{self, ParseTokenError},
};
use secrecy::SecretString;
use store::{JudgeSeat, Registry, Scopes, StoreError, TokenHash, TokenOrigin, Verdict};
use tracing::debug;

pub(crate) use self::failures::{Failures, TooManyFailures};
use crate::config::ServedName;

/// Why a request speaks for nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// Neither `Authorization` nor `Tombolo-Authorization`.
    #[error(
        "the request has no credential: send a gateway token as \"Authorization: Bearer tmb_...\", or a shared access \
         signature"
    )]
    Missing,
    /// Two credentials.
    #[error("Authorization and Tombolo-Authorization are both there and differ: send one of them")]
    Conflicting,
    /// A scheme that is not spoken here.
    #[error(
        "the credential's scheme is not known: send \"Bearer tmb_...\" or \"SharedAccessSignature sr=...\""
    )]
    Scheme,
    /// Never given, or revoked, or of a device that is not served any more.
    #[error("the token is unknown or revoked")]
    Unknown,
    /// Given, and over.
    #[error("the token has expired")]
    Expired,
    /// A shared access signature that is none.
    #[error("the shared access signature: {0}")]
    Malformed(ParseTokenError),
    /// A shared access signature that is not good for this device. Which of the reasons it is tells a guesser more
    /// than a device.
    #[error(
        "the shared access signature is not accepted for this device: its resource, its expiry or its key is wrong"
    )]
    Refused,
    /// It could not be found out.
    #[error("whether the shared access signature is good cannot be found out now")]
    Undecided,
    /// It could not be found out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuthError {
    /// Whether a credential was tried that is not good. One that is not there guesses nothing.
    pub(crate) const fn is_failed_attempt(&self) -> bool {
        match self {
            Self::Scheme | Self::Unknown | Self::Expired | Self::Malformed(_) | Self::Refused => {
                true
            }
            Self::Missing | Self::Conflicting | Self::Undecided | Self::Store(_) => false,
        }
    }
}

/// A credential as it was sent. Secret, so it has no `Debug`.
pub(crate) enum Credential<'a> {
    /// A gateway token, without its scheme.
    Token(&'a str),
    /// A shared access signature, with its scheme, which is part of it.
    Signature(&'a str),
}

/// Whom a good credential speaks for, and what it opens.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The device or module.
    pub(crate) identity: Identity,
    /// What it opens.
    pub(crate) scopes: Scopes,
    /// What it rests on.
    pub(crate) proof: Proof,
}

/// What a grant rests on.
#[derive(Debug)]
pub(crate) enum Proof {
    /// A gateway token.
    Token {
        /// Its name in the registry.
        hash: TokenHash,
        /// Until when.
        expires_at: Option<Timestamp>,
        /// How many tokens it hangs on.
        generation: usize,
        /// Whether the hub alone can judge the device: in the end the token hangs on one that the hub took, or an operator has
        /// made it for a device whose key is not held here.
        is_passed_through: bool,
    },
    /// A token that the device's key made, which the gateway holds.
    Key,
    /// A token that the hub took.
    Hub {
        /// Until when.
        expires_at: Timestamp,
    },
}

impl Grant {
    /// Whether the gateway itself can open a session for the identity, whatever becomes of this credential.
    pub(crate) const fn is_of_the_gateway(&self) -> bool {
        match self.proof {
            Proof::Token {
                is_passed_through, ..
            } => !is_passed_through,
            Proof::Key => true,
            Proof::Hub { .. } => false,
        }
    }
}

/// Finds out who a request speaks for.
pub(crate) struct Authenticator {
    registry: Arc<dyn Registry>,
    judge: JudgeSeat,
    /// The hubs that a request may reach.
    hubs: Vec<HubName>,
    /// The names of this gateway, by one of which a device may know its hub.
    names: Vec<ServedName>,
}

impl<'a> Credential<'a> {
    /// Reads a header's value.
    pub(crate) fn parse(value: &'a HeaderValue) -> Result<Self, AuthError> {
        let text = value.to_str().map_err(|_| AuthError::Scheme)?;
        let (scheme, rest) = text.split_once(' ').ok_or(AuthError::Scheme)?;
        if scheme.eq_ignore_ascii_case("Bearer") {
            Ok(Self::Token(rest.trim()))
        } else if scheme.eq_ignore_ascii_case("SharedAccessSignature") {
            Ok(Self::Signature(text.trim()))
        } else {
            Err(AuthError::Scheme)
        }
    }
}

/// The one credential of a request. The same one in both headers, or twice in one, is one.
pub(crate) fn credential(headers: &HeaderMap) -> Result<&HeaderValue, AuthError> {
    let mut all = headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .chain(headers.get_all(TOMBOLO_AUTHORIZATION));
    let first = all.next().ok_or(AuthError::Missing)?;
    if all.all(|other| other == first) {
        Ok(first)
    } else {
        Err(AuthError::Conflicting)
    }
}

impl Authenticator {
    pub(crate) fn new(
        registry: Arc<dyn Registry>,
        judge: JudgeSeat,
        hubs: Vec<HubName>,
        names: Vec<ServedName>,
    ) -> Self {
        Self {
            registry,
            judge,
            hubs,
            names,
        }
    }

    /// What a gateway token grants.
    pub(crate) async fn token(&self, token: &str, now: Timestamp) -> Result<Grant, AuthError> {
        let hash = TokenHash::of(token);
        let record = self
            .registry
            .token(&hash)
            .await?
            .ok_or(AuthError::Unknown)?;
        if record.expires_at.is_some_and(|end| end <= now) {
            return Err(AuthError::Expired);
        }
        let (mut origin, mut generation) = (record.origin, 0);
        while let TokenOrigin::Token(older) = origin {
            generation += 1;
            // Nobody can buy a token this far from its origin, so the walk has an end whatever the registry holds.
            if generation > MOST_GENERATIONS {
                return Err(AuthError::Unknown);
            }
            let older = self.registry.token(&older).await?;
            origin = older.ok_or(AuthError::Unknown)?.origin;
        }
        // A device whose token the hub took need not be known here.
        let is_passed_through = if origin == TokenOrigin::Hub {
            true
        } else {
            // A token may outlive its device in the registry.
            let device = self.registry.device(&record.identity).await?;
            device.ok_or(AuthError::Unknown)?.is_passed_through
        };
        Ok(Grant {
            identity: record.identity,
            scopes: record.scopes,
            proof: Proof::Token {
                hash,
                expires_at: record.expires_at,
                generation,
                is_passed_through,
            },
        })
    }

    /// What a shared access signature grants to a device or module.
    pub(crate) async fn signature(
        &self,
        text: &str,
        device: DeviceId,
        module: Option<ModuleId>,
    ) -> Result<Grant, AuthError> {
        let host = sas::Token::parse(text)
            .map_err(AuthError::Malformed)?
            .host();
        let identity = self.identity(&host, device, module).await?;
        let identity = identity.ok_or(AuthError::Refused)?;
        let proof = match self.judge.judge(&identity, &SecretString::from(text)).await {
            Ok(Verdict::Checked { .. }) => Proof::Key,
            Ok(Verdict::Accepted { expires_at }) => Proof::Hub { expires_at },
            Ok(Verdict::Refused | Verdict::UnknownDevice) => return Err(AuthError::Refused),
            Ok(Verdict::Undecided) => return Err(AuthError::Undecided),
            Err(error) => {
                debug!(%error, "nobody judges a token");
                return Err(AuthError::Undecided);
            }
        };
        Ok(Grant {
            identity,
            scopes: Scopes::ALL,
            proof,
        })
    }

    /// Whom ids name at a host: a hub of the configuration, or this gateway. By the gateway's name a device is found
    /// at the one hub there is, or at the one that has it.
    async fn identity(
        &self,
        host: &str,
        device: DeviceId,
        module: Option<ModuleId>,
    ) -> Result<Option<Identity>, StoreError> {
        let at = |hub: &HubName| match &module {
            None => Identity::device(hub.clone(), device.clone()),
            Some(module) => Identity::module(hub.clone(), device.clone(), module.clone()),
        };
        if let Some(hub) = self.hubs.iter().find(|hub| hub.as_str() == host) {
            return Ok(Some(at(hub)));
        }
        if !self.names.iter().any(|name| name.is(host)) {
            return Ok(None);
        }
        if let [only] = self.hubs.as_slice() {
            return Ok(Some(at(only)));
        }
        let mut found = None;
        for identity in self.hubs.iter().map(at) {
            if self.registry.device(&identity).await?.is_some() && found.replace(identity).is_some()
            {
                return Ok(None);
            }
        }
        Ok(found)
    }
}

/// Made at compile time: every request is asked for it.
const TOMBOLO_AUTHORIZATION: HeaderName =
    HeaderName::from_static(api::header::TOMBOLO_AUTHORIZATION);
/// How far from its origin a token may be. Each step is one look-up more for every request.
pub(crate) const MOST_GENERATIONS: usize = 4;

#[cfg(test)]
mod tests {
    use store::{Custody, DeviceRecord, MethodPolicy};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    fn token_of(headers: &HeaderMap) -> Result<&str, AuthError> {
        match credential(headers).and_then(Credential::parse)? {
            Credential::Token(token) => Ok(token),
            Credential::Signature(text) => panic!("{text} is no token"),
        }
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
            assert_eq!(token_of(&headers(pairs)).unwrap(), "x");
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
    fn two_schemes_are_spoken() {
        let text = HeaderValue::from_static("SharedAccessSignature sr=x&sig=y");
        let Ok(Credential::Signature(found)) = Credential::parse(&text) else {
            panic!("it is a signature");
        };
        assert_eq!(found, "SharedAccessSignature sr=x&sig=y");
        for other in ["Basic eDp5", "x", "", "Bearer", "SharedAccessSignature"] {
            let value = HeaderValue::from_static(other);
            let refused = Credential::parse(&value).err();
            assert!(matches!(refused, Some(AuthError::Scheme)), "{other}");
        }
    }

    #[tokio::test]
    async fn a_host_chooses_among_the_hubs_of_the_configuration() {
        let store = store::memory::open(store::memory::Config::default()).unwrap();
        let hub = |name: &str| name.parse::<HubName>().unwrap();
        let with = |hubs: &[&str]| {
            let hubs = hubs.iter().map(|name| hub(name)).collect();
            let names = vec!["gateway.example".parse().unwrap()];
            Authenticator::new(store.registry.clone(), store.judge.clone(), hubs, names)
        };
        let device = || "dev1".parse::<DeviceId>().unwrap();
        let find = async |authenticator: &Authenticator, host: &str| {
            let found = authenticator.identity(host, device(), None).await.unwrap();
            found.map(|identity| identity.hub().to_string())
        };
        let one = with(&["a.example"]);
        assert_eq!(find(&one, "a.example").await.as_deref(), Some("a.example"));
        assert_eq!(
            find(&one, "gateway.example").await.as_deref(),
            Some("a.example")
        );
        for outside in ["b.example", "a.example.evil", "", "127.0.0.1"] {
            assert_eq!(find(&one, outside).await, None, "{outside}");
        }

        let two = with(&["a.example", "b.example"]);
        assert_eq!(find(&two, "b.example").await.as_deref(), Some("b.example"));
        assert_eq!(find(&two, "gateway.example").await, None);
        let serve = async |name: &str| {
            let record = DeviceRecord {
                identity: Identity::device(hub(name), device()),
                custody: Custody::Hub,
                method_policy: MethodPolicy::FailFast,
                is_pinned: false,
                is_passed_through: false,
            };
            store.registry.put_device(record).await.unwrap();
        };
        serve("b.example").await;
        assert_eq!(
            find(&two, "gateway.example").await.as_deref(),
            Some("b.example")
        );
        serve("a.example").await;
        assert_eq!(
            find(&two, "gateway.example").await,
            None,
            "both have the device"
        );
    }
}
