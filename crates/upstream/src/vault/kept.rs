//! What is kept of a device's tokens, and what of it is still good.
//!
//! A session puts what is kept on its shelf before it connects, and the hub judges it as any other. So while there is a session,
//! what is kept and not on the shelf is worth nothing; and what the hub has refused is forgotten.

use std::{sync::atomic::Ordering, time::Duration};

use iothub::{Identity, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use store::{SealedCredential, StoreError};

use super::Vault;
use crate::{
    credentials::Mode,
    node::{Node, now, wall_now},
    tokens::Standing,
};

/// A token that is kept, opened.
struct Kept {
    text: SecretString,
    credential: SealedCredential,
}

impl Kept {
    const fn end(&self) -> Timestamp {
        self.credential.expires_at()
    }
}

impl Node {
    /// Keeps the newest token that the hub has taken, if it is not kept yet; until when one is kept that is good.
    pub(crate) async fn keep_token(
        &self,
        identity: &Identity,
    ) -> Result<Option<Timestamp>, StoreError> {
        let Some(vault) = self.vault_of(identity) else {
            return Ok(None);
        };
        let tokens = self.credentials.tokens();
        let mut put = None;
        // Others keep tokens meanwhile: whoever puts one looks again whether it is the newest.
        loop {
            let kept = self.kept(vault, identity).await?;
            let Standing {
                newest,
                is_attended,
            } = tokens.standing(identity, wall_now());
            let Some(newest) = newest else {
                return Ok(self.good(identity, kept, is_attended));
            };
            let end = newest.expires_at.min(wall_now().saturating_add(LONGEST));
            match kept {
                Some(kept) if kept.text.expose_secret() == newest.text.expose_secret() => {
                    return Ok(Some(kept.end()));
                }
                // It ends later, and the hub has not refused it.
                Some(kept) if kept.end() > end && !is_attended => return Ok(Some(kept.end())),
                // Another one was put in its place, and is not on the shelf: the next caller looks again.
                Some(kept) if put == Some(end) => return Ok(Some(kept.end().min(end))),
                Some(_) | None => {}
            }
            let Some(sealed) = vault.seal(identity, &newest.text, end) else {
                tracing::error!(device = %identity, "the token cannot be sealed");
                return Ok(None);
            };
            let registry = &self.store.registry;
            let result = registry.put_credential(identity, sealed).await;
            if result == Err(StoreError::StorageFull) {
                self.warn_of_vault("there is no room for one more token");
            }
            result?;
            put = Some(end);
        }
    }

    /// Until when a token is kept that is good.
    pub(crate) async fn kept_until(
        &self,
        identity: &Identity,
    ) -> Result<Option<Timestamp>, StoreError> {
        let Some(vault) = self.vault_of(identity) else {
            return Ok(None);
        };
        Ok(self.kept(vault, identity).await?.map(|kept| kept.end()))
    }

    /// Puts the token that is kept where the session of its device finds it.
    pub(crate) async fn restore_token(&self, identity: &Identity) -> Result<(), StoreError> {
        if let Some(vault) = self.vault_of(identity)
            && let Some(kept) = self.kept(vault, identity).await?
        {
            let tokens = self.credentials.tokens();
            tokens.restore(identity, &kept.text, kept.end(), now());
        }
        Ok(())
    }

    /// Forgets the token that is kept, if the hub has just refused it.
    pub(crate) async fn forget_refused_token(&self, identity: &Identity) -> Result<(), StoreError> {
        if let Some(vault) = self.vault_of(identity)
            && let Some(kept) = self.kept(vault, identity).await?
            && self.is_refused(identity, &kept)
        {
            let registry = &self.store.registry;
            registry
                .forget_credential(identity, &kept.credential)
                .await?;
        }
        Ok(())
    }

    fn good(
        &self,
        identity: &Identity,
        kept: Option<Kept>,
        is_attended: bool,
    ) -> Option<Timestamp> {
        let kept = kept.filter(|kept| !is_attended && !self.is_refused(identity, kept));
        kept.map(|kept| kept.end())
    }

    fn is_refused(&self, identity: &Identity, kept: &Kept) -> bool {
        let tokens = self.credentials.tokens();
        tokens.is_refused(identity, &kept.text, now())
    }

    fn vault_of(&self, identity: &Identity) -> Option<&Vault> {
        let is_passed_through = self.credentials.mode(identity) == Some(Mode::PassThrough);
        self.credentials.vault().filter(|_| is_passed_through)
    }

    async fn kept(&self, vault: &Vault, identity: &Identity) -> Result<Option<Kept>, StoreError> {
        let Some(credential) = self.store.registry.credential(identity).await? else {
            return Ok(None);
        };
        let Some(text) = vault.open(identity, &credential) else {
            self.warn_of_vault(
                "a token is kept that no key opens: name the key that has sealed it in vault.older_keys",
            );
            return Ok(None);
        };
        Ok(Some(Kept { text, credential }))
    }

    /// Once, for every request of such a device would say it.
    fn warn_of_vault(&self, problem: &str) {
        if !self.has_warned_of_vault.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                problem,
                "writes of devices that are passed through are not stored"
            );
        }
    }
}

/// How long a token is kept at most, however late it ends: it would take its room for ever.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
