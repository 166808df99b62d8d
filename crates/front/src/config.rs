//! What the front can be told, with a default for all of it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The listeners, their names and their limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses of the device API (HTTPS). Default: `["127.0.0.1:8443"]`. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// PEM file with the certificate and the intermediates behind it. Default: `tombolo.crt`.
    pub certificate_file: PathBuf,
    /// PEM file with the certificate's private key. Default: `tombolo.key`.
    pub key_file: PathBuf,
    /// Host names and addresses by which devices may call this gateway; a request for another one is answered 421.
    /// Default: `["localhost", "127.0.0.1", "::1"]`.
    pub names: Vec<ServedName>,
    /// Address of the admin API (plain HTTP); loopback only. Default: `127.0.0.1:8444`.
    pub admin_listen: SocketAddr,
    /// How much a client may ask for.
    pub limits: Limits,
    /// How long a client waits, and is waited for.
    pub waits: Waits,
}

/// How much a client may ask for. A bound that is too small refuses honest clients; one that is too large lets few
/// clients take the memory of all.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of all listeners; further ones are closed at once. Default: 20000. Each takes a file descriptor.
    pub connections: usize,
    /// Requests in flight of all devices, waiting ones included; the next is answered 503 `overloaded`.
    /// Default: 40000.
    pub requests: usize,
    /// Requests in flight of one device or module, waiting ones included; the next is answered 429 `throttled`.
    /// Default: 16.
    pub requests_per_device: u32,
    /// Streams of one HTTP/2 connection. Default: 128.
    pub streams: u32,
    /// Bytes of a request line and its headers; more is answered 431. Default: 16384.
    pub header_bytes: usize,
    /// Headers of a request; more is answered 431. Default: 64.
    pub headers: usize,
    /// Bytes of a JSON body; more is answered 413. A telemetry body has IoT Hub's own limit of 262144, a batch with a
    /// result per message 1048576. Default: 262144.
    pub json_bytes: usize,
    /// Bytes of all bodies that are being read; a body that brings more is answered 503 `overloaded`. Default: 268435456, a
    /// thousand of the largest messages.
    pub body_bytes_in_all: usize,
    /// Credentials that may fail in a minute for one device, and from one address; a further one is answered 429
    /// `throttled` instead of 401. A good credential is taken whatever has failed. Default: 20. More lets guessers learn
    /// more, fewer lets a gateway behind a proxy tell fewer devices what is wrong with their credentials.
    pub failed_credentials: u32,
    /// Tokens bought with `POST .../token` that one device or module may have at once; the next is answered 429
    /// `throttled`. Default: 64.
    pub bought_tokens: usize,
}

/// How long a client waits, and is waited for: `"10s"`, `"250ms"`, `"2m"`; a day at most.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Waits {
    /// For a TLS handshake; then the connection is closed. Default: 10s.
    #[serde(with = "at_most_a_day")]
    pub handshake: Duration,
    /// For the rest of a request's headers after the first byte (HTTP/1.1); then the connection is closed. Default: 10s.
    #[serde(with = "at_most_a_day")]
    pub header: Duration,
    /// How long a body may come slower than [`Limits`] ask: 1 KiB/s. Then it is answered 408. Default: 10s.
    #[serde(with = "at_most_a_day")]
    pub body_grace: Duration,
    /// For a whole body; then it is answered 408. Default: 2m.
    #[serde(with = "at_most_a_day")]
    pub body: Duration,
    /// How long a connection without a request is kept (HTTP/1.1). Default: 2m. Clients take an early close for an error.
    #[serde(with = "at_most_a_day")]
    pub idle_http1: Duration,
    /// The same for HTTP/2. Default: 5m.
    #[serde(with = "at_most_a_day")]
    pub idle_http2: Duration,
    /// How long a request waits for the hub if it does not say (`Prefer: wait`). Default: 5s.
    #[serde(with = "at_most_a_day")]
    pub hub: Duration,
    /// How long a poll waits that prefers to wait and does not say how long. Default: 25s.
    #[serde(with = "at_most_a_day")]
    pub poll: Duration,
    /// How long a request may ask to wait; a longer `Prefer: wait` is cut to this. Default: 50s. Clients give up after
    /// 60 s of silence.
    #[serde(with = "at_most_a_day")]
    pub most: Duration,
    /// How long `GET .../devicebound` locks a message if the request does not say. Default: 1m, as IoT Hub does.
    #[serde(with = "at_most_a_day")]
    pub lock: Duration,
}

/// A host name, or an IP address, by which this gateway may be called.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ServedName {
    /// A host name in lower case.
    Host(Box<str>),
    /// An address.
    Ip(IpAddr),
}

