//! What the head of a request says: host, ids, preferences.

use std::{borrow::Cow, time::Duration};

use api::{InvalidIdempotencyKey, InvalidPrefer, NotBase64, Prefer};
use http::{HeaderMap, HeaderName, Uri, header, request::Parts};
use hyper::body::Incoming;
use iothub::{DeviceId, Identity, InvalidId, ModuleId};
use percent_encoding::percent_decode_str;

use super::key::KeyOfHead;
use crate::{
    auth::Grant,
    config::{Limits, ServedName, Waits},
    devices::Terms,
};

/// A request for one device, whose credential is good for it.
pub(crate) struct DeviceRequest {
    /// Whom the request is for, and what its credential allows.
    pub(crate) grant: Grant,
    /// What the path names below the device: a lock, a method request.
    pub(crate) item: String,
    pub(crate) headers: HeaderMap,
    pub(crate) uri: Uri,
    /// Its idempotency key, if it has one and the call takes one.
    pub(crate) key: Option<KeyOfHead>,
    pub(crate) body: Incoming,
}

/// What `If-None-Match` lists.
pub(crate) struct HeldTags<'a>(Vec<&'a str>);

/// A request that breaks a rule of the API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRequest {
    /// No host, or several.
    #[error("the request names no host, or several")]
    Host,
    /// A host that is not served.
    #[error("this gateway does not serve the host of the request")]
    Misdirected,
    /// An id outside the alphabet.
    #[error("the {what} id in the path: {error}")]
    Id {
        /// Whose id.
        what: &'static str,
        /// What is wrong with it.
        error: InvalidId,
    },
    /// A `%` without two hexadecimal digits, or bytes that are no text.
    #[error("a part of the path is not percent-encoded text")]
    Escape,
    /// Another device or module than the credential's.
    #[error("the credential is not for this device")]
    OtherDevice,
    /// A batch that IoT Hub would not take.
    #[error("message {number} of the batch: {problem}")]
    BatchItem {
        /// Which message, from 1.
        number: usize,
        /// What is wrong with it.
        problem: NotBase64,
    },
    /// A message of a batch with a result per item.
    #[error(transparent)]
    NotBase64(#[from] NotBase64),
    /// How long a token should live.
    #[error(
        "lifetime_s is a number of seconds between {least} and {most}",
        least = api::limits::TOKEN_LIFETIME_LEAST.as_secs(),
        most = api::limits::TOKEN_LIFETIME_MOST.as_secs()
    )]
    Lifetime,
    /// Too many headers, or too large ones.
    #[error(
        "the request has {headers} headers and {bytes} bytes of them, the most is {most_headers} and {most_bytes}"
    )]
    Headers {
        /// How many.
        headers: usize,
        /// How large, with method and path.
        bytes: usize,
        /// The most.
        most_headers: usize,
        /// The most.
        most_bytes: usize,
    },
    /// A header whose value is no text.
    #[error("the header {name} is not UTF-8 text")]
    HeaderText {
        /// Which.
        name: String,
    },
    /// A header in whose grammar there is nothing but ASCII.
    #[error("the header {0} has characters that are not ASCII")]
    NotAscii(HeaderName),
    /// `Prefer`.
    #[error(transparent)]
    Prefer(#[from] InvalidPrefer),
    /// `Idempotency-Key`.
    #[error(transparent)]
    IdempotencyKey(#[from] InvalidIdempotencyKey),
    /// The lock's duration.
    #[error("iothub-messagelocktimeout is a whole number of seconds between 1 and 300")]
    LockTimeout,
    /// The body is not the JSON that is asked for.
    #[error("the body: {0}")]
    Json(serde_json::Error),
    /// The most that the answer to a sync may have.
    #[error("max_bytes is {} at least", api::limits::SYNC_BYTES_LEAST)]
    MaxBytes,
    /// A sync's own name for itself.
    #[error("request_id has at most {} characters", api::limits::SYNC_NAME_LENGTH)]
    SyncName,
    /// A list without an item.
    #[error("the list of {0} is empty")]
    Empty(&'static str),
    /// A list with too many items.
    #[error("the list has {items} {what}, the most is {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        items: usize,
        /// The most.
        most: usize,
    },
}

/// Checks that the request is for a name of this gateway: clients use one connection for several names.
pub(crate) fn check_host(parts: &Parts, names: &[ServedName]) -> Result<(), BadRequest> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = match (parts.uri.authority(), hosts.next()) {
        // The request line counts more than the header (RFC 9112, section 3.2.2).
        (Some(authority), _) => authority.host(),
        (None, Some(host)) => without_port(host.to_str().map_err(|_| BadRequest::Host)?),
        (None, None) => return Err(BadRequest::Host),
    };
    if hosts.next().is_some() {
        return Err(BadRequest::Host);
    }
    if names.iter().any(|name| name.is(host)) {
        Ok(())
    } else {
        Err(BadRequest::Misdirected)
    }
}

