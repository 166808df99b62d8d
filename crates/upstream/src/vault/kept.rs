//! What is kept of a device's tokens, and what of it is still good.
//!
//! A session puts what is kept on its shelf before it connects, and the hub judges it as any other. So while there is a session,
//! what is kept and not on the shelf is worth nothing.

use iothub::{Identity, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use store::StoreError;

use super::Vault;
use crate::{
    credentials::Mode,
    node::{Node, now, wall_now},
    tokens::Standing,
};

impl Node {
    /// Keeps the newest token that the hub has taken, if it is not kept yet; until when one is kept that is good.
    pub(crate) async fn keep_token(
        &self,
        identity: &Identity,
    ) -> Result<Option<Timestamp>, StoreError> {
        let Some(vault) = self.vault_of(identity) else {
            return Ok(None);
        };
        let kept = self.kept(vault, identity).await?;
        let tokens = self.credentials.tokens();
        let Standing {
            newest,
            is_attended,
        } = tokens.standing(identity, wall_now());
        let is_good =
            |text: &SecretString| !is_attended && !tokens.is_refused(identity, text, now());
        let Some(newest) = newest else {
            return Ok(kept.filter(|(text, _)| is_good(text)).map(|(_, end)| end));
        };
        if let Some((text, end)) = kept
            && (text.expose_secret() == newest.text.expose_secret()
                || end > newest.expires_at && is_good(&text))
        {
            return Ok(Some(end));
        }
        let Some(sealed) = vault.seal(identity, &newest.text, newest.expires_at) else {
            tracing::error!(device = %identity, "the token cannot be sealed");
            return Ok(None);
        };
        let registry = &self.store.registry;
        registry.put_credential(identity, sealed).await?;
        Ok(Some(newest.expires_at))
    }

    /// Puts the token that is kept where the session of its device finds it.
    pub(crate) async fn restore_token(&self, identity: &Identity) -> Result<(), StoreError> {
        if let Some(vault) = self.vault_of(identity)
            && let Some((text, end)) = self.kept(vault, identity).await?
        {
            let tokens = self.credentials.tokens();
            tokens.restore(identity, &text, end, now());
        }
        Ok(())
    }

    fn vault_of(&self, identity: &Identity) -> Option<&Vault> {
        let is_passed_through = self.credentials.mode(identity) == Some(Mode::PassThrough);
        self.credentials.vault().filter(|_| is_passed_through)
    }

    async fn kept(
        &self,
        vault: &Vault,
        identity: &Identity,
    ) -> Result<Option<(SecretString, Timestamp)>, StoreError> {
        let Some(credential) = self.store.registry.credential(identity).await? else {
            return Ok(None);
        };
        let opened = vault.open(identity, &credential);
        if opened.is_none() {
            tracing::warn!(
                device = %identity,
                "a token is kept that no key of the vault opens: name the key that it was sealed with in vault.older_keys"
            );
        }
        Ok(opened.map(|text| (text, credential.expires_at())))
    }
}
