//! An authority of its own, and the certificate that the gateway shows.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

/// Writes `gateway.pem`, certificate and key, into a folder, and gives the authority's certificate. Valid whatever the clock
/// says, for some days move it.
pub(super) fn make(folder: &Path) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("Tombolo bad days CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)
        .context("could not make the authority")?;

    let mut params = CertificateParams::new(["localhost".to_owned()])?;
    params.distinguished_name = common_name("localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params
        .signed_by(&key, &authority)
        .context("could not make the certificate")?;
    let pem = certificate.pem() + &key.serialize_pem();
    fs::write(folder.join("gateway.pem"), pem).context("could not write the certificate")?;
    Ok(authority.pem())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
