//! X.509 certificates of enrollments and devices.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use iothub::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use x509_parser::{certificate::X509Certificate, parse_x509_certificate};

/// A certificate, read once.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Certificate(Arc<Parsed>);

struct Parsed {
    der: CertificateDer<'static>,
    subject: String,
    issuer: String,
    common_name: Option<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    serial: String,
    version: u32,
}

/// A text or bytes that are no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a certificate is wanted, in PEM or as the base64 text of its DER")]
pub struct InvalidCertificate;

impl Certificate {
    /// Reads PEM, or the base64 text of DER: SDKs write either.
    ///
    /// # Errors
    ///
    /// It is neither.
    pub fn from_text(text: &str) -> Result<Self, InvalidCertificate> {
        let der = CertificateDer::from_pem_slice(text.as_bytes()).or_else(|_| {
            let compact: String = text.split_ascii_whitespace().collect();
            let der = BASE64.decode(compact).map_err(|_| InvalidCertificate)?;
            Ok(CertificateDer::from(der))
        })?;
        Self::from_der(&der)
    }

    /// Reads DER.
    ///
    /// # Errors
    ///
    /// It is no certificate, or something follows it.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, InvalidCertificate> {
        let Ok(([], parsed)) = parse_x509_certificate(der) else {
            return Err(InvalidCertificate);
        };
        let X509Certificate {
            tbs_certificate: certificate,
            ..
        } = &parsed;
        let mut names = certificate.subject.iter_common_name();
        let time =
            |time: x509_parser::time::ASN1Time| Timestamp::from_unix_seconds(time.timestamp());
        Ok(Self(Arc::new(Parsed {
            subject: certificate.subject.to_string(),
            issuer: certificate.issuer.to_string(),
            common_name: names
                .next()
                .and_then(|name| name.as_str().ok())
                .map(str::to_owned),
            not_before: time(certificate.validity.not_before),
            not_after: time(certificate.validity.not_after),
            serial: hex(certificate.raw_serial()),
            version: certificate.version.0 + 1,
            der: der.clone().into_owned(),
        })))
    }

    /// The bytes.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0.der
    }

    /// SHA-256 over the bytes, 64 hexadecimal digits in upper case, as the service shows it.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex(digest::digest(&SHA256, &self.0.der).as_ref())
    }

    /// SHA-1 over the bytes, 40 hexadecimal digits in upper case.
    #[must_use]
    pub fn sha1(&self) -> String {
        hex(digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.0.der).as_ref())
    }

    /// Whom it is for.
    pub(super) fn common_name(&self) -> Option<&str> {
        self.0.common_name.as_deref()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }

    pub(super) fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.0.not_before..=self.0.not_after).contains(&now)
    }

    /// `info` of a certificate in an enrollment (the service's REST specification, `X509CertificateInfo`).
    pub(super) fn info(&self) -> Value {
        let parsed = &self.0;
        json!({
            "subjectName": parsed.subject,
            "sha1Thumbprint": self.sha1(),
            "sha256Thumbprint": self.sha256(),
            "issuerName": parsed.issuer,
            "notBeforeUtc": parsed.not_before,
            "notAfterUtc": parsed.not_after,
            "serialNumber": parsed.serial,
            "version": parsed.version,
        })
    }
}

impl TryFrom<String> for Certificate {
    type Error = InvalidCertificate;

    fn try_from(text: String) -> Result<Self, InvalidCertificate> {
        Self::from_text(&text)
    }
}

impl From<Certificate> for String {
    /// The base64 text of its DER.
    fn from(certificate: Certificate) -> Self {
        BASE64.encode(certificate.der())
    }
}

/// Names in certificates may be of persons.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.sha256()).finish()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
