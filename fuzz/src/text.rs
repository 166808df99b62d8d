//! Parsers of text: what stands in topics, in CONNECT and in headers.

use std::{fmt::Debug, str::FromStr, time::Duration};

use api::{IdempotencyKey, Prefer, etag};
use bytes::Bytes;
use front::ServedName;
use iothub::{
    AckRequest, CloudMessage, DeviceId, HubName, Identity, MethodName, ModuleId, PropertyBag,
    Telemetry, Timestamp,
    connect::Username,
    sas,
    topic::{Filter, ToDevice, ToHub},
};
use store::MethodRequestId;

/// Topics of both directions, and filters. What was read is written as a topic that reads the same and has no wildcard.
pub fn topics(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    if let Ok(topic) = ToHub::parse(text) {
        let written = topic.encode();
        assert!(!written.contains(['+', '#']), "{written}");
        assert_eq!(ToHub::parse(&written), Ok(topic));
    }
    if let Ok(topic) = ToDevice::parse(text) {
        let written = topic.encode();
        assert!(!written.contains(['+', '#']), "{written}");
        assert_eq!(ToDevice::parse(&written), Ok(topic));
    }
    for identity in [device(), module()] {
        if let Ok(filter) = Filter::parse(text, &identity) {
            let written = filter.encode(&identity);
            assert_eq!(Filter::parse(&written, &identity), Ok(filter));
        }
    }
}

/// Property bags, and the messages that are made of them. A bag is written as one plain topic level and reads the same.
pub fn property_bag(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let Ok(bag) = PropertyBag::parse(text) else {
        return;
    };
    let mut written = String::new();
    bag.encode_onto(&mut written);
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"/+#?:".contains(&b);
    assert!(written.bytes().all(is_plain), "{written}");
    assert_eq!(PropertyBag::parse(&written).as_ref(), Ok(&bag));

    let telemetry = Telemetry::from_bag(&bag, Bytes::new());
    assert_eq!(
        Telemetry::from_bag(&telemetry.to_bag(), Bytes::new()),
        telemetry
    );
    let message = CloudMessage::from_bag(&bag, Bytes::new());
    assert_eq!(
        CloudMessage::from_bag(&message.to_bag(), Bytes::new()),
        message
    );
    if let Some(moment) = message.expires_at() {
        comes_back(&moment);
    }
}

/// The username of a CONNECT: what was read is written so that it reads the same.
pub fn username(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    if let Ok(name) = Username::parse(text) {
        assert_eq!(Username::parse(&name.encode()), Ok(name));
    }
}

/// Shared access signatures. A token that is for a resource covers it; what it covers is at the token's own host.
pub fn sas_token(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    if let Ok(key) = sas::Key::from_base64(text) {
        let again = sas::Key::from_base64(&key.to_base64());
        assert!(again.is_ok_and(|again| again.to_base64() == key.to_base64()));
    }
    let Ok(token) = sas::Token::parse(text) else {
        return;
    };
    let key = sas::Key::from_bytes((0..32).collect()).expect("a key has 16 to 64 bytes");
    let _ = (
        token.is_signed_by(&key),
        token.expires_at(),
        token.policy(),
        format!("{token:?}"),
    );
    let resources = [device(), module()].map(|identity| sas::resource(&identity));
    for resource in &resources {
        assert!(token.covers(resource) || !token.is_for(resource));
        let elsewhere = resource.replacen(HUB, "elsewhere.example", 1);
        assert!(!(token.covers(resource) && token.covers(&elsewhere)));
    }
    assert!(!(token.is_for(&resources[0]) && token.is_for(&resources[1])));
}

/// Ids and names, from paths, topics and configuration. What was read is written as it was, but for the case of hosts.
pub fn names(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    is_kept::<DeviceId>(text);
    is_kept::<ModuleId>(text);
    is_kept::<MethodName>(text);
    is_kept::<MethodRequestId>(text);
    is_kept::<IdempotencyKey>(text);
    is_kept::<HubName>(&text.to_ascii_lowercase());
    if let Ok(name) = text.parse::<ServedName>() {
        assert!(name.is(text), "{name} is not {text}");
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        comes_back(&moment);
    }
}

/// Headers that have a grammar: `Prefer`, a list of entity tags, `iothub-ack`. Each line of the input is a value.
pub fn headers(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let values = || text.split('\n');
    if let Ok(prefer) = Prefer::parse(values()) {
        let most = Duration::from_secs(50);
        assert!(prefer.wait_or(Duration::from_secs(25), most) <= most);
    }
    for value in values() {
        let _ = AckRequest::parse(value);
        let _ = etag::is_listed(
            value,
            &etag::of_lock("0f8fad5b-d9cb-469f-a165-70867728950e"),
        );
        let is_tag = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric());
        if is_tag {
            let tag = etag::of_lock(value);
            assert!(etag::is_listed(&format!("\"x\", W/{tag}"), &tag));
        }
    }
}

fn is_kept<T: FromStr + ToString>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text);
    }
}

/// Whether a moment's text means the same moment, as far as RFC 3339 reaches.
fn comes_back(moment: &Timestamp) {
    let written = moment.to_string();
    let again: Timestamp = parse(&written);
    assert_eq!(again.to_string(), written);
}

fn parse<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|error| panic!("{text:?}: {error:?}"))
}

fn device() -> Identity {
    Identity::device(parse(HUB), parse("dev1"))
}

fn module() -> Identity {
    Identity::module(parse(HUB), parse("dev1"), parse("mod1"))
}

/// As in the golden vectors.
const HUB: &str = "test-hub.azure-devices.net";
