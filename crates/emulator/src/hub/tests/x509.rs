use iothub::{ErrorCode, ModuleId};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::*;
use crate::x509::{AuthorityError, Thumbprint};

type Authority = CertifiedIssuer<'static, KeyPair>;
type Der = CertificateDer<'static>;

#[test]
fn either_thumbprint_opens_in_either_length_and_case() {
    let (one, other, third) = (self_signed("a"), self_signed("b"), self_signed("c"));
    let sha1 = |der: &Der| hex(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, der);
    let sha256 = |der: &Der| hex(&aws_lc_rs::digest::SHA256, der);
    for print in [sha1, sha256] {
        for case in [str::to_ascii_lowercase, str::to_ascii_uppercase] {
            let prints = [&one, &other].map(|der| case(&print(der)));
            let mut rig = with(thumbprints(Some(&prints[0]), Some(&prints[1])));
            assert!(is_let_in(&mut rig, "dev1", &[&one]));
            assert!(is_let_in(&mut rig, "dev1", &[&other]));
            assert_denied(&mut rig, "dev1", &[&third], "another thumbprint");
            // It is the peer's own certificate that counts.
            assert_denied(&mut rig, "dev1", &[&third, &one], "another thumbprint");
            assert_denied(&mut rig, "dev1", &[], "no certificate was shown");
        }
    }
    let mut rig = with(thumbprints(None, Some(&sha256(&one))));
    assert!(is_let_in(&mut rig, "dev1", &[&one]));
}

#[test]
fn a_thumbprint_has_40_or_64_hexadecimal_digits() {
    for (digits, is_one) in [
        (39, false),
        (40, true),
        (41, false),
        (63, false),
        (64, true),
        (65, false),
    ] {
        let text = "aF".repeat(40)[..digits].to_owned();
        let parsed = text.parse::<Thumbprint>();
        assert_eq!(parsed.is_ok(), is_one, "{digits}");
        if let Ok(thumbprint) = parsed {
            assert_eq!(thumbprint.as_str(), text, "the case stays");
        }
    }
    for text in [
        "",
        &"g".repeat(40),
        &"aa:".repeat(14)[..40],
        &"é".repeat(20),
    ] {
        assert!(text.parse::<Thumbprint>().is_err(), "{text}");
    }
}

#[test]
fn a_certificate_counts_within_its_validity_by_the_hubs_clock() {
    let begin = Rig::new().now.utc.saturating_add(Duration::from_secs(1000));
    let end = begin.saturating_add(Duration::from_secs(100));
    let authority = authority("root", None);
    let mut params = params("dev1");
    (params.not_before, params.not_after) = (date(begin), date(end));
    let leaf = sign(&params, &authority);
    let print = hex(&aws_lc_rs::digest::SHA256, &leaf);
    for authentication in [
        thumbprints(Some(&print), None),
        Authentication::CertificateAuthority,
    ] {
        let mut rig = with(authentication);
        trust(&mut rig, &authority);
        for (seconds, is_valid) in [(999, false), (1000, true), (1100, true), (1101, false)] {
            rig.now.utc = Rig::new()
                .now
                .utc
                .saturating_add(Duration::from_secs(seconds));
            assert_eq!(is_let_in(&mut rig, "dev1", &[&leaf]), is_valid, "{seconds}");
        }
        assert_denied(&mut rig, "dev1", &[&leaf], "not valid at this time");
    }
}

#[test]
fn an_authority_vouches_for_the_common_name() {
    let (root, stranger) = (authority("root", None), authority("root", None));
    let mut rig = with(Authentication::CertificateAuthority);
    trust(&mut rig, &root);
    let leaf = sign(&params("dev1"), &root);
    assert!(is_let_in(&mut rig, "dev1", &[&leaf]));
    for name in ["dev2", "Dev1", "dev1/mod1", ""] {
        let leaf = sign(&params(name), &root);
        assert_denied(&mut rig, "dev1", &[&leaf], "another common name");
    }
    let foreign = sign(&params("dev1"), &stranger);
    assert_denied(&mut rig, "dev1", &[&foreign], "no trusted authority");
    let with_its_own = [&foreign, &stranger.der().clone()];
    assert_denied(&mut rig, "dev1", &with_its_own, "no trusted authority");
    assert_denied(
        &mut rig,
        "dev1",
        &[&self_signed("dev1")],
        "no trusted authority",
    );
    assert_denied(&mut rig, "dev1", &[], "no certificate was shown");
    let garbage = Der::from(vec![0x30, 3, 1, 1, 1]);
    assert_denied(&mut rig, "dev1", &[&garbage], "cannot be read");
}

