use proptest::{collection::vec, prelude::*};
use serde::Deserialize;
use tombolo_iothub::{
    Timestamp,
    sas::{self, Key, ParseTokenError, Token},
};

use crate::{arbitrary, golden};

/// The bytes 0 to 31.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const EXPIRY: i64 = 1_767_225_600;

fn key() -> Key {
    Key::from_base64(KEY).unwrap()
}

fn other_key() -> Key {
    Key::from_bytes((1..=32).collect()).unwrap()
}

fn token(fields: &str) -> Result<Token, ParseTokenError> {
    Token::parse(&format!("SharedAccessSignature {fields}"))
}

#[derive(Deserialize)]
struct Signature {
    case: String,
    derived_for: Option<String>,
    signed: String,
    signature: String,
}

#[test]
fn every_encoding_of_the_resource_is_verified_as_it_was_signed() {
    for vector in golden::json::<Vec<Signature>>("signatures.json") {
        let key = vector.derived_for.map_or_else(key, |id| key().derive(&id));
        let signature = vector.signature.replace('+', "%2B");
        let text = format!("sr={}&sig={signature}&se={EXPIRY}", vector.signed);
        let judged = token(&text).unwrap();
        assert!(judged.is_signed_by(&key), "{}", vector.case);
        assert!(!judged.is_signed_by(&other_key()), "{}", vector.case);

        let later = token(&text.replace("se=1767225600", "se=1767225601")).unwrap();
        assert!(!later.is_signed_by(&key), "{}: expiry moved", vector.case);
        let elsewhere = token(&text.replace("sr=", "sr=x")).unwrap();
        assert!(
            !elsewhere.is_signed_by(&key),
            "{}: resource moved",
            vector.case
        );
    }
}

#[derive(Deserialize)]
struct WholeToken {
    from: String,
    token: String,
    policy: Option<String>,
    covers: Vec<String>,
    covers_not: Vec<String>,
}

#[test]
fn tokens_are_read_as_every_sdk_writes_them() {
    for vector in golden::json::<Vec<WholeToken>>("tokens.json") {
        let token =
            Token::parse(&vector.token).unwrap_or_else(|error| panic!("{}: {error}", vector.from));
        assert!(token.is_signed_by(&key()), "{}", vector.from);
        assert_eq!(
            token.expires_at(),
            Timestamp::from_unix_seconds(EXPIRY),
            "{}",
            vector.from
        );
        assert_eq!(token.policy(), vector.policy.as_deref(), "{}", vector.from);
        for resource in &vector.covers {
            assert!(token.covers(resource), "{} covers {resource}", vector.from);
        }
        for resource in &vector.covers_not {
            assert!(
                !token.covers(resource),
                "{} does not cover {resource}",
                vector.from
            );
        }
    }
}

#[test]
fn a_token_is_written_as_the_python_sdk_writes_it() {
    let vectors = golden::json::<Vec<WholeToken>>("tokens.json");
    let expires_at = Timestamp::from_unix_seconds(EXPIRY);
    assert_eq!(
        key().sign("test-hub.azure-devices.net/devices/dev1", None, expires_at),
        vectors[0].token
    );
}

#[derive(Deserialize)]
struct DerivedKey {
    from: String,
    group_key: String,
    registration_id: String,
    derived_key: String,
}

#[test]
fn keys_are_derived_as_dps_derives_them() {
    for vector in golden::json::<Vec<DerivedKey>>("derived_keys.json") {
        let derived = Key::from_base64(&vector.group_key)
            .unwrap()
            .derive(&vector.registration_id);
        assert_eq!(derived.to_base64(), vector.derived_key, "{}", vector.from);
    }
}

#[test]
fn text_that_is_no_token_is_refused() {
    let sig = "3ijv8Q59aGwC0Upw5jXlQTNvh0fAHxUb%2FtyNfpnpTCQ%3D";
    let cases = [
        ("sig=x&se=1".to_owned(), ParseTokenError::Field("sr")),
        (format!("sr=&sig={sig}&se=1"), ParseTokenError::Field("sr")),
        (format!("sr=h&sig={sig}"), ParseTokenError::Field("se")),
        ("sr=h&se=1".to_owned(), ParseTokenError::Field("sig")),
        (
            format!("sr=h&sr=h&sig={sig}&se=1"),
            ParseTokenError::Field("sr"),
        ),
        (
            format!("sr=h&sig={sig}&se=1&se=2"),
            ParseTokenError::Field("se"),
        ),
        (
            format!("sr=h&sig={sig}&se=1&skn=&skn=device"),
            ParseTokenError::Field("skn"),
        ),
        ("sr=h&sig=AAAA&se=1".to_owned(), ParseTokenError::Signature),
        ("sr=h&sig=%&se=1".to_owned(), ParseTokenError::Signature),
        (format!("sr=h&sig={sig}&se="), ParseTokenError::Expiry),
        (format!("sr=h&sig={sig}&se=-1"), ParseTokenError::Expiry),
        (format!("sr=h&sig={sig}&se=+1"), ParseTokenError::Expiry),
        (format!("sr=h&sig={sig}&se=1e9"), ParseTokenError::Expiry),
        (
            format!("sr=h&sig={sig}&se=99999999999999999999"),
            ParseTokenError::Expiry,
        ),
    ];
    for (fields, error) in cases {
        assert_eq!(token(&fields).unwrap_err(), error, "{fields}");
    }
    for text in [
        "",
        "Bearer x",
        "sharedaccesssignature sr=h",
        "SharedAccessSignature",
    ] {
        assert_eq!(
            Token::parse(text).unwrap_err(),
            ParseTokenError::Scheme,
            "{text}"
        );
    }
}

