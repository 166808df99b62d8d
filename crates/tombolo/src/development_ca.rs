//! The development CA: certificates that App Transport Security accepts, for a machine that has no public name.
//!
//! ATS takes no self-signed server certificate and an app can not loosen that, so `dev` has a root of its own, to be
//! trusted once per phone and watch, and signs a server certificate with it at start.
//!
//! **What a stolen key could do** is bounded by the root's critical name constraints: `localhost`, `.local`, the
//! `--host` name, 127.0.0.0/8 and ::1. It can impersonate nothing else, whoever trusts it.
//!
//! **The truth is one file**, `ca-key.pem` (0600): key and certificate together, so that a crash can not leave one
//! without the other. `ca.pem`, `tombolo-ca.cer` and `tombolo-ca.mobileconfig` are copies of the certificate for curl,
//! for people and for phones. A server's certificate and its key share a file for the same reason.
//!
//! **The judge is the verifier that TLS clients use** (rustls with webpki), not a list of what was issued: a kept
//! certificate is good if the verifier takes it for every name, today and in 30 days. A changed name, a renewed root,
//! an old certificate and a damaged file all look the same, and all end in a fresh certificate.

mod mobileconfig;
mod trust;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};

pub use self::trust::Instructions;
use crate::data_folder::DataFolder;

/// A certificate authority for development, name-constrained to this machine.
pub struct DevelopmentCa {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    origin: Origin,
}

/// Whether devices that trusted the CA before still do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It was in the data folder.
    Kept,
    /// The data folder had none.
    Made,
    /// The one in the data folder could not be used any more; devices must trust the new one.
    Remade {
        /// Why not.
        because: String,
    },
}

/// A server's certificate with its key, as rustls takes them.
#[derive(Debug)]
pub struct ServerCertificate {
    /// The certificate. The root that signed it is what the client has.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl DevelopmentCa {
    /// Takes the CA of the data folder, or makes it if there is none that permits `host` and outlives a server
    /// certificate; then writes the copies for curl, people and phones.
    ///
    /// # Errors
    ///
    /// When the data folder can not be read or written, or the clock stands before the CA's first day.
    pub fn open(
        folder: &DataFolder,
        host: Option<&DnsName<'static>>,
        now: SystemTime,
    ) -> Result<Self> {
        let ca = match Self::find(folder, host, now)? {
            Ok(kept) => kept,
            Err(origin) => Self::make(folder, host, origin, now)?,
        };
        folder.write(
            CERTIFICATE_PEM,
            pem("CERTIFICATE", &ca.certificate).as_bytes(),
        )?;
        folder.write(CERTIFICATE_DER, &ca.certificate)?;
        folder.write(
            MOBILECONFIG,
            mobileconfig::profile(&ca.certificate, &ca.name()?).as_bytes(),
        )?;
        Ok(ca)
    }