/// The host of `host`, `host:port`, `[address]` or `[address]:port`.
fn without_port(text: &str) -> &str {
    let end_of_address = text.rfind(']').map_or(0, |end| end + 1);
    let port = text[end_of_address..]
        .find(':')
        .map(|colon| end_of_address + colon);
    port.map_or(text, |port| &text[..port])
}

/// Checks the head of a request against the limits. hyper's own, which answer a bare 431, are twice as wide, so
/// that most clients hear why.
pub(crate) fn check_head(parts: &Parts, limits: &Limits) -> Result<(), BadRequest> {
    // What stands around a header's name and value on an HTTP/1.1 line: colon, space, line end.
    const AROUND: usize = 4;
    let line = parts.method.as_str().len()
        + parts.uri.path().len()
        + parts.uri.query().map_or(0, str::len);
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + AROUND);
    let bytes = line + headers.sum::<usize>();
    if parts.headers.len() <= limits.headers && bytes <= limits.header_bytes {
        return Ok(());
    }
    Err(BadRequest::Headers {
        headers: parts.headers.len(),
        bytes,
        most_headers: limits.headers,
        most_bytes: limits.header_bytes,
    })
}

/// The identity that a path names, for a credential that speaks for `own`: itself, or a module of it. An id that is
/// none is said to be so: that depends on nothing but the request itself.
pub(crate) fn named(
    own: &Identity,
    device: &str,
    module: Option<&str>,
) -> Result<Identity, BadRequest> {
    let device = decode(device)?;
    let module = module.map(decode).transpose()?;
    let is_own_device = device == own.device_id().as_str();
    if is_own_device && module.as_deref() == own.module_id().map(ModuleId::as_str) {
        return Ok(own.clone());
    }
    let (device, module) = parse_ids(&device, module.as_deref())?;
    match (module, own.module_id()) {
        (Some(module), None) if is_own_device => {
            Ok(Identity::module(own.hub().clone(), device, module))
        }
        _ => Err(BadRequest::OtherDevice),
    }
}

/// The ids in a path.
pub(crate) fn ids(
    device: &str,
    module: Option<&str>,
) -> Result<(DeviceId, Option<ModuleId>), BadRequest> {
    let module = module.map(decode).transpose()?;
    parse_ids(&decode(device)?, module.as_deref())
}

fn parse_ids(
    device: &str,
    module: Option<&str>,
) -> Result<(DeviceId, Option<ModuleId>), BadRequest> {
    let device = device.parse().map_err(|error| BadRequest::Id {
        what: "device",
        error,
    })?;
    let module = module.map(str::parse).transpose();
    let module = module.map_err(|error| BadRequest::Id {
        what: "module",
        error,
    })?;
    Ok((device, module))
}

/// Decodes one part of a path, once.
pub(crate) fn decode(part: &str) -> Result<Cow<'_, str>, BadRequest> {
    let is_escaped = part.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if !is_escaped {
        return Err(BadRequest::Escape);
    }
    percent_decode_str(part)
        .decode_utf8()
        .map_err(|_| BadRequest::Escape)
}

/// A header's value as text. HTTP allows bytes there that are none.
pub(crate) fn text<'a>(
    name: &HeaderName,
    value: &'a http::HeaderValue,
) -> Result<&'a str, BadRequest> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| BadRequest::HeaderText {
        name: name.to_string(),
    })
}

impl DeviceRequest {
    /// The device or module that the request is for.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.grant.identity
    }

    /// What the request prefers.
    pub(crate) fn prefer(&self) -> Result<Prefer, BadRequest> {
        let values = ascii(&self.headers, PREFER)?;
        Ok(Prefer::parse(values)?)
    }

    /// How a write is to be carried out, its key aside.
    pub(crate) fn terms(&self, waits: &Waits) -> Result<Terms, BadRequest> {
        let prefer = self.prefer()?;
        Ok(Terms {
            wait: prefer.wait_or(waits.hub, waits.most),
            is_async: prefer.respond_async,
            may_be_stored: self.grant.is_of_the_gateway(),
            key: None,
        })
    }

    /// How long a write waits for the hub.
    pub(crate) fn write_wait(&self, waits: &Waits) -> Result<Duration, BadRequest> {
        Ok(self.prefer()?.wait_or(waits.hub, waits.most))
    }

    /// How long a read waits for something to be there, if it does.
    pub(crate) fn poll_wait(&self, waits: &Waits) -> Result<Option<Duration>, BadRequest> {
        let wait = self.prefer()?.wait;
        Ok(wait.map(|wait| wait.within(waits.poll, waits.most)))
    }

    /// Whether a query parameter is there, and what stands behind its `=`.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let pairs = self.uri.query().unwrap_or_default().split('&');
        pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }

    /// The tags of what the device has: `If-None-Match`, if it is there.
    pub(crate) fn held_tags(&self) -> Result<Option<HeldTags<'_>>, BadRequest> {
        let values = ascii(&self.headers, header::IF_NONE_MATCH)?;
        Ok((!values.is_empty()).then_some(HeldTags(values)))
    }
}

