//! TLS of the listeners: their own certificate, and that of a device if it shows one.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use tokio_rustls::TlsAcceptor;
use webpki::RawPublicKeyEntity;
use x509_parser::parse_x509_certificate;

use crate::Tls;

/// Makes the acceptor of a listener that offers `protocols` (ALPN).
///
/// Sessions are not resumed: the SDKs do not try, and ten thousand idle connections need no memory for it.
pub(crate) fn acceptor(tls: &Tls, protocols: &[&[u8]]) -> Result<TlsAcceptor, Error> {
    let provider = aws_lc_rs::default_provider();
    let verifier = AnyCertificate(provider.signature_verification_algorithms);
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(tls.certificates.clone(), tls.key.clone_key())?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config).into())
}

/// Asks for a certificate, wants none, and takes any whose key the client proves to have.
///
/// A hub asks for one within the first handshake ("Transport Layer Security (TLS) support in IoT Hub"), and cannot judge it
/// there: what it is good for depends on the identity, which only CONNECT or the request names. Its port 443 is thought to ask
/// later, by renegotiation, unless the path says `iothub-no-client-cert=true`; with rustls there is no later, so here both
/// ports ask at once.
///
/// Certificates of version 1 are taken as well, which `rustls::crypto::verify_tls13_signature` refuses: the commands of
/// Microsoft's "Use OpenSSL to create self-signed certificates" make such.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a client with several certificates chooses by itself.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        public_key(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    /// One scheme of TLS 1.2 stands for several algorithms, of which the key decides.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = public_key(certificate)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| BAD_ENCODING)?;
        let of_scheme = self.0.mapping.iter().find(|(s, _)| *s == signed.scheme);
        let (_, algorithms) =
            of_scheme.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let is_valid = algorithms.iter().any(|algorithm| {
            key.verify_signature(*algorithm, message, signed.signature())
                .is_ok()
        });
        if is_valid {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = public_key(certificate)?;
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The key of a certificate that is well-formed.
fn public_key<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<SubjectPublicKeyInfoDer<'a>, Error> {
    match parse_x509_certificate(certificate) {
        Ok(([], parsed)) => Ok(parsed.tbs_certificate.subject_pki.raw.into()),
        Ok(_) | Err(_) => Err(BAD_ENCODING),
    }
}

const BAD_ENCODING: Error = Error::InvalidCertificate(CertificateError::BadEncoding);
