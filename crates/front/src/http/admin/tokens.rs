//! Making, listing and revoking tokens.

use std::time::Duration;

use api::Code;
use http::StatusCode;
use iothub::Identity;
use secrecy::ExposeSecret as _;
use store::{Scopes, TokenId, TokenOrigin, TokenRecord};

use super::{
    Admin, not_served, now,
    shown::{CreateToken, CreatedToken, ShownToken, ShownTokens},
};
use crate::{
    http::{
        answer::{self, Answer},
        extract,
        problem::Refusal,
        tokens,
    },
    tokens::FreshToken,
};

impl Admin {
    pub(super) async fn create_token(&self, asked: CreateToken) -> Result<Answer, Refusal> {
        let identity =
            self.identity(asked.hub.as_deref(), &asked.device, asked.module.as_deref())?;
        if self.store.registry.device(&identity).await?.is_none() {
            return Err(not_served());
        }
        let fresh = FreshToken::new().map_err(|error| {
            Refusal::new(
                Code::Internal,
                format!("no randomness for a token: {error}"),
            )
        })?;
        let created_at = now();
        let expires_at = asked
            .lifetime_s
            .map(|seconds| created_at.saturating_add(Duration::from_secs(seconds)));
        let record = TokenRecord {
            id: fresh.id,
            identity,
            hash: fresh.hash,
            created_at,
            expires_at,
            scopes: tokens::known(&asked.scope).unwrap_or(Scopes::ALL),
            origin: TokenOrigin::Operator,
        };
        self.store.registry.put_token(record.clone()).await?;
        let created = CreatedToken {
            token: fresh.token.expose_secret(),
            shown: record.into(),
        };
        Ok(answer::document(
            StatusCode::CREATED,
            api::media_type::JSON,
            &created,
        ))
    }

    pub(super) async fn list_tokens(&self, identity: &Identity) -> Result<Answer, Refusal> {
        let tokens = self.store.registry.tokens(identity).await?;
        Ok(answer::json(&ShownTokens {
            tokens: tokens.into_iter().map(ShownToken::from).collect(),
        }))
    }

    pub(super) async fn revoke_token(
        &self,
        identity: &Identity,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let id = TokenId(extract::decode(id)?.into_owned());
        if self.store.registry.revoke_token(identity, &id).await? {
            Ok(answer::empty(StatusCode::NO_CONTENT))
        } else {
            Err(Refusal::new(
                Code::NotFound,
                "the device has no token of this id",
            ))
        }
    }
}
