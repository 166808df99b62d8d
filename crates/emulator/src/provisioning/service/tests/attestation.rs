//! Whose proof is good.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls_pki_types::CertificateDer;

use super::*;
use crate::{
    hub::{Authentication, Thumbprints},
    provisioning::service::{Certificate, Certificates},
    x509::Thumbprint,
};

/// The signatures of the protocol reference's vectors, over each spelling of `sr` that the SDKs use.
#[test]
fn every_spelling_of_a_token_is_taken() {
    let tokens = [
        "sr=0ne00000000%2Fregistrations%2Freg-1&sig=6rxWAaVP8qvdxtP86Ugq5kUuTx65yqdBxT3jWWRsAfc%3D&se=1767225600",
        "sr=0ne00000000%2Fregistrations%2Freg-1&sig=6rxWAaVP8qvdxtP86Ugq5kUuTx65yqdBxT3jWWRsAfc%3D&se=1767225600&skn=registration",
        "sr=0ne00000000/registrations/reg-1&sig=jqhEQ2KlZ7AbTMmNhxBNyfyPXYS7%2FZTzRql%2B0mEiXeg%3D&skn=registration&se=1767225600",
    ];
    for token in tokens {
        let mut rig = Rig::new();
        let token = format!("SharedAccessSignature {token}");
        let reply = rig
            .service
            .register(&reg("reg-1"), by_token(&token), b"", rig.now);
        assert_eq!(reply.map(|reply| reply.status), Ok(202), "{token}");
    }
}

#[test]
fn a_device_of_a_group_has_a_key_that_derives_from_the_groups() {
    let mut rig = Rig::new();
    let group = Group {
        terms: Terms::new(symmetric(key())),
    };
    rig.service
        .enroll_group(&"group-0".parse().unwrap(), group, rig.now)
        .unwrap();
    rig.service
        .remove::<Individual>(&reg("reg-1"), None)
        .unwrap();
    // The protocol reference's vector: by thxXBjNB6FBV+ugwOZsLC2OkELTF0TOHZ3+Q6g7OCS0=.
    let token = "SharedAccessSignature sr=0ne00000000%2Fregistrations%2Freg-1&sig=PA7BFwyMaR%2BPLJoHnB2EiJm6P8KMB6XJ2sWqECBMmqw%3D&se=1767225600";
    rig.service
        .register(&reg("reg-1"), by_token(token), b"", rig.now)
        .unwrap();
    let assignment = rig.assignment().unwrap();
    let Authentication::Sas(keys) = assignment.authentication else {
        panic!("a key is wanted")
    };
    assert_eq!(
        keys.primary.to_base64(),
        "thxXBjNB6FBV+ugwOZsLC2OkELTF0TOHZ3+Q6g7OCS0="
    );
    assert_eq!(assignment.device.as_str(), "reg-1");
}

#[test]
fn all_that_is_wrong_with_a_token_gets_one_answer() {
    let sign = |key: Key, resource: &str, policy, expiry: i64| {
        key.sign(resource, policy, Timestamp::from_unix_seconds(expiry))
    };
    let ours = "0ne00000000/registrations/reg-1";
    let tokens = [
        ("wrong key", sign(group_key(), ours, None, EXPIRY)),
        (
            "not derived",
            sign(group_key(), "0ne00000000/registrations/reg-9", None, EXPIRY),
        ),
        ("other policy", sign(key(), ours, Some("device"), EXPIRY)),
        (
            "other scope",
            sign(key(), "0ne00000001/registrations/reg-1", None, EXPIRY),
        ),
        (
            "other registration",
            sign(key(), "0ne00000000/registrations/reg-2", None, EXPIRY),
        ),
        ("expired", sign(key(), ours, None, EXPIRY - 901)),
        ("no token", "Bearer x".to_owned()),
        ("empty", String::new()),
    ];
    for (what, token) in tokens {
        let mut rig = Rig::new();
        let id = if what == "not derived" {
            "reg-9"
        } else {
            "reg-1"
        };
        let refused = rig
            .service
            .register(&reg(id), by_token(&token), b"", rig.now);
        let refused = refused.unwrap_err();
        assert_eq!(refused.code.number(), 401_002, "{what}");
        assert_eq!(refused.message, "Unauthorized", "{what}");
        assert!(rig.assignment().is_none(), "{what}");
    }
}

#[test]
fn a_token_is_taken_five_minutes_after_its_end() {
    for (seconds, is_taken) in [(899, true), (900, false)] {
        let mut rig = Rig::new();
        rig.advance(Duration::from_secs(seconds));
        assert_eq!(rig.register("reg-1", b"").is_ok(), is_taken, "{seconds}");
    }
}

/// "How to disenroll or revoke device": an individual enrollment decides over a group.
#[test]
fn an_individual_enrollment_decides_over_a_group() {
    let mut rig = Rig::new();
    let derived = group_key().derive("reg-1");
    let token = derived.sign(
        "0ne00000000/registrations/reg-1",
        None,
        Timestamp::from_unix_seconds(EXPIRY),
    );
    let refused = rig
        .service
        .register(&reg("reg-1"), by_token(&token), b"", rig.now);
    assert_eq!(refused.unwrap_err().code.number(), 401_002);
    rig.service
        .remove::<Individual>(&reg("reg-1"), None)
        .unwrap();
    let reply = rig
        .service
        .register(&reg("reg-1"), by_token(&token), b"", rig.now);
    assert_eq!(reply.unwrap().status, 202);
}