impl HeldTags<'_> {
    /// Whether a tag is among them.
    pub(crate) fn have(&self, tag: &str) -> bool {
        self.0.iter().any(|value| api::etag::is_listed(value, tag))
    }
}

/// All values of a header.
fn ascii(headers: &HeaderMap, name: HeaderName) -> Result<Vec<&str>, BadRequest> {
    let values = headers.get_all(&name).iter().map(http::HeaderValue::to_str);
    values
        .collect::<Result<_, _>>()
        .map_err(|_| BadRequest::NotAscii(name))
}

/// Made at compile time: every write is asked for them.
const PREFER: HeaderName = HeaderName::from_static(api::header::PREFER);
pub(crate) const IDEMPOTENCY_KEY: HeaderName =
    HeaderName::from_static(api::header::IDEMPOTENCY_KEY);

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn host(uri: &str, headers: &[(&str, &str)]) -> Result<(), BadRequest> {
        let names = ["gateway.example", "127.0.0.1", "::1"].map(|name| name.parse().unwrap());
        check_host(&parts(uri, headers), &names)
    }

    #[test]
    fn a_request_is_for_a_name_of_the_gateway() {
        for value in [
            "gateway.example",
            "GATEWAY.example:8443",
            "gateway.example.",
            "127.0.0.1:1",
            "[::1]:8443",
            "[::1]",
        ] {
            assert!(host("/", &[("host", value)]).is_ok(), "{value}");
        }
        for value in [
            "",
            "other.example",
            "gateway.example.evil",
            ":8443",
            "127.0.0.2",
            "[::2]",
            "::1",
        ] {
            let refused = host("/", &[("host", value)]);
            assert!(matches!(refused, Err(BadRequest::Misdirected)), "{value}");
        }
        assert!(host("https://gateway.example/x", &[("host", "other")]).is_ok());
        assert!(matches!(
            host("https://other/x", &[("host", "gateway.example")]),
            Err(BadRequest::Misdirected)
        ));
        assert!(matches!(host("/", &[]), Err(BadRequest::Host)));
        let twice = [("host", "gateway.example"), ("host", "gateway.example")];
        assert!(matches!(host("/", &twice), Err(BadRequest::Host)));
    }

    #[test]
    fn a_head_has_limits() {
        let limits = |headers, header_bytes| Limits {
            headers,
            header_bytes,
            ..Limits::default()
        };
        let parts = parts("/abc?d", &[("a", "1"), ("b", "2")]);
        // GET, /abc, d: 8; twice a name, a value and what stands around them: 12.
        for (headers, bytes, fits) in [(2, 20, true), (3, 21, true), (1, 20, false), (2, 19, false)]
        {
            assert_eq!(
                check_head(&parts, &limits(headers, bytes)).is_ok(),
                fits,
                "{headers} {bytes}"
            );
        }
    }

    #[test]
    fn a_path_names_the_credentials_own_device() {
        let hub = || "hub.example".parse().unwrap();
        let device = Identity::device(hub(), "dev:1".parse().unwrap());
        let module = Identity::module(hub(), "dev:1".parse().unwrap(), "m".parse().unwrap());
        for id in ["dev:1", "dev%3A1", "dev%3a1"] {
            assert_eq!(named(&device, id, None).unwrap(), device, "{id}");
            assert_eq!(named(&module, id, Some("m")).unwrap(), module, "{id}");
            // A device speaks for its modules.
            assert_eq!(named(&device, id, Some("m")).unwrap(), module, "{id}");
        }
        for (identity, device, named) in [
            (&device, "DEV:1", None),
            (&device, "dev2", None),
            (&device, "dev%253A1", None),
            (&device, "dev2", Some("m")),
            (&module, "dev:1", None),
            (&module, "dev:1", Some("M")),
        ] {
            let refused = super::named(identity, device, named);
            assert!(
                matches!(refused, Err(BadRequest::OtherDevice)),
                "{device} {named:?}"
            );
        }
    }

    #[test]
    fn an_id_that_is_none_is_said_to_be_so() {
        let identity = Identity::device("hub.example".parse().unwrap(), "dev1".parse().unwrap());
        for bad in ["a%2Fb", "a%00", "a%20b", "%23", ""] {
            let refused = named(&identity, bad, None);
            assert!(matches!(refused, Err(BadRequest::Id { .. })), "{bad}");
        }
        for bad in ["%", "a%2", "a%zz", "%ff"] {
            assert!(
                matches!(named(&identity, bad, None), Err(BadRequest::Escape)),
                "{bad}"
            );
        }
        assert!(matches!(
            named(&identity, "dev1", Some("a%2Fb")),
            Err(BadRequest::Id { .. })
        ));
    }
}