#[test]
fn a_certificate_for_servers_does_not_open() {
    let root = authority("root", None);
    let mut rig = with(Authentication::CertificateAuthority);
    trust(&mut rig, &root);
    let mut for_servers = params("dev1");
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = sign(&for_servers, &root);
    assert_denied(&mut rig, "dev1", &[&leaf], "may not be used so");
    for_servers
        .extended_key_usages
        .push(ExtendedKeyUsagePurpose::ClientAuth);
    let leaf = sign(&for_servers, &root);
    assert!(is_let_in(&mut rig, "dev1", &[&leaf]));
}

/// `openssl ca` and `openssl x509 -req` make such certificates when no extension is asked for. The signature is not looked
/// at, for the version comes first.
#[test]
fn a_certificate_of_version_1_is_told_apart() {
    let root = authority("root", None);
    let mut rig = with(Authentication::CertificateAuthority);
    trust(&mut rig, &root);
    let leaf = Der::from_pem_slice(VERSION_1).unwrap();
    assert_denied(&mut rig, "dev1", &[&leaf], "X.509 version 1");
}

const VERSION_1: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBCDCBrgIBATAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARyb290MCAXDTIwMDEw
MTAwMDAwMFoYDzIwOTkwMTAxMDAwMDAwWjAPMQ0wCwYDVQQDDARkZXYxMFkwEwYH
KoZIzj0CAQYIKoZIzj0DAQcDQgAE3a4E7M6tyemv9e8sGbVQ00ybCGkk0phxcwRl
cf2BC1sdsN46p5eWF8mNLh74UArh3a+ElygqLg3jlHloSXpOWzAKBggqhkjOPQQD
AgNJADBGAiEAjmxXR7EEIVFVNlgWRgnJJ89RHRfCNzuGZCLHV79uF5oCIQCEIPMJ
Eeck4jzUYPABeeV6lpFYKTxafKzwsXgCG46zOA==
-----END CERTIFICATE-----
";

#[test]
fn a_chain_may_have_authorities_between() {
    let root = authority("root", None);
    let between = authority("between", Some(&root));
    let leaf = sign(&params("dev1"), &between);
    let mut rig = with(Authentication::CertificateAuthority);
    trust(&mut rig, &root);
    assert_denied(&mut rig, "dev1", &[&leaf], "no trusted authority");
    assert!(is_let_in(
        &mut rig,
        "dev1",
        &[&leaf, &between.der().clone()]
    ));
    let root_too = [&leaf, &between.der().clone(), &root.der().clone()];
    assert!(is_let_in(&mut rig, "dev1", &root_too));
    // One that is no root can be trusted for itself.
    let mut rig = with(Authentication::CertificateAuthority);
    trust(&mut rig, &between);
    assert!(is_let_in(&mut rig, "dev1", &[&leaf]));
    // A device is no authority.
    let device = CertifiedIssuer::signed_by(params("dev2"), key_pair(), &root).unwrap();
    let leaf = sign(&params("dev1"), &device);
    let mut rig = with(Authentication::CertificateAuthority);
    trust(&mut rig, &root);
    assert_denied(
        &mut rig,
        "dev1",
        &[&leaf, &device.der().clone()],
        "no trusted authority",
    );
}