#[test]
fn a_certificate_of_an_individual_enrollment_is_taken_and_no_other() {
    let (first, second, other) = (leaf("x-1", None), leaf("x-1", None), leaf("x-1", None));
    let mut rig = Rig::new();
    rig.enroll("x-1", |individual| {
        individual.terms.attestation = Attestation::X509(Certificates {
            primary: Certificate::from_der(&first).unwrap(),
            secondary: Some(Certificate::from_der(&second).unwrap()),
        });
    });
    for (certificate, is_taken) in [(&first, true), (&second, true), (&other, false)] {
        let answer = by_certificates(&mut rig, "x-1", std::slice::from_ref(certificate));
        assert_eq!(answer.is_ok(), is_taken);
        if let Err(error) = answer {
            assert_eq!(error.code.number(), 401_002);
            assert_eq!(error.message, "Invalid certificate.");
        }
    }
    let both = [&first, &second].map(|certificate| Some(Thumbprint::sha256_of(certificate)));
    assert_eq!(thumbprints(&mut rig), both);
}

#[test]
fn a_certificate_is_for_its_common_name_and_its_time() {
    let certificate = leaf("x-1", None);
    let attestation = Attestation::X509(Certificates {
        primary: Certificate::from_der(&certificate).unwrap(),
        secondary: None,
    });
    let mut rig = Rig::new();
    for id in ["x-1", "x-2"] {
        rig.enroll(id, |individual| {
            individual.terms.attestation = attestation.clone();
        });
    }
    let chain = [certificate];
    assert!(by_certificates(&mut rig, "x-2", &chain).is_err());
    assert!(by_certificates(&mut rig, "X-1", &chain).is_ok());
    rig.now.utc = Timestamp::from_unix_seconds(4_000_000_000);
    assert!(by_certificates(&mut rig, "x-1", &chain).is_err());
}

#[test]
fn a_group_takes_what_its_certificates_have_signed() {
    let (root, root_key) = authority("root", None);
    let (middle, middle_key) = authority("middle", Some((&root, &root_key)));
    let (stranger, stranger_key) = authority("root", None);
    let by_middle = leaf("x-1", Some((&middle, &middle_key)));
    let by_stranger = leaf("x-1", Some((&stranger, &stranger_key)));
    let direct = leaf("x-1", Some((&root, &root_key)));
    let middle_der = middle.der().clone();
    for (signer, chain, is_taken) in [
        (root.der(), vec![direct], true),
        (
            root.der(),
            vec![by_middle.clone(), middle_der.clone()],
            true,
        ),
        (root.der(), vec![by_middle.clone()], false),
        (&middle_der, vec![by_middle.clone()], true),
        (root.der(), vec![by_stranger], false),
        (root.der(), vec![leaf("x-1", None)], false),
    ] {
        let mut rig = Rig::new();
        let group = Group {
            terms: Terms::new(Attestation::X509(Certificates {
                primary: Certificate::from_der(signer).unwrap(),
                secondary: None,
            })),
        };
        rig.service
            .enroll_group(&"x509".parse().unwrap(), group, rig.now)
            .unwrap();
        let answer = by_certificates(&mut rig, "x-1", &chain);
        assert_eq!(answer.is_ok(), is_taken, "{answer:?}");
        if is_taken {
            let own = Some(Thumbprint::sha256_of(&chain[0]));
            assert_eq!(thumbprints(&mut rig), [own, None]);
        }
    }
}

#[test]
fn an_authority_is_referred_to_by_its_name() {
    let (root, root_key) = authority("root", None);
    let root_certificate = Certificate::from_der(root.der()).unwrap();
    let chain = [leaf("x-1", Some((&root, &root_key)))];
    let mut rig = Rig::with(|config| {
        config
            .authorities
            .insert("ours".to_owned(), root_certificate);
    });
    for (name, is_taken) in [("theirs", false), ("ours", true)] {
        let group = Group {
            terms: Terms::new(Attestation::CaReferences {
                primary: name.to_owned(),
                secondary: None,
            }),
        };
        rig.service
            .enroll_group(&"x509".parse().unwrap(), group, rig.now)
            .unwrap();
        assert_eq!(by_certificates(&mut rig, "x-1", &chain).is_ok(), is_taken);
    }
}

fn by_certificates(
    rig: &mut Rig,
    id: &str,
    certificates: &[CertificateDer<'static>],
) -> Result<Reply, Error> {
    let peer = Peer::with_certificates(certificates);
    let presented = Presented {
        token: None,
        peer: &peer,
    };
    rig.service.register(&reg(id), presented, b"", rig.now)
}

/// What the hub gets to know of the device.
fn thumbprints(rig: &mut Rig) -> [Option<Thumbprint>; 2] {
    match rig.assignment().unwrap().authentication {
        Authentication::SelfSigned(Thumbprints { primary, secondary }) => [primary, secondary],
        Authentication::Sas(_) | Authentication::CertificateAuthority => {
            panic!("thumbprints are wanted")
        }
    }
}

type Signer<'a> = (&'a rcgen::Certificate, &'a KeyPair);

fn leaf(name: &str, signer: Option<Signer<'_>>) -> CertificateDer<'static> {
    let (certificate, _) = make(name, IsCa::NoCa, signer);
    certificate.der().clone()
}

fn authority(name: &str, signer: Option<Signer<'_>>) -> (rcgen::Certificate, KeyPair) {
    make(name, IsCa::Ca(BasicConstraints::Unconstrained), signer)
}

fn make(name: &str, is_ca: IsCa, signer: Option<Signer<'_>>) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = is_ca;
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    let certificate = match signer {
        None => params.self_signed(&key).unwrap(),
        Some((by, by_key)) => {
            let issuer = Issuer::from_ca_cert_der(by.der(), by_key).unwrap();
            params.signed_by(&key, &issuer).unwrap()
        }
    };
    (certificate, key)
}
