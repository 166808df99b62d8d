//! The head of a request to the device API.

use front::ServedName;
use http::{HeaderName, HeaderValue, Method, Request, Uri, request::Parts};
use iothub::Identity;
use percent_encoding::percent_decode_str;

/// Method and path on the first line, a header on each line after it. A head that is taken names the credential's own
/// device: the segment behind `devices` is its id, decoded once, and no module stands behind it.
pub fn request_head(bytes: &[u8]) {
    let Some(parts) = parse(bytes) else {
        return;
    };
    let identity = Identity::device(
        "hub.example".parse().expect("a host name"),
        DEVICE.parse().expect("an id"),
    );
    let names: [ServedName; 2] =
        ["gateway.example", "::1"].map(|name| name.parse().expect("a host name or an address"));
    if front::takes_head(&parts, &names, &identity) {
        let path = parts.uri.path();
        let mut segments = path.split('/').skip(1);
        let mut segment = || segments.next().unwrap_or_default();
        assert!(segment().eq_ignore_ascii_case("devices"), "{path}");
        let device: Vec<u8> = percent_decode_str(segment()).collect();
        assert_eq!(device, DEVICE.as_bytes(), "{path}");
        assert!(!segment().eq_ignore_ascii_case("modules"), "{path}");
    }
}

fn parse(bytes: &[u8]) -> Option<Parts> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut line = lines.next()?.splitn(2, |byte| *byte == b' ');
    let method = Method::from_bytes(line.next()?).ok()?;
    let uri = Uri::try_from(line.next()?).ok()?;
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri) = (method, uri);
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        parts.headers.append(name, value);
    }
    Some(parts)
}

const DEVICE: &str = "dev:1";
