//! The bench's own authority, and the one certificate that every hub and every peer shows.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::tls::Endpoint;

/// The peers' name.
pub(crate) const PEER: &str = "localhost";
/// The hub's name, which is none of a peer.
pub(crate) const HUB: &str = "bench-hub.localhost";

/// PEM files.
pub(crate) struct Certificates {
    pub(crate) ca_file: PathBuf,
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

/// OpenSSL takes a certificate with the name of its authority for a self-signed one.
fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

impl Certificates {
    /// Makes them anew; keys are P-256, as a gateway's would be.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Tombolo bench CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)
            .context("could not make the authority")?;

        let names = [PEER, HUB, "127.0.0.1"].map(String::from);
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name(PEER);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params
            .signed_by(&key, &authority)
            .context("could not make the certificate")?;

        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text)
                .with_context(|| format!("could not write {}", path.display()))?;
            anyhow::Ok(path)
        };
        Ok(Self {
            ca_file: write("ca.pem", authority.pem())?,
            certificate_file: write("server.pem", certificate.pem())?,
            key_file: write("server.key", key.serialize_pem())?,
        })
    }

    /// A process that listens there and shows the certificate.
    pub(crate) fn endpoint(&self, address: SocketAddr, name: &str) -> Endpoint {
        Endpoint {
            address,
            name: name.to_owned(),
            ca_file: self.ca_file.clone(),
        }
    }
}
