//! Gateway tokens: making and buying them.
//!
//! Whoever has a good credential buys a token with it, for the same device and for no more than the credential opens.
//! What was bought hangs on what it was bought with:
//!
//! - with a **gateway token**: it does not outlive it, and is good only as long as that one stands. To revoke a token is
//!   to revoke everything that was bought with it, and that with it, and so on.
//! - with a token that **the device's key** made: it lives as long as was asked for. The key is held here, and with the
//!   device it leaves the configuration.
//! - with a token that only **the hub** can judge: it does not outlive it, for without it the gateway has nothing to show
//!   the hub.
//!
//! The bought tokens of a device that live at once are limited, so that nobody fills the registry.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use iothub::{Identity, Timestamp};
use secrecy::SecretString;
use store::{
    PutTokenError, Registry, Scopes, StoreError, TokenHash, TokenId, TokenOrigin, TokenRecord,
};

use crate::auth::{Grant, MOST_GENERATIONS, Proof};

/// Sells tokens.
pub(crate) struct Tokens {
    registry: Arc<dyn Registry>,
    /// Bought tokens of one device or module that live at once.
    limit: usize,
}

/// What a device wants to buy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// How long it should live.
    pub(crate) lifetime: Duration,
    /// What it should open; `None`: all that the credential opens.
    pub(crate) scopes: Option<Scopes>,
}

/// A token that was bought.
pub(crate) struct Bought {
    /// What the device sends.
    pub(crate) token: SecretString,
    /// Its name.
    pub(crate) id: TokenId,
    /// When it ends.
    pub(crate) expires_at: Timestamp,
    /// What it opens.
    pub(crate) scopes: Scopes,
}

/// Why no token was sold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It should open more than the credential does.
    #[error("the credential does not have every scope that is asked for")]
    Scope,
    /// It would hang on too many others.
    #[error(
        "the token was bought with a token that was bought with a token, and so on: buy with one nearer to the origin"
    )]
    TooFarFromItsOrigin,
    /// As many live as may.
    #[error("the device has bought as many tokens as may live at once")]
    TooMany {
        /// When the first of them ends.
        retry_after: Duration,
    },
    /// It could not be kept.
    #[error(transparent)]
    Put(#[from] PutTokenError),
    /// The system gives no random bits.
    #[error("no randomness for a token: {0}")]
    Randomness(#[from] getrandom::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Tokens {
    pub(crate) fn new(registry: Arc<dyn Registry>, limit: usize) -> Self {
        Self { registry, limit }
    }

    /// Buys a token with what a grant rests on.
    pub(crate) async fn buy(
        &self,
        grant: &Grant,
        wish: Wish,
        now: Timestamp,
    ) -> Result<Bought, Error> {
        let scopes = wish.scopes.unwrap_or(grant.scopes);
        if !scopes.are_within(grant.scopes) {
            return Err(Error::Scope);
        }
        let (origin, end) = match &grant.proof {
            Proof::Token { generation, .. } if *generation >= MOST_GENERATIONS => {
                return Err(Error::TooFarFromItsOrigin);
            }
            Proof::Token {
                hash, expires_at, ..
            } => (TokenOrigin::Token(hash.clone()), *expires_at),
            Proof::Key => (TokenOrigin::Key, None),
            Proof::Hub { expires_at } => (TokenOrigin::Hub, Some(*expires_at)),
        };
        let asked = now.saturating_add(wish.lifetime);
        let expires_at = end.map_or(asked, |end| end.min(asked));
        self.make_room(&grant.identity, now).await?;

        let fresh = FreshToken::new()?;
        let record = TokenRecord {
            id: fresh.id.clone(),
            identity: grant.identity.clone(),
            hash: fresh.hash,
            created_at: now,
            expires_at: Some(expires_at),
            scopes,
            origin,
        };
        self.put(record).await?;
        Ok(Bought {
            token: fresh.token,
            id: fresh.id,
            expires_at,
            scopes,
        })
    }

    /// Forgets bought tokens that are over, and finds out whether one more may live.
    ///
    /// Two requests at once may both find room: the limit is passed by as many as a device has requests at most.
    async fn make_room(&self, identity: &Identity, now: Timestamp) -> Result<(), Error> {
        let records = self.registry.tokens(identity).await?;
        let mut ends = Vec::new();
        for record in records.iter().filter(|record| is_bought(record)) {
            let end = record.expires_at.unwrap_or(now);
            if end <= now {
                self.registry.revoke_token(identity, &record.id).await?;
            } else {
                ends.push(end);
            }
        }
        match ends.iter().min() {
            Some(first) if ends.len() >= self.limit => Err(Error::TooMany {
                retry_after: first.saturating_since(now),
            }),
            _ => Ok(()),
        }
    }

    /// Puts it again if the answer was lost, which is the same token.
    async fn put(&self, record: TokenRecord) -> Result<(), PutTokenError> {
        match self.registry.put_token(record.clone()).await {
            Err(PutTokenError::Store(StoreError::UnknownOutcome)) => {
                self.registry.put_token(record).await
            }
            result => result,
        }
    }
}

const fn is_bought(record: &TokenRecord) -> bool {
    match record.origin {
        TokenOrigin::Operator => false,
        TokenOrigin::Key | TokenOrigin::Hub | TokenOrigin::Token(_) => true,
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
