//! X.509 certificates of devices: what a peer showed, thumbprints, and the authorities that vouch for it.
//!
//! Nothing here knows a hub or a clock: who asks brings the time.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use iothub::Timestamp;
use rustls::{ServerConnection, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::{Deserialize, Serialize};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::{certificate::X509Certificate, parse_x509_certificate};

/// Who is at the other end of a connection, as far as the TLS handshake tells.
///
/// The handshake has proved that the peer holds the key of its certificate, and nothing else: whether the certificate is good
/// for anything is for the hub to decide.
#[derive(Clone, Default)]
pub struct Peer(Option<Arc<[CertificateDer<'static>]>>);

/// The SHA-1 or SHA-256 of a certificate in hexadecimal digits, in the case in which they were given: the hub keeps it (live
/// hub).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Thumbprint(Arc<str>);

/// A text that is no thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thumbprint has 40 or 64 hexadecimal digits and nothing between them")]
pub struct InvalidThumbprint;

/// The certificate authorities that are trusted.
#[derive(Clone, Default)]
pub struct Authorities(BTreeMap<String, Authority>);

/// A trusted certificate authority.
#[derive(Clone)]
pub struct Authority {
    info: AuthorityInfo,
    certificate: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
}

/// A trusted certificate authority, as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthorityInfo {
    /// SHA-256 of its certificate in lower-case hexadecimal digits.
    pub thumbprint: String,
    /// Its name.
    pub subject: String,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// Why a certificate is not taken as an authority's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It may not sign others.
    #[error("the certificate is not that of a certificate authority (basicConstraints CA:TRUE)")]
    NoAuthority,
    /// There are as many as there may be.
    #[error("there are {AUTHORITIES} certificate authorities, as many as there may be")]
    Full,
}

/// Why a peer's certificate is not good for an identity: for the log. The peer is never told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is none.
    #[error("no certificate was shown")]
    Missing,
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It is too early or too late for it.
    #[error("the certificate is not valid at this time")]
    Expired,
    /// It is neither of the two that are registered.
    #[error("the certificate has another thumbprint")]
    Thumbprint,
    /// It is of somebody else.
    #[error("the certificate has another common name")]
    CommonName,
    /// It has no extensions, and so nothing says what it may be used for; webpki takes version 3 only.
    #[error(
        "a certificate of the chain is of X.509 version 1, and version 3 is wanted (openssl x509 -req makes it with -extfile)"
    )]
    Version,
    /// No trusted authority stands at the end of its chain.
    #[error("the certificate's chain leads to no trusted authority, or may not be used so")]
    Untrusted,
}

impl Peer {
    /// A peer that showed no certificate, or one whose certificate does not count.
    pub const ANONYMOUS: Self = Self(None);

    /// A peer that showed these certificates, its own first.
    #[must_use]
    pub fn with_certificates(certificates: &[CertificateDer<'static>]) -> Self {
        Self((!certificates.is_empty()).then(|| certificates.into()))
    }

    /// Who has shaken hands.
    pub(crate) fn of(connection: &ServerConnection) -> Self {
        Self::with_certificates(connection.peer_certificates().unwrap_or_default())
    }

    /// What was shown, the peer's own certificate first; empty if nothing was.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether its own certificate has one of `thumbprints` and is valid at `utc`. Who signed it does not matter.
    ///
    /// # Errors
    ///
    /// It is not so.
    pub fn check_thumbprint<'a>(
        &self,
        thumbprints: impl IntoIterator<Item = &'a Thumbprint>,
        utc: Timestamp,
    ) -> Result<(), CertificateError> {
        let (der, own) = self.own()?;
        if !thumbprints.into_iter().any(|print| print.is_of(der)) {
            return Err(CertificateError::Thumbprint);
        }
        check_validity(&own, utc)
    }

    /// Whether its own certificate is `name`'s, valid at `utc`, and signed by one of `authorities`, if need be by way of the
    /// other certificates that the peer showed.
    ///
    /// # Errors
    ///
    /// It is not so.
    pub fn check_chain<'a>(
        &self,
        name: &str,
        authorities: impl IntoIterator<Item = &'a Authority>,
        utc: Timestamp,
    ) -> Result<(), CertificateError> {
        let (der, own) = self.own()?;
        if common_name(&own) != Some(name) {
            return Err(CertificateError::CommonName);
        }
        check_validity(&own, utc)?;
        // webpki takes an anchor for good at any time.
        let anchors: Vec<_> = authorities
            .into_iter()
            .filter(|authority| {
                (authority.info.not_before..=authority.info.not_after).contains(&utc)
            })
            .map(|authority| authority.anchor.clone())
            .collect();
        let since_epoch = Duration::from_secs(u64::try_from(utc.unix_seconds()).unwrap_or(0));
        let untrusted = |error| {
            tracing::debug!(%error, "a device's chain of certificates does not hold");
            if error == webpki::Error::UnsupportedCertVersion {
                CertificateError::Version
            } else {
                CertificateError::Untrusted
            }
        };
        EndEntityCert::try_from(der)
            .map_err(untrusted)?
            .verify_for_usage(
                default_provider().signature_verification_algorithms.all,
                &anchors,
                &self.certificates()[1..],
                UnixTime::since_unix_epoch(since_epoch),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(untrusted)?;
        Ok(())
    }

    /// The peer's own certificate, as bytes and read.
    fn own(&self) -> Result<(&CertificateDer<'static>, X509Certificate<'_>), CertificateError> {
        let der = self
            .certificates()
            .first()
            .ok_or(CertificateError::Missing)?;
        let certificate = read(der).ok_or(CertificateError::Unreadable)?;
        Ok((der, certificate))
    }
}

