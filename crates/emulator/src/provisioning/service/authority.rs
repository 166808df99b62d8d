//! What operators may do: shared access policies ("Control access to Azure IoT Hub Device Provisioning Service").
//!
//! The real service tells five permissions apart; a policy of the emulator has them all, as `provisioningserviceowner` does.

use iothub::sas::{Key, Token};

use super::{Error, Now, Service};

/// A shared access policy of the service, with every right.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What a token names as `skn`.
    pub name: String,
    /// One of two keys; either signs.
    pub primary: Key,
    /// The other.
    pub secondary: Key,
}

impl Policy {
    /// The policy that a fresh service has; its secondary key derives from the primary one.
    #[must_use]
    pub fn owner(primary: Key) -> Self {
        Self {
            name: OWNER.to_owned(),
            secondary: primary.derive("secondary"),
            primary,
        }
    }
}

impl Service {
    /// Judges the `Authorization` header of an operator's request. A token names the host of its connection string, which
    /// need not be the service's name; `hosts` are the names that it is reached by.
    ///
    /// # Errors
    ///
    /// Always the same one: unknown policy, wrong signature and expired are not told apart.
    pub fn authorize(&self, header: &str, hosts: &[String], now: Now) -> Result<(), Error> {
        let token = Token::parse(header).map_err(|_| Error::unauthorized())?;
        let names_us =
            token.covers(self.config.name.as_str()) || hosts.iter().any(|host| token.covers(host));
        let named = |policy: &&Policy| Some(policy.name.as_str()) == token.policy();
        let is_signed = self
            .config
            .policies
            .iter()
            .find(named)
            .is_some_and(|policy| {
                token.is_signed_by(&policy.primary) | token.is_signed_by(&policy.secondary)
            });
        if names_us && is_signed && !self.has_expired(&token, now) {
            Ok(())
        } else {
            Err(Error::unauthorized())
        }
    }

    /// An operator's request counts, whoever it is.
    pub(crate) fn count_operation(&mut self, now: Now) -> Result<(), Error> {
        self.operated.count(self.config.limits.operations(), now.at)
    }

    pub(super) fn has_expired(&self, token: &Token, now: Now) -> bool {
        token.expires_at().saturating_add(self.config.token_grace) <= now.utc
    }
}

/// The name of a fresh service's policy.
pub const OWNER: &str = "provisioningserviceowner";