#[test]
fn an_authority_is_trusted_until_it_is_removed_or_expires() {
    let mut short = authority_params("root");
    let now = Rig::new().now.utc;
    short.not_after = date(now.saturating_add(Duration::from_secs(10)));
    let root = CertifiedIssuer::self_signed(short, key_pair()).unwrap();
    let leaf = sign(&params("dev1"), &root);
    let mut rig = with(Authentication::CertificateAuthority);
    let info = rig.hub.authorities_mut().add(root.der()).unwrap();
    assert_eq!(info.subject, "CN=root");
    for (seconds, is_valid) in [(9, true), (10, true), (11, false)] {
        rig.now.utc = now.saturating_add(Duration::from_secs(seconds));
        assert_eq!(is_let_in(&mut rig, "dev1", &[&leaf]), is_valid, "{seconds}");
    }
    rig.now.utc = now;
    let authorities = rig.hub.authorities_mut();
    assert!(authorities.remove(&info.thumbprint.to_ascii_uppercase()));
    assert!(!authorities.remove(&info.thumbprint));
    assert_denied(&mut rig, "dev1", &[&leaf], "no trusted authority");
}

#[test]
fn an_authority_must_be_one_and_there_are_so_many() {
    let mut rig = Rig::new();
    let authorities = rig.hub.authorities_mut();
    let add = |authorities: &mut Authorities, der: &Der| authorities.add(der).map(drop);
    assert_eq!(
        add(authorities, &self_signed("dev1")),
        Err(AuthorityError::NoAuthority)
    );
    assert_eq!(
        add(authorities, &Der::from(vec![0; 9])),
        Err(AuthorityError::Unreadable)
    );
    let all: Vec<_> = (0..=100).map(|n| authority(&n.to_string(), None)).collect();
    for authority in &all[..99] {
        assert_eq!(add(authorities, authority.der()), Ok(()));
    }
    let two = [all[99].der().clone(), all[100].der().clone()];
    assert_eq!(authorities.add_all(&two), Err(AuthorityError::Full));
    assert_eq!(authorities.iter().count(), 99, "all or none");
    assert_eq!(add(authorities, &two[0]), Ok(()));
    assert_eq!(add(authorities, &two[1]), Err(AuthorityError::Full));
    assert_eq!(add(authorities, &two[0]), Ok(()), "it is there");
    assert_eq!(authorities.iter().count(), 100);
}

#[test]
fn a_module_has_a_certificate_of_its_own() {
    let root = authority("root", None);
    let own = sign(&params("dev1/mod1"), &root);
    let of_device = sign(&params("dev1"), &root);
    let mut rig = with(Authentication::CertificateAuthority);
    trust(&mut rig, &root);
    let mod1: ModuleId = "mod1".parse().unwrap();
    let spec = ModuleSpec {
        authentication: Some(Authentication::CertificateAuthority),
        ..ModuleSpec::default()
    };
    rig.hub
        .create_module(&dev1(), &mod1, spec, rig.now)
        .unwrap();
    assert!(is_let_in(&mut rig, "dev1/mod1", &[&own]));
    assert_denied(&mut rig, "dev1/mod1", &[&of_device], "another common name");
    let print = hex(&aws_lc_rs::digest::SHA256, &of_device);
    let spec = ModuleSpec {
        authentication: Some(thumbprints(Some(&print), None)),
        ..ModuleSpec::default()
    };
    rig.hub
        .update_module(&dev1(), &mod1, spec, &IfMatch::Any)
        .unwrap();
    assert!(is_let_in(&mut rig, "dev1/mod1", &[&of_device]));
    assert_denied(&mut rig, "dev1/mod1", &[&own], "another thumbprint");
}