    /// Gives the certificate of one of this machine's servers, kept in the data folder as `{stem}.pem`; issues
    /// another if the kept one lacks a name or ends within 30 days.
    ///
    /// # Errors
    ///
    /// When the data folder can not be read or written, or the CA does not permit one of the names.
    pub fn server_certificate(
        &self,
        folder: &DataFolder,
        stem: &str,
        names: &[ServerName<'static>],
        now: SystemTime,
    ) -> Result<ServerCertificate> {
        let file = format!("{stem}.pem");
        let kept = folder.read(&file)?;
        if let Some(kept) = kept.and_then(|pem| ServerCertificate::from_pem(&pem).ok())
            && self.accepts(&kept.chain[0], names, now).is_ok()
            && self
                .accepts(&kept.chain[0], names, now + RENEW_BEFORE_END)
                .is_ok()
        {
            return Ok(kept);
        }
        let (certificate, key) = self.issue(names, now)?;
        self.accepts(&certificate, names, now)
            .with_context(|| format!("the development CA does not permit a name of {file}"))?;
        let mut both = key.serialize_pem();
        both.push_str(&pem("CERTIFICATE", &certificate));
        folder.write_private(&file, both.as_bytes())?;
        ServerCertificate::from_pem(both.as_bytes())
    }

    /// The name under which phones list it, for example "Tombolo development CA 3fa9c1".
    ///
    /// # Errors
    ///
    /// When the certificate in the data folder has none.
    pub fn name(&self) -> Result<String> {
        let (_, certificate) = x509_parser::parse_x509_certificate(&self.certificate)?;
        let name = certificate.subject().iter_common_name().next();
        let name = name.context("the development CA has no name")?;
        Ok(name.as_str()?.to_owned())
    }

    /// How a person makes devices trust it.
    ///
    /// # Errors
    ///
    /// When the certificate in the data folder has no name.
    pub fn instructions(&self, folder: &DataFolder) -> Result<Instructions> {
        Ok(Instructions {
            name: self.name()?,
            certificate: folder.file(CERTIFICATE_DER),
            profile: folder.file(MOBILECONFIG),
        })
    }

    /// The root certificate that devices must trust.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whether devices that trusted the CA before still do.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    fn find(
        folder: &DataFolder,
        host: Option<&DnsName<'static>>,
        now: SystemTime,
    ) -> Result<Result<Self, Origin>> {
        let remade = |because: String| Ok(Err(Origin::Remade { because }));
        let Some(pem) = folder.read(KEY_PEM)? else {
            return Ok(Err(Origin::Made));
        };
        let Ok(ca) = Self::from_pem(&pem) else {
            return remade(format!("{KEY_PEM} is damaged"));
        };
        let Ok(valid) = Validity::of(&ca.certificate) else {
            return remade(format!("the certificate in {KEY_PEM} is damaged"));
        };
        if now < valid.from {
            bail!(
                "this machine's clock stands before the first day of the development CA: set the clock, or remove {}",
                folder.file(KEY_PEM).display()
            );
        }
        if valid.until < now + SERVER_LIFETIME {
            return remade("it ends too soon".into());
        }
        let permits = |name: &ServerName<'static>| {
            let names = std::slice::from_ref(name);
            let (probe, _) = ca.issue(names, now)?;
            ca.accepts(&probe, names, now)
        };
        if permits(&localhost()).is_err() {
            return remade(format!("key and certificate in {KEY_PEM} do not fit"));
        }
        if let Some(host) = host
            && permits(&ServerName::DnsName(host.clone())).is_err()
        {
            return remade(format!("it does not permit the name {}", host.as_ref()));
        }
        Ok(Ok(ca))
    }

    fn make(
        folder: &DataFolder,
        host: Option<&DnsName<'static>>,
        origin: Origin,
        now: SystemTime,
    ) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Tombolo");
        // The mark tells one machine's CA from another's in a phone's list.
        let mark: String = hex(&Sha256::digest(key.public_key_raw())[..3]);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Tombolo development CA {mark}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted(host),
            excluded_subtrees: Vec::new(),
        });
        params.not_before = (now - CLOCK_TOLERANCE).into();
        params.not_after = (now + CA_LIFETIME).into();
        let certificate = params
            .self_signed(&key)
            .context("could not make the development CA")?;

        let mut both = key.serialize_pem();
        both.push_str(&certificate.pem());
        folder.write_private(KEY_PEM, both.as_bytes())?;
        Ok(Self {
            origin,
            ..Self::from_pem(both.as_bytes())?
        })
    }

    fn from_pem(pem: &[u8]) -> Result<Self> {
        let certificate = CertificateDer::from_pem_slice(pem)?;
        let key = KeyPair::try_from(&PrivateKeyDer::from_pem_slice(pem)?)?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate,
            origin: Origin::Kept,
        })
    }

    fn issue(
        &self,
        names: &[ServerName<'static>],
        now: SystemTime,
    ) -> Result<(CertificateDer<'static>, KeyPair)> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(first) = names.first() {
            params
                .distinguished_name
                .push(DnType::CommonName, first.to_str().into_owned());
        }
        params.subject_alt_names = names.iter().map(alt_name).collect::<Result<_>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - CLOCK_TOLERANCE).into();
        params.not_after = (now - CLOCK_TOLERANCE + SERVER_LIFETIME).into();
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("could not issue a certificate")?;
        Ok((certificate.der().clone(), key))
    }

    /// Asks the verifier whether a client that trusts this CA takes the certificate for all names.
    fn accepts(
        &self,
        certificate: &CertificateDer<'_>,
        names: &[ServerName<'static>],
        at: SystemTime,
    ) -> Result<()> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        )
        .build()?;
        let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH)?);
        for name in names {
            verifier.verify_server_cert(certificate, &[], name, &[], at)?;
        }
        Ok(())
    }
}

impl ServerCertificate {
    fn from_pem(pem: &[u8]) -> Result<Self> {
        Ok(Self {
            chain: vec![CertificateDer::from_pem_slice(pem)?],
            key: PrivateKeyDer::from_pem_slice(pem)?,
        })
    }
}

struct Validity {
    from: SystemTime,
    until: SystemTime,
}

impl Validity {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate)?;
        let validity = certificate.validity();
        Ok(Self {
            from: validity.not_before.to_datetime().into(),
            until: validity.not_after.to_datetime().into(),
        })
    }
}

/// The names and addresses under which this machine reaches itself.
#[must_use]
pub fn loopback_names() -> Vec<ServerName<'static>> {
    vec![
        localhost(),
        ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into()),
        ServerName::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST).into()),
    ]
}

fn localhost() -> ServerName<'static> {
    ServerName::DnsName(DnsName::try_from("localhost").expect("it is a DNS name"))
}

