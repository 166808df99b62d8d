//! Who may do what: shared access policies, and the keys and certificates of devices ("Control access to IoT Hub with shared
//! access signatures", "Authenticate identities with X.509 certificates").

use std::fmt;

use iothub::{
    ErrorCode, Identity, Timestamp,
    sas::{self, Key, Token},
};

use super::{
    AuthScope, Authentication, DeviceStatus, Error, Hub, Now, Random,
    registry::{Device, Record},
};
use crate::x509::{CertificateError, Peer};

/// A right that a policy grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Read identities.
    RegistryRead,
    /// Create, change and delete identities.
    RegistryWrite,
    /// Twins, methods, cloud-to-device messages, telemetry.
    ServiceConnect,
    /// Connect as any device or module.
    DeviceConnect,
}

impl fmt::Display for Right {
    /// As a policy calls it ("Control access to IoT Hub with shared access signatures", section on permissions).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RegistryRead => "RegistryRead",
            Self::RegistryWrite => "RegistryWrite",
            Self::ServiceConnect => "ServiceConnect",
            Self::DeviceConnect => "DeviceConnect",
        })
    }
}

/// A shared access policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What a token names as `skn`.
    pub name: String,
    /// What it grants.
    pub rights: Vec<Right>,
    /// One of two keys; either signs.
    pub primary: Key,
    /// The other.
    pub secondary: Key,
}

/// What a device or module brings to show who it is.
#[derive(Clone, Copy)]
pub struct Proof<'a> {
    token: Option<&'a str>,
    peer: &'a Peer,
}

/// That a device or module may connect, and by what.
pub(super) struct DeviceAccess {
    pub(super) scope: AuthScope,
    /// None if a certificate opens.
    pub(super) expires_at: Option<Timestamp>,
}

/// Why a device, a module or a service may not: for the hub's log. It is never told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("no such device or module")]
    UnknownIdentity,
    #[error("the device is disabled")]
    Disabled,
    #[error("there is no shared access signature")]
    NoToken,
    #[error("there is neither a shared access signature nor a way for this identity to do without")]
    NoProof,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the token has expired")]
    Expired,
    #[error("the token is for another hub, device or module (sr)")]
    OtherResource,
    #[error("the token names no shared access policy of this hub (skn)")]
    UnknownPolicy,
    #[error("the policy of the token does not grant {0}")]
    NotGranted(Right),
    #[error("the signature is wrong: it was made with another key")]
    Signature,
}

impl<'a> Proof<'a> {
    /// A password or header, and who is at the other end of the connection. Without a token, or with an empty one, the
    /// certificate counts; with one it does not (the MQTT page: the password is for tokens; EdgeHub's
    /// DeviceIdentityProvider).
    #[must_use]
    pub fn new(token: Option<&'a str>, peer: &'a Peer) -> Self {
        Self {
            token: token.filter(|token| !token.is_empty()),
            peer,
        }
    }
}

impl Policy {
    /// The five policies of a fresh hub, with keys of their own.
    #[must_use]
    pub fn defaults(random: &mut Random) -> Vec<Self> {
        use Right::{DeviceConnect, RegistryRead, RegistryWrite, ServiceConnect};
        let all = [RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect];
        let grants: [(&str, &[Right]); 5] = [
            ("iothubowner", &all),
            ("service", &[ServiceConnect]),
            ("device", &[DeviceConnect]),
            ("registryRead", &[RegistryRead]),
            ("registryReadWrite", &[RegistryRead, RegistryWrite]),
        ];
        grants
            .map(|(name, rights)| Self {
                name: name.to_owned(),
                rights: rights.to_vec(),
                primary: random.key(),
                secondary: random.key(),
            })
            .into()
    }

    fn has_signed(&self, token: &Token) -> bool {
        token.is_signed_by(&self.primary) | token.is_signed_by(&self.secondary)
    }

    fn check(&self, right: Right) -> Result<(), Denied> {
        let is_granted = self.rights.contains(&right);
        is_granted.then_some(()).ok_or(Denied::NotGranted(right))
    }
}

impl Authentication {
    /// An identity with certificates has no keys that could sign.
    fn has_signed(&self, token: &Token) -> bool {
        self.keys().is_some_and(|keys| {
            token.is_signed_by(&keys.primary) | token.is_signed_by(&keys.secondary)
        })
    }
}

