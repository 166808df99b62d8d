//! Who a device is: the proof that it brings, and the enrollment that takes it.
//!
//! The proof is judged with each request and not at CONNECT: with the real service a token of a wrong key connects, and its
//! register is answered 401 (azure-docs issue 43157).

use serde::{Deserialize, Serialize};

use super::{
    Error, GroupId, Now, RegistrationId, Service,
    certificate::Certificate,
    enrollment::{Attestation, Certificates, Terms},
};
use crate::{
    hub::{Authentication, DeviceKeys, Thumbprints},
    x509::{Authority, Peer, Thumbprint},
};
use iothub::{DeviceId, sas::Token};

/// What a device brings as proof.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// Its token: the password of its CONNECT, or the header `Authorization`.
    pub token: Option<&'a str>,
    /// What it showed in the TLS handshake.
    pub peer: &'a Peer,
}

/// The enrollment that took a device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Origin {
    /// The individual one of the registration's name.
    Individual,
    Group(GroupId),
}

/// A device whose proof is good.
pub(super) struct Admitted<'a> {
    pub(super) origin: Origin,
    pub(super) terms: &'a Terms,
    pub(super) device: DeviceId,
    /// What the device will prove itself to its hub with.
    pub(super) authentication: Authentication,
}

impl Service {
    /// # Errors
    ///
    /// 401 for all that is wrong: no enrollment, another key, an expired token.
    pub(super) fn admit(
        &self,
        id: &RegistrationId,
        presented: Presented<'_>,
        now: Now,
    ) -> Result<Admitted<'_>, Error> {
        let proof = self.read_proof(id, presented, now)?;
        if let Some((own, record)) = self.individuals.get_key_value(id) {
            let enrollment = &record.enrollment;
            let terms = &enrollment.terms;
            let authentication = match (&terms.attestation, &proof) {
                (Attestation::SymmetricKey(keys), Proof::Token(token)) => {
                    keys.take(token).ok_or_else(Error::unauthorized)
                }
                (Attestation::X509(own), Proof::Chain(chain)) => {
                    own.take_same(chain).ok_or_else(Error::invalid_certificate)
                }
                (Attestation::CaReferences { primary, secondary }, Proof::Chain(chain)) => self
                    .take_referred(primary, secondary.as_deref(), chain, now)
                    .ok_or_else(Error::invalid_certificate),
                (Attestation::SymmetricKey(_), Proof::Chain(_))
                | (Attestation::X509(_) | Attestation::CaReferences { .. }, Proof::Token(_)) => {
                    Err(Error::unauthorized())
                }
            }?;
            return Ok(Admitted {
                origin: Origin::Individual,
                terms,
                device: enrollment.device(own),
                authentication,
            });
        }
        let taken = self.groups.iter().find_map(|(group, record)| {
            let terms = &record.enrollment.terms;
            let authentication = match (&terms.attestation, &proof) {
                (Attestation::SymmetricKey(keys), Proof::Token(token)) => {
                    keys.derive(id).take(token)
                }
                (Attestation::X509(signers), Proof::Chain(chain)) => signers
                    .iter()
                    .find_map(|signer| take_signed(signer, chain, now)),
                (Attestation::CaReferences { primary, secondary }, Proof::Chain(chain)) => {
                    self.take_referred(primary, secondary.as_deref(), chain, now)
                }
                (Attestation::SymmetricKey(_), Proof::Chain(_))
                | (Attestation::X509(_) | Attestation::CaReferences { .. }, Proof::Token(_)) => {
                    None
                }
            }?;
            Some(Admitted {
                origin: Origin::Group(group.clone()),
                terms,
                device: id.device(),
                authentication,
            })
        });
        taken.ok_or_else(|| match proof {
            Proof::Token(_) => Error::unauthorized(),
            Proof::Chain(_) => Error::invalid_certificate(),
        })
    }

    /// A token counts before a certificate: who has both says with the token which one is meant.
    fn read_proof<'a>(
        &self,
        id: &RegistrationId,
        presented: Presented<'a>,
        now: Now,
    ) -> Result<Proof<'a>, Error> {
        let Some(token) = presented.token.filter(|token| !token.is_empty()) else {
            let [own, ..] = presented.peer.certificates() else {
                return Err(Error::unauthorized());
            };
            let own = Certificate::from_der(own).map_err(|_| Error::invalid_certificate())?;
            // The registration is the certificate's common name ("Communicate with DPS using the MQTT protocol").
            let is_named = own
                .common_name()
                .is_some_and(|name| name.eq_ignore_ascii_case(id.as_str()));
            if !is_named || !own.is_valid_at(now.utc) {
                return Err(Error::invalid_certificate());
            }
            return Ok(Proof::Chain(Chain {
                own,
                peer: presented.peer,
            }));
        };
        let token = Token::parse(token).map_err(|_| Error::unauthorized())?;
        let resource = format!("{}/registrations/{id}", self.config.id_scope);
        // The documentation wants the policy "registration"; Python's SDK leaves it out.
        let is_device_policy = token.policy().is_none_or(|policy| policy == POLICY);
        if token.covers(&resource) && is_device_policy && !self.has_expired(&token, now) {
            Ok(Proof::Token(token))
        } else {
            Err(Error::unauthorized())
        }
    }

    fn take_referred(
        &self,
        primary: &str,
        secondary: Option<&str>,
        chain: &Chain<'_>,
        now: Now,
    ) -> Option<Authentication> {
        std::iter::once(primary)
            .chain(secondary)
            .filter_map(|name| self.config.authorities.get(name))
            .find_map(|authority| take_signed(authority, chain, now))
    }
}

enum Proof<'a> {
    /// For this registration and not expired; the signature has not been looked at.
    Token(Token),
    /// For this registration by its common name; who signed it has not been looked at.
    Chain(Chain<'a>),
}

struct Chain<'a> {
    own: Certificate,
    peer: &'a Peer,
}

impl DeviceKeys {
    /// Those of one device of a group ("Symmetric key attestation").
    fn derive(&self, id: &RegistrationId) -> Self {
        Self {
            primary: self.primary.derive(id.as_str()),
            secondary: self.secondary.derive(id.as_str()),
        }
    }

    fn take(&self, token: &Token) -> Option<Authentication> {
        let is_signed = token.is_signed_by(&self.primary) | token.is_signed_by(&self.secondary);
        is_signed.then(|| self.clone().into())
    }
}

impl Certificates {
    /// A device with one of these very certificates. The hub gets to know both, so that either connects.
    fn take_same(&self, chain: &Chain<'_>) -> Option<Authentication> {
        let is_ours = self.iter().any(|one| one.is(&chain.own));
        is_ours.then(|| known_by(&self.primary, self.secondary.as_ref()))
    }
}

/// A device with a certificate that `signer` stands for. The hub gets to know the device's own certificate ("How to roll
/// X.509 device certificates": the identity is created with the leaf certificate as the credential).
fn take_signed(signer: &Certificate, chain: &Chain<'_>, now: Now) -> Option<Authentication> {
    let authority = Authority::read(signer.der()).ok()?;
    let name = chain.own.common_name()?;
    chain.peer.check_chain(name, [&authority], now.utc).ok()?;
    Some(known_by(&chain.own, None))
}

fn known_by(primary: &Certificate, secondary: Option<&Certificate>) -> Authentication {
    let thumbprint = |certificate: &Certificate| Thumbprint::sha256_of(certificate.der());
    Authentication::SelfSigned(Thumbprints {
        primary: Some(thumbprint(primary)),
        secondary: secondary.map(thumbprint),
    })
}

/// `skn` of a device's token.
const POLICY: &str = "registration";