#[test]
fn the_host_is_read_in_every_encoding() {
    for sr in [
        "Gateway.Example/devices/d",
        "gateway.example%2Fdevices%2Fd",
        "GATEWAY.EXAMPLE%2fdevices%2fd",
        "gateway.example%252Fdevices%252Fd%253A1",
        "gateway.example",
        "gateway.example:8443/devices/d",
        "gateway.example%3A8443%2Fdevices%2Fd",
    ] {
        assert_eq!(unsigned(sr).host(), "gateway.example", "{sr}");
    }
    for (sr, host) in [
        ("[::1]:8443/devices/d", "::1"),
        ("%5B%3A%3A1%5D%2Fdevices%2Fd", "::1"),
        ("::1/devices/d", "::1"),
        ("127.0.0.1:443/devices/d", "127.0.0.1"),
        ("a:/devices/d", "a:"),
        ("a:b/devices/d", "a:b"),
        (":1/devices/d", ""),
        ("/devices/d", ""),
    ] {
        assert_eq!(unsigned(sr).host(), host, "{sr}");
    }
}

#[test]
fn a_port_counts_for_a_hub_and_not_for_who_stands_in_its_place() {
    let resource = "gateway.example/devices/d";
    for (sr, covers, covers_at_any_port) in [
        ("gateway.example/devices/d", true, true),
        ("gateway.example:8443/devices/d", false, true),
        ("gateway.example%253A8443%252Fdevices%252Fd", false, true),
        ("gateway.example:8443", false, true),
        ("gateway.example:8443/devices/e", false, false),
        ("gateway.example:8443/devices/d/modules/m", false, false),
        ("gateway.example:/devices/d", false, false),
        ("other.example:8443/devices/d", false, false),
    ] {
        let token = unsigned(sr);
        assert_eq!(token.covers(resource), covers, "{sr}");
        assert_eq!(
            token.covers_at_any_port(resource),
            covers_at_any_port,
            "{sr}"
        );
    }
}

/// A token for a resource as it is written, which no key has signed.
fn unsigned(sr: &str) -> Token {
    let signature = "A".repeat(43) + "%3D";
    token(&format!("sr={sr}&sig={signature}&se=1")).unwrap()
}

#[test]
fn a_plus_in_the_resource_is_no_space() {
    let text = key().sign("hub/devices/a+b", None, Timestamp::from_unix_seconds(1));
    let raw = text.replace("%2B", "+");
    assert!(Token::parse(&raw).unwrap().covers("hub/devices/a+b"));
    assert!(!Token::parse(&raw).unwrap().covers("hub/devices/a b"));
}

#[test]
fn nothing_secret_is_shown() {
    let text = key().sign("hub/devices/dev1", None, Timestamp::from_unix_seconds(1));
    let shown = format!("{:?} {:?}", key(), Token::parse(&text).unwrap());
    assert_eq!(
        shown,
        "Key(..) Token { sr: \"hub%2Fdevices%2Fdev1\", expires_at: 1970-01-01T00:00:01Z, .. }"
    );
}

#[test]
fn a_key_has_16_to_64_bytes() {
    let with = |bytes: usize| Key::from_bytes(vec![7; bytes]).is_ok();
    assert_eq!(
        [15, 16, 17, 63, 64, 65].map(with),
        [false, true, true, true, true, false]
    );
    assert!(Key::from_base64("no base64").is_err());
}

proptest! {
    #[test]
    fn what_is_signed_is_verified(identity in arbitrary::identity(), bytes in vec(any::<u8>(), 16..=64), se in 0..=i64::MAX / 1000) {
        let key = Key::from_bytes(bytes).unwrap();
        let resource = sas::resource(&identity);
        let token = Token::parse(&key.sign(&resource, None, Timestamp::from_unix_seconds(se))).unwrap();
        prop_assert!(token.is_signed_by(&key));
        prop_assert!(!token.is_signed_by(&other_key()));
        prop_assert!(token.is_for(&resource));
        prop_assert_eq!(token.expires_at().unix_seconds(), se);
    }

    #[test]
    fn a_token_is_for_its_own_identity_alone(mine in arbitrary::identity(), other in arbitrary::identity()) {
        prop_assume!(mine != other);
        let text = key().sign(&sas::resource(&mine), None, Timestamp::from_unix_seconds(1));
        prop_assert!(!Token::parse(&text).unwrap().is_for(&sas::resource(&other)));
    }

    #[test]
    fn parsing_never_panics(text: String, fields in "(sr|sig|se|skn|[a-z])=[a-zA-Z0-9%+/=&]{0,50}") {
        let _ = Token::parse(&text);
        if let Ok(token) = token(&fields) {
            let _ = token.covers(&text);
            let _ = token.covers_at_any_port(&text);
            let _ = token.host();
        }
    }
}
