//! `POST .../token`.

use std::time::{Duration, SystemTime};

use api::{
    Object, limits,
    token::{self, TokenAnswer, TokenRequest},
};
use iothub::Timestamp;
use secrecy::ExposeSecret as _;
use store::{Scope, Scopes};

use super::{
    Gateway,
    answer::{self, Answer},
    extract::{BadRequest, DeviceRequest},
    problem::Refusal,
};
use crate::tokens::Wish;

/// Sells a token to whoever has a good credential.
pub(super) async fn create(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let limit = gateway.limits.json_bytes;
    let Object::<TokenRequest>(asked) = gateway.bodies.json(request.body, limit).await?;
    let lifetime = asked.lifetime_s.map_or(limits::TOKEN_LIFETIME, |seconds| {
        Duration::from_secs(seconds.into())
    });
    if !(limits::TOKEN_LIFETIME_LEAST..=limits::TOKEN_LIFETIME_MOST).contains(&lifetime) {
        return Err(BadRequest::Lifetime.into());
    }
    let wish = Wish {
        lifetime,
        scopes: known(&asked.scope),
    };
    let now = Timestamp::from(SystemTime::now());
    let bought = gateway.tokens.buy(&request.grant, wish, now).await?;
    // Whoever comes with what was bought shall find its writes stored, though the credential is not shown again. Where nothing
    // is kept, it is told so when it writes.
    if !request.grant.is_of_the_gateway() {
        let _ = gateway.devices.keeps_token(&request.grant.identity).await;
    }
    Ok(answer::json(&TokenAnswer {
        token: bought.token.expose_secret().to_owned(),
        token_id: bought.id.0,
        expires_at: bought.expires_at,
        scope: shown(bought.scopes),
    }))
}

/// Whether a call is open to a credential.
pub(super) fn is_open(needed: &[token::Scope], scopes: Scopes) -> bool {
    known(needed).is_none_or(|needed| needed.iter().any(|scope| scopes.contain(scope)))
}

/// Scopes as devices write them.
pub(super) fn shown(scopes: Scopes) -> Vec<token::Scope> {
    let shown = |scope| match scope {
        Scope::Telemetry => token::Scope::Telemetry,
        Scope::Messages => token::Scope::Messages,
        Scope::Twin => token::Scope::Twin,
        Scope::Methods => token::Scope::Methods,
        Scope::Files => token::Scope::Files,
    };
    scopes.iter().map(shown).collect()
}

/// Scopes that a list names; `None` if it names none, which stands for no restriction.
pub(super) fn known(scopes: &[token::Scope]) -> Option<Scopes> {
    let known = |scope: &token::Scope| match scope {
        token::Scope::Telemetry => Scope::Telemetry,
        token::Scope::Messages => Scope::Messages,
        token::Scope::Twin => Scope::Twin,
        token::Scope::Methods => Scope::Methods,
        token::Scope::Files => Scope::Files,
    };
    (!scopes.is_empty()).then(|| scopes.iter().map(known).collect())
}