/// RFC 5280, 4.2.1.10: a DNS subtree is the name and all names below it, written without a leading dot.
fn permitted(host: Option<&DnsName<'static>>) -> Vec<GeneralSubtree> {
    let mut subtrees = vec![
        GeneralSubtree::DnsName("localhost".into()),
        GeneralSubtree::DnsName("local".into()),
        GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
        GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(
            Ipv6Addr::LOCALHOST.octets(),
            128,
        )),
    ];
    subtrees.extend(host.map(|host| GeneralSubtree::DnsName(host.as_ref().into())));
    subtrees
}

fn alt_name(name: &ServerName<'static>) -> Result<SanType> {
    match name {
        ServerName::DnsName(name) => Ok(SanType::DnsName(name.as_ref().try_into()?)),
        ServerName::IpAddress(address) => Ok(SanType::IpAddress((*address).into())),
        other => bail!("{other:?} is neither a DNS name nor an address"),
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| char::from(byte)));
        pem.push('\n');
    }
    pem + "-----END " + label + "-----\n"
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The CA itself: private key and certificate.
pub const KEY_PEM: &str = "ca-key.pem";
/// The CA's certificate for `curl --cacert`.
pub const CERTIFICATE_PEM: &str = "ca.pem";
/// The CA's certificate as phones, browsers and simulators import it.
pub const CERTIFICATE_DER: &str = "tombolo-ca.cer";
/// The CA's certificate as a configuration profile for iOS and watchOS.
pub const MOBILECONFIG: &str = "tombolo-ca.mobileconfig";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The root is trusted by hand, so it should outlive the project that uses it.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Apple takes 398 days at most from a public CA ("About upcoming limits on trusted certificates", 102028).
const SERVER_LIFETIME: Duration = DAY.saturating_mul(397);
const RENEW_BEFORE_END: Duration = DAY.saturating_mul(30);
/// A phone's clock may be behind this machine's.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Output};

    use super::*;

    const YEAR: Duration = DAY.saturating_mul(365);

    fn name(text: &str) -> ServerName<'static> {
        ServerName::try_from(text.to_owned()).unwrap()
    }

    fn host(text: &str) -> DnsName<'static> {
        DnsName::try_from(text.to_owned()).unwrap()
    }

    fn folder() -> (tempfile::TempDir, DataFolder) {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&parent.path().join("data")).unwrap();
        (parent, folder)
    }

    #[test]
    fn a_client_that_trusts_the_ca_takes_its_certificates() {
        let (_parent, folder) = folder();
        let now = SystemTime::now();
        let ca = DevelopmentCa::open(&folder, None, now).unwrap();
        assert_eq!(*ca.origin(), Origin::Made);

        let mut names = loopback_names();
        names.push(name("tombolo-hub.localhost"));
        names.push(name("my-mac.local"));
        let server = ca
            .server_certificate(&folder, "gateway", &names, now)
            .unwrap();
        ca.accepts(&server.chain[0], &names, now).unwrap();
        assert!(
            ca.accepts(&server.chain[0], &[name("other.local")], now)
                .is_err()
        );
    }

    #[test]
    fn app_transport_security_accepts_the_form() {
        let (_parent, folder) = folder();
        let now = SystemTime::now();
        let ca = DevelopmentCa::open(&folder, None, now).unwrap();
        let server = ca
            .server_certificate(&folder, "gateway", &loopback_names(), now)
            .unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&server.chain[0]).unwrap();

        let validity = leaf.validity();
        let lifetime = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
        assert_eq!(lifetime, 397);
        assert!(validity.not_before.timestamp() < validity.not_after.timestamp());
        // ecdsa-with-SHA256 (RFC 5758) on P-256 (RFC 5480).
        assert_eq!(
            leaf.signature_algorithm.algorithm.to_id_string(),
            "1.2.840.10045.4.3.2"
        );
        let curve = leaf.public_key().algorithm.parameters.as_ref().unwrap();
        assert_eq!(
            curve.as_oid().unwrap().to_id_string(),
            "1.2.840.10045.3.1.7"
        );
        let usage = leaf.extended_key_usage().unwrap().unwrap();
        assert!(usage.value.server_auth);
        assert!(!leaf.is_ca());
    }

    #[test]
    fn a_stolen_ca_key_signs_for_nobody_else() {
        let (_parent, folder) = folder();
        let now = SystemTime::now();
        let ca = DevelopmentCa::open(&folder, Some(&host("watch.example.org")), now).unwrap();
        let accepts = |text: &str| {
            let names = [name(text)];
            let (certificate, _) = ca.issue(&names, now).unwrap();
            ca.accepts(&certificate, &names, now).is_ok()
        };
        for permitted in [
            "watch.example.org",
            "localhost",
            "a.localhost",
            "a.local",
            "127.9.9.9",
            "::1",
        ] {
            assert!(accepts(permitted), "{permitted}");
        }
        for foreign in [
            "example.org",
            "apple.com",
            "notlocalhost",
            "thelocal",
            "10.0.0.1",
            "128.0.0.1",
            "::2",
        ] {
            assert!(!accepts(foreign), "{foreign}");
        }
    }

    #[test]
    fn is_kept_until_the_host_is_outside_its_names() {
        let (_parent, folder) = folder();
        let now = SystemTime::now();
        let first = DevelopmentCa::open(&folder, None, now).unwrap();
        let again = DevelopmentCa::open(&folder, Some(&host("my-mac.local")), now).unwrap();
        assert_eq!(*again.origin(), Origin::Kept);
        assert_eq!(first.certificate(), again.certificate());

        let other = DevelopmentCa::open(&folder, Some(&host("mac.example.org")), now).unwrap();
        let Origin::Remade { because } = other.origin() else {
            panic!("{:?}", other.origin());
        };
        assert!(because.contains("mac.example.org"), "{because}");
        assert_ne!(first.certificate(), other.certificate());
        assert_ne!(first.name().unwrap(), other.name().unwrap());
        assert_eq!(
            fs::read(folder.file(CERTIFICATE_DER)).unwrap(),
            other.certificate().as_ref()
        );
    }

    #[test]
    fn is_remade_when_it_ends_or_is_damaged() {
        let (_parent, folder) = folder();
        let now = SystemTime::now();
        DevelopmentCa::open(&folder, None, now).unwrap();
        let late = DevelopmentCa::open(&folder, None, now + YEAR * 9).unwrap();
        assert!(matches!(late.origin(), Origin::Remade { because } if because.contains("ends")));

        // A clock that was set back is no reason to ask every device for new trust.
        let refused = DevelopmentCa::open(&folder, None, now)
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains("clock"), "{refused}");

        folder.write_private(KEY_PEM, b"nonsense").unwrap();
        let mended = DevelopmentCa::open(&folder, None, now).unwrap();
        assert!(
            matches!(mended.origin(), Origin::Remade { because } if because.contains("damaged"))
        );
    }

    #[test]
    fn a_server_certificate_is_renewed_when_it_must() {
        let (_parent, folder) = folder();
        let now = SystemTime::now();
        let ca = DevelopmentCa::open(&folder, None, now).unwrap();
        let at = |names: &[ServerName<'static>], days: u32| {
            let server = ca
                .server_certificate(&folder, "gateway", names, now + DAY * days)
                .unwrap();
            server.chain[0].clone()
        };
        let first = at(&loopback_names(), 0);
        assert_eq!(at(&loopback_names(), 366), first);
        let renewed = at(&loopback_names(), 368);
        assert_ne!(renewed, first);

        let mut names = loopback_names();
        names.push(name("my-mac.local"));
        assert_ne!(at(&names, 368), renewed);
        assert_eq!(at(&loopback_names(), 368), at(&names, 368));
    }

    #[test]
    fn a_name_outside_the_constraints_is_an_error() {
        let (_parent, folder) = folder();
        let now = SystemTime::now();
        let ca = DevelopmentCa::open(&folder, None, now).unwrap();
        let refused = ca.server_certificate(&folder, "hub", &[name("apple.com")], now);
        assert!(refused.unwrap_err().to_string().contains("does not permit"));
    }

    /// A second, foreign judge of names, constraints and purpose.
    #[test]
    fn openssl_agrees() {
        let (_parent, folder) = folder();
        let now = SystemTime::now();
        let ca = DevelopmentCa::open(&folder, None, now).unwrap();
        let mut names = loopback_names();
        names.push(name("tombolo-hub.localhost"));
        ca.server_certificate(&folder, "hub", &names, now).unwrap();

        let verify = |judge: &[&str], certificate: &Path| -> std::io::Result<Output> {
            Command::new("openssl")
                .args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"])
                .arg(folder.file(CERTIFICATE_PEM))
                .args(judge)
                .arg(certificate)
                .output()
        };
        let hub = folder.file("hub.pem");
        for judge in [
            ["-verify_hostname", "tombolo-hub.localhost"],
            ["-verify_hostname", "localhost"],
            ["-verify_ip", "127.0.0.1"],
            ["-verify_ip", "::1"],
        ] {
            match verify(&judge, &hub) {
                Ok(output) => assert!(output.status.success(), "{judge:?}: {output:?}"),
                Err(error) => return eprintln!("openssl is not asked: {error}"),
            }
        }
        let (foreign, _) = ca.issue(&[name("apple.com")], now).unwrap();
        folder
            .write("foreign.pem", pem("CERTIFICATE", &foreign).as_bytes())
            .unwrap();
        let output = verify(&[], &folder.file("foreign.pem")).unwrap();
        assert!(!output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("permitted subtree violation"));
    }
}