impl Hub {
    /// Judges the `Authorization` header of a service request.
    ///
    /// A service token names the host of its connection string, which need not be the hub's name (`localhost` works with
    /// Microsoft's SDKs); `hosts` are the names that this hub is reached by.
    ///
    /// # Errors
    ///
    /// Always the same one: unknown policy, wrong signature, expired and lacking right are not told apart.
    pub fn authorize_service(
        &self,
        header: &str,
        right: Right,
        hosts: &[String],
        now: Now,
    ) -> Result<(), Error> {
        self.judge_service(header, right, hosts, now)
            .map_err(|why| {
                tracing::info!(%why, "refused a service");
                Error::new(ErrorCode::IotHubUnauthorizedAccess, "Unauthorized")
            })
    }

    pub(super) fn judge_service(
        &self,
        header: &str,
        right: Right,
        hosts: &[String],
        now: Now,
    ) -> Result<(), Denied> {
        let token = Token::parse(header).map_err(|_| Denied::NoToken)?;
        if self.has_expired(token.expires_at(), now) {
            return Err(Denied::Expired);
        }
        let hub = sas::service_resource(&self.config.name);
        if !token.covers(&hub) && !hosts.iter().any(|host| token.covers(host)) {
            return Err(Denied::OtherResource);
        }
        let policy = token.policy().and_then(|name| self.policy(name));
        let policy = policy.ok_or(Denied::UnknownPolicy)?;
        if !policy.has_signed(&token) {
            return Err(Denied::Signature);
        }
        policy.check(right)
    }

    /// Judges what a device or module brings. A token names the hub, or one of `hosts`.
    pub(super) fn authorize_device(
        &self,
        identity: &Identity,
        proof: Proof<'_>,
        hosts: &[String],
        now: Now,
    ) -> Result<DeviceAccess, Denied> {
        let unknown = |_| Denied::UnknownIdentity;
        let device = self
            .registry
            .device(identity.device_id())
            .map_err(unknown)?;
        let record = self.registry.record(identity).map_err(unknown)?;
        if device.status == DeviceStatus::Disabled {
            return Err(Denied::Disabled);
        }
        match proof.token {
            Some(token) => self.judge_token(identity, device, record, token, hosts, now),
            None => self.judge_certificate(identity, record, proof.peer, now),
        }
    }

    fn judge_token(
        &self,
        identity: &Identity,
        device: &Device,
        record: &Record,
        token: &str,
        hosts: &[String],
        now: Now,
    ) -> Result<DeviceAccess, Denied> {
        let token = Token::parse(token).map_err(|_| Denied::NoToken)?;
        if self.has_expired(token.expires_at(), now)
            || Some(token.expires_at()) <= record.tokens_expired_until
        {
            return Err(Denied::Expired);
        }
        let names_us = |host: &String| token.covers(&sas::resource_at(host, identity));
        if !token.covers(&sas::resource(identity)) && !hosts.iter().any(names_us) {
            return Err(Denied::OtherResource);
        }
        let (is_signed, scope) = match token.policy() {
            // A device's key has the right to connect the device and its modules.
            None if identity.module_id().is_some() && record.authentication.has_signed(&token) => {
                (true, AuthScope::Module)
            }
            None => (
                device.record.authentication.has_signed(&token),
                AuthScope::Device,
            ),
            Some(name) => {
                let policy = self.policy(name).ok_or(Denied::UnknownPolicy)?;
                policy.check(Right::DeviceConnect)?;
                (policy.has_signed(&token), AuthScope::Hub)
            }
        };
        if !is_signed {
            return Err(Denied::Signature);
        }
        Ok(DeviceAccess {
            scope,
            expires_at: Some(token.expires_at()),
        })
    }

    fn judge_certificate(
        &self,
        identity: &Identity,
        record: &Record,
        peer: &Peer,
        now: Now,
    ) -> Result<DeviceAccess, Denied> {
        match &record.authentication {
            Authentication::Sas(_) => return Err(Denied::NoProof),
            Authentication::SelfSigned(thumbprints) => {
                peer.check_thumbprint(thumbprints.iter(), now.utc)?;
            }
            // The common name is "deviceId", or "deviceId/moduleId" ("Authenticate devices using X.509 CA certificates").
            Authentication::CertificateAuthority => {
                peer.check_chain(&identity.client_id(), self.authorities.iter(), now.utc)?;
            }
        }
        Ok(DeviceAccess {
            scope: match identity.module_id() {
                None => AuthScope::DeviceCertificate,
                Some(_) => AuthScope::ModuleCertificate,
            },
            expires_at: None,
        })
    }

    pub(super) fn has_expired(&self, expires_at: Timestamp, now: Now) -> bool {
        expires_at.saturating_add(self.config.token_grace) <= now.utc
    }

    fn policy(&self, name: &str) -> Option<&Policy> {
        self.config.policies.iter().find(|p| p.name == name)
    }
}