/// The text is neither a host name nor an IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is a host name (\"gateway.example\") or an IP address, without scheme, port or path"
)]
pub struct InvalidServedName;

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8443))],
            certificate_file: "tombolo.crt".into(),
            key_file: "tombolo.key".into(),
            names: vec![
                ServedName::Host("localhost".into()),
                ServedName::Ip(Ipv4Addr::LOCALHOST.into()),
                ServedName::Ip(Ipv6Addr::LOCALHOST.into()),
            ],
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8444)),
            limits: Limits::default(),
            waits: Waits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            requests: 40_000,
            requests_per_device: 16,
            streams: 128,
            header_bytes: 16 * 1024,
            headers: 64,
            json_bytes: api::limits::BODY_BYTES,
            body_bytes_in_all: 256 * 1024 * 1024,
            failed_credentials: 20,
            bought_tokens: 64,
        }
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body_grace: Duration::from_secs(10),
            body: Duration::from_secs(120),
            idle_http1: Duration::from_secs(120),
            idle_http2: Duration::from_secs(300),
            hub: api::limits::WRITE_WAIT,
            poll: api::limits::POLL_WAIT,
            most: api::limits::POLL_WAIT_MOST,
            lock: Duration::from_secs(60),
        }
    }
}

impl ServedName {
    /// Whether the host part of a `Host` header or `:authority`, without its port, is this name.
    #[must_use]
    pub fn is(&self, host: &str) -> bool {
        match self {
            // One trailing dot makes a host name absolute; it is the same name.
            Self::Host(name) => host
                .strip_suffix('.')
                .unwrap_or(host)
                .eq_ignore_ascii_case(name),
            Self::Ip(address) => parse_ip(host) == Some(*address),
        }
    }
}

impl FromStr for ServedName {
    type Err = InvalidServedName;

    fn from_str(text: &str) -> Result<Self, InvalidServedName> {
        if let Some(address) = parse_ip(text) {
            return Ok(Self::Ip(address));
        }
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if text.len() <= 253 && text.split('.').all(is_label) {
            Ok(Self::Host(text.to_ascii_lowercase().into()))
        } else {
            Err(InvalidServedName)
        }
    }
}

/// An address as URLs have it: IPv6 in brackets, or without.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse().ok()
}

impl fmt::Display for ServedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

impl TryFrom<String> for ServedName {
    type Error = InvalidServedName;

    fn try_from(text: String) -> Result<Self, InvalidServedName> {
        text.parse()
    }
}

impl From<ServedName> for String {
    fn from(name: ServedName) -> Self {
        name.to_string()
    }
}

/// Times in the words of `humantime`, within a bound.
mod at_most_a_day {
    use std::time::Duration;

    use serde::{Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        humantime_serde::serialize(duration, to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let duration: Duration = humantime_serde::deserialize(from)?;
        if duration <= LONGEST {
            Ok(duration)
        } else {
            Err(D::Error::custom("a time of at most one day, as in \"10s\""))
        }
    }

    /// Longer than any of these waits makes sense, and short enough for any clock arithmetic.
    const LONGEST: Duration = Duration::from_secs(86_400);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_recognized_in_every_spelling() {
        let host: ServedName = "Gateway.Example".parse().unwrap();
        for spelling in ["gateway.example", "GATEWAY.example", "gateway.example."] {
            assert!(host.is(spelling), "{spelling}");
        }
        for other in [
            "",
            "example",
            "gateway.example.org",
            "gateway.example..",
            "x.gateway.example",
        ] {
            assert!(!host.is(other), "{other}");
        }
        let address: ServedName = "::1".parse().unwrap();
        assert!(address.is("[::1]") && address.is("[0:0:0:0:0:0:0:1]") && !address.is("127.0.0.1"));
    }

    #[test]
    fn a_name_has_no_scheme_port_or_path() {
        for bad in ["", "https://a", "a:443", "a/b", "a..b", "a b", "a@b"] {
            assert_eq!(bad.parse::<ServedName>(), Err(InvalidServedName), "{bad}");
        }
    }

    #[test]
    fn times_have_units_and_a_bound() {
        let waits = |text: &str| serde_json::from_str::<Waits>(text);
        let some = waits(r#"{"handshake": "500ms", "hub": "7s", "idle_http2": "1day"}"#).unwrap();
        assert_eq!(some.handshake, Duration::from_millis(500));
        assert_eq!(some.hub, Duration::from_secs(7));
        assert_eq!(some.idle_http2, Duration::from_secs(86_400));
        for bad in [
            r#"{"hub": "-1s"}"#,
            r#"{"hub": "1day 1ms"}"#,
            r#"{"hub": "5"}"#,
            r#"{"hub": 5}"#,
            r#"{"hub_s": "5s"}"#,
        ] {
            assert!(waits(bad).is_err(), "{bad}");
        }
        let shown = serde_json::to_string(&Waits::default()).unwrap();
        assert!(shown.contains(r#""most":"50s""#), "{shown}");
    }
}