#[test]
fn a_password_is_judged_as_a_token_whatever_was_shown() {
    let root = authority("root", None);
    let leaf = sign(&params("dev1"), &root);
    // With keys: the certificate changes nothing.
    let mut rig = Rig::new();
    trust(&mut rig, &root);
    let token = Hello::dev1().password;
    assert_eq!(connack(&mut rig, "dev1", Some(&token), &[&leaf]).0, 0);
    for password in [None, Some("")] {
        let (code, why) = connack(&mut rig, "dev1", password, &[&leaf]);
        assert_eq!((code, why.contains("neither")), (5, true), "{why}");
    }
    // With a certificate: there are no keys that could sign, but a policy still may.
    let mut rig = with(Authentication::CertificateAuthority);
    trust(&mut rig, &root);
    let identity = whom("dev1");
    let policy = &rig
        .hub
        .policies()
        .iter()
        .find(|p| p.name == "device")
        .unwrap();
    let by_policy = policy
        .primary
        .sign(&sas::resource(&identity), Some("device"), expiry());
    assert_eq!(connack(&mut rig, "dev1", Some(""), &[&leaf]).0, 0);
    assert_eq!(connack(&mut rig, "dev1", Some(&by_policy), &[]).0, 0);
    for (password, expected) in [
        (token.as_str(), "signature is wrong"),
        ("x", "no shared access"),
    ] {
        let (code, why) = connack(&mut rig, "dev1", Some(password), &[&leaf]);
        assert_eq!((code, why.contains(expected)), (5, true), "{why}");
    }
}

#[test]
fn a_password_of_bytes_that_are_no_text_is_one_all_the_same() {
    let leaf = self_signed("dev1");
    let print = hex(&aws_lc_rs::digest::SHA256, &leaf);
    let mut rig = with(thumbprints(Some(&print), None));
    let packet = connect_packet("dev1", Some(b"\xff\xfe"));
    let id = rig.hub.accept(peer(&[&leaf]), rig.now);
    let got = rig.send(id, &packet);
    assert!(matches!(got[0], Got::Connack { code: 5, .. }), "{got:?}");
}

#[test]
fn a_disabled_device_has_no_use_for_its_certificate() {
    let leaf = self_signed("dev1");
    let print = hex(&aws_lc_rs::digest::SHA256, &leaf);
    let mut rig = with(thumbprints(Some(&print), None));
    let spec = DeviceSpec {
        status: DeviceStatus::Disabled,
        authentication: Some(thumbprints(Some(&print), None)),
        ..DeviceSpec::default()
    };
    rig.hub
        .update_device(&dev1(), spec, &IfMatch::Any, rig.now)
        .unwrap();
    assert_denied(&mut rig, "dev1", &[&leaf], "disabled");
}

#[test]
fn twins_and_telemetry_tell_of_the_certificate() {
    let leaf = self_signed("dev1");
    let print = hex(&aws_lc_rs::digest::SHA256, &leaf);
    let mut rig = with(thumbprints(Some(&print), None));
    let twin = rig.hub.twin(&whom("dev1")).unwrap();
    assert_eq!(twin["authenticationType"], "selfSigned");
    assert_eq!(twin["x509Thumbprint"]["primaryThumbprint"], print);
    assert_eq!(twin["x509Thumbprint"]["secondaryThumbprint"], Value::Null);
    let id = rig.hub.accept(peer(&[&leaf]), rig.now);
    rig.send(id, &connect_packet("dev1", None));
    rig.send(id, &publish(EVENTS, b"{}", None));
    let record = &rig.hub.telemetry(1, 1).records[0];
    assert_eq!(record.scope, AuthScope::DeviceCertificate);
    let mut rig = with(Authentication::CertificateAuthority);
    let twin = rig.hub.twin(&whom("dev1")).unwrap();
    assert_eq!(twin["authenticationType"], "certificateAuthority");
    let caller = rig.hub.authorize_caller(
        whom("dev1"),
        Proof::new(None, &Peer::ANONYMOUS),
        &[],
        rig.now,
    );
    assert_eq!(
        caller.unwrap_err().code,
        ErrorCode::IotHubUnauthorizedAccess
    );
}

#[test]
fn a_connection_by_certificate_outlives_every_token() {
    let leaf = self_signed("dev1");
    let print = hex(&aws_lc_rs::digest::SHA256, &leaf);
    let mut rig = with(thumbprints(Some(&print), None));
    let id = rig.hub.accept(peer(&[&leaf]), rig.now);
    rig.send(id, &connect_packet("dev1", None));
    for _ in 0..100 {
        rig.wait(Duration::from_secs(300));
        assert_eq!(rig.send(id, &PINGREQ), [Got::Pingresp]);
    }
}