impl Thumbprint {
    /// The SHA-256 of a certificate.
    #[must_use]
    pub fn sha256_of(certificate: &CertificateDer<'_>) -> Self {
        Self(hex(&SHA256, certificate).into())
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        let algorithm = match self.0.len() {
            SHA1_DIGITS => &SHA1_FOR_LEGACY_USE_ONLY,
            _ => &SHA256,
        };
        self.0.eq_ignore_ascii_case(&hex(algorithm, certificate))
    }
}

impl FromStr for Thumbprint {
    type Err = InvalidThumbprint;

    fn from_str(text: &str) -> Result<Self, InvalidThumbprint> {
        let has_length = matches!(text.len(), SHA1_DIGITS | SHA256_DIGITS);
        if has_length && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidThumbprint)
        }
    }
}

impl TryFrom<String> for Thumbprint {
    type Error = InvalidThumbprint;

    fn try_from(text: String) -> Result<Self, InvalidThumbprint> {
        text.parse()
    }
}

impl From<Thumbprint> for String {
    fn from(thumbprint: Thumbprint) -> Self {
        thumbprint.as_str().to_owned()
    }
}

impl Authorities {
    /// Trusts an authority; one that is trusted already stays so.
    ///
    /// # Errors
    ///
    /// It is no authority's certificate, or there are too many.
    pub fn add(
        &mut self,
        certificate: &CertificateDer<'_>,
    ) -> Result<AuthorityInfo, AuthorityError> {
        let authority = Authority::read(certificate)?;
        let info = authority.info.clone();
        if self.0.len() >= AUTHORITIES && !self.0.contains_key(&info.thumbprint) {
            return Err(AuthorityError::Full);
        }
        self.0.insert(info.thumbprint.clone(), authority);
        Ok(info)
    }

    /// Trusts authorities: all, or none.
    ///
    /// # Errors
    ///
    /// One of them is no authority's certificate, or there would be too many.
    pub fn add_all(
        &mut self,
        certificates: &[CertificateDer<'_>],
    ) -> Result<Vec<AuthorityInfo>, AuthorityError> {
        let mut all = self.clone();
        let added: Result<_, _> = certificates
            .iter()
            .map(|certificate| all.add(certificate))
            .collect();
        let added: Vec<_> = added?;
        *self = all;
        Ok(added)
    }

    /// Trusts an authority no longer. False if it was not trusted.
    pub fn remove(&mut self, thumbprint: &str) -> bool {
        self.0.remove(&thumbprint.to_ascii_lowercase()).is_some()
    }

    /// All, by their thumbprints.
    pub fn iter(&self) -> impl Iterator<Item = &Authority> {
        self.0.values()
    }
}

impl Authority {
    /// Reads the certificate of an authority, root or not.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, AuthorityError> {
        let parsed = read(certificate).ok_or(AuthorityError::Unreadable)?;
        if !parsed.is_ca() {
            return Err(AuthorityError::NoAuthority);
        }
        let anchor = anchor_from_trusted_cert(certificate);
        let validity = parsed.validity();
        Ok(Self {
            info: AuthorityInfo {
                thumbprint: hex(&SHA256, certificate),
                subject: parsed.subject().to_string(),
                not_before: Timestamp::from_unix_seconds(validity.not_before.timestamp()),
                not_after: Timestamp::from_unix_seconds(validity.not_after.timestamp()),
            },
            certificate: certificate.clone().into_owned(),
            anchor: anchor.map_err(|_| AuthorityError::Unreadable)?.to_owned(),
        })
    }

    /// Its certificate.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// How it is shown.
    #[must_use]
    pub const fn info(&self) -> &AuthorityInfo {
        &self.info
    }
}

/// Certificates are long, and their names may be those of persons.
impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("certificates", &self.certificates().len())
            .finish()
    }
}

fn read<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    match parse_x509_certificate(certificate) {
        Ok(([], certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    }
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok()
}

fn check_validity(
    certificate: &X509Certificate<'_>,
    utc: Timestamp,
) -> Result<(), CertificateError> {
    let (validity, now) = (certificate.validity(), utc.unix_seconds());
    if (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now) {
        Ok(())
    } else {
        Err(CertificateError::Expired)
    }
}

fn hex(algorithm: &'static Algorithm, certificate: &CertificateDer<'_>) -> String {
    digest(algorithm, certificate)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

const SHA1_DIGITS: usize = 40;
const SHA256_DIGITS: usize = 64;
/// Bound on the authorities of one hub. Microsoft does not document a hub's.
const AUTHORITIES: usize = 100;