/// A hub whose `dev1` shows who it is in this way.
fn with(authentication: Authentication) -> Rig {
    let mut rig = Rig::new();
    let spec = DeviceSpec {
        authentication: Some(authentication),
        ..DeviceSpec::default()
    };
    rig.hub
        .update_device(&dev1(), spec, &IfMatch::Any, rig.now)
        .unwrap();
    rig
}

fn thumbprints(primary: Option<&str>, secondary: Option<&str>) -> Authentication {
    let parse = |text: Option<&str>| text.map(|text| text.parse().unwrap());
    Authentication::SelfSigned(Thumbprints {
        primary: parse(primary),
        secondary: parse(secondary),
    })
}

fn trust(rig: &mut Rig, authority: &Authority) {
    rig.hub.authorities_mut().add(authority.der()).unwrap();
}

#[track_caller]
fn assert_denied(rig: &mut Rig, id: &str, shown: &[&Der], expected: &str) {
    let (code, why) = connack(rig, id, None, shown);
    assert_eq!(code, 5);
    assert!(why.contains(expected), "{why}");
    let peer = peer(shown);
    let denied = rig
        .hub
        .authorize_caller(whom(id), Proof::new(None, &peer), &[], rig.now);
    assert_eq!(
        denied.unwrap_err().code,
        ErrorCode::IotHubUnauthorizedAccess
    );
}

/// Over MQTT, and over HTTPS with the same outcome.
#[track_caller]
fn is_let_in(rig: &mut Rig, id: &str, shown: &[&Der]) -> bool {
    let peer = peer(shown);
    let caller = rig
        .hub
        .authorize_caller(whom(id), Proof::new(None, &peer), &[], rig.now);
    let is_connected = connack(rig, id, None, shown).0 == 0;
    assert_eq!(is_connected, caller.is_ok());
    is_connected
}

/// The code that answers a CONNECT, and why it is not 0.
fn connack(rig: &mut Rig, id: &str, password: Option<&str>, shown: &[&Der]) -> (u8, String) {
    let connection = rig.hub.accept(peer(shown), rig.now);
    let packet = connect_packet(id, password.map(str::as_bytes));
    match &rig.send(connection, &packet)[..] {
        [Got::Connack { code: 0, .. }, ..] => (0, String::new()),
        [
            Got::Connack { code: 5, .. },
            Got::Closed(CloseReason::Refused { why, .. }),
        ] => (5, why.clone()),
        other => panic!("{other:?}"),
    }
}

fn connect_packet(id: &str, password: Option<&[u8]>) -> Vec<u8> {
    let identity = whom(id);
    let mut builder = v3_1_1::Connect::builder()
        .client_id(identity.client_id())
        .unwrap()
        .clean_session(false)
        .keep_alive(240)
        .user_name(Username::new(identity, None).encode())
        .unwrap();
    if let Some(password) = password {
        builder = builder.password(password.to_vec()).unwrap();
    }
    builder.build().unwrap().to_continuous_buffer()
}

fn peer(shown: &[&Der]) -> Peer {
    let shown: Vec<Der> = shown.iter().map(|der| (*der).clone()).collect();
    Peer::with_certificates(&shown)
}

fn authority(name: &str, parent: Option<&Authority>) -> Authority {
    let params = authority_params(name);
    match parent {
        None => CertifiedIssuer::self_signed(params, key_pair()),
        Some(parent) => CertifiedIssuer::signed_by(params, key_pair(), parent),
    }
    .unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params
}

fn sign(params: &CertificateParams, authority: &Authority) -> Der {
    params.signed_by(&key_pair(), authority).unwrap().into()
}

fn self_signed(name: &str) -> Der {
    params(name).self_signed(&key_pair()).unwrap().into()
}

fn key_pair() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn date(at: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap()
}

fn hex(algorithm: &'static aws_lc_rs::digest::Algorithm, der: &Der) -> String {
    let digest = aws_lc_rs::digest::digest(algorithm, der);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
