//! `Idempotency-Key`: which call it belongs to, and of what request it is.

use api::{IdempotencyKey, InvalidIdempotencyKey, Operation, header};
use http::{HeaderMap, Uri, header::CONTENT_TYPE};
use store::Fingerprint;

use super::extract::{BadRequest, IDEMPOTENCY_KEY};
use crate::devices::WriteKey;

/// A key and the head of its request. The body, which comes later, makes it whole.
pub(crate) struct KeyOfHead {
    operation: Operation,
    item: Box<str>,
    key: IdempotencyKey,
    head: Fingerprint,
}

impl KeyOfHead {
    /// The key of a request, if it has one.
    pub(crate) fn read(
        headers: &HeaderMap,
        uri: &Uri,
        operation: Operation,
        item: &str,
    ) -> Result<Option<Self>, BadRequest> {
        let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
            return Ok(None);
        };
        let text = value
            .to_str()
            .map_err(|_| InvalidIdempotencyKey::Character)?;
        let key = text.parse()?;
        let mut parts = vec![uri.query().unwrap_or_default().as_bytes()];
        if operation == Operation::SendTelemetry {
            parts.extend(properties(headers));
        }
        Ok(Some(Self {
            operation,
            item: item.into(),
            key,
            head: Fingerprint::of(&parts),
        }))
    }

    /// The key of the request with this body. However the path is written, it is the same call.
    pub(crate) fn with_body(&self, body: &[u8]) -> WriteKey {
        let call = [
            self.operation.id().as_bytes(),
            self.operation.method().as_str().as_bytes(),
            self.item.as_bytes(),
        ];
        let request = Fingerprint::of(&[self.head.as_bytes(), body]);
        WriteKey::new(&call, self.key.as_str(), request)
    }
}

/// The headers that are part of what a telemetry request has to say.
fn properties(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let says = |name: &str| {
        name.starts_with("iothub-") || name == header::SUBJECT || name == CONTENT_TYPE.as_str()
    };
    let headers = headers.iter().filter(move |(name, _)| says(name.as_str()));
    headers.flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()])
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(operation: Operation, item: &str, uri: &str, header: &str, body: &str) -> WriteKey {
        let mut headers = HeaderMap::new();
        headers.insert(
            IDEMPOTENCY_KEY,
            HeaderValue::from_static("0123456789abcdef"),
        );
        headers.insert("iothub-app-a", HeaderValue::from_str(header).unwrap());
        headers.insert("user-agent", HeaderValue::from_str(header).unwrap());
        let read = KeyOfHead::read(&headers, &uri.parse().unwrap(), operation, item);
        read.unwrap().unwrap().with_body(body.as_bytes())
    }

    #[test]
    fn a_key_is_that_of_its_call_and_its_request() {
        let first = key(Operation::Settle, "", "/a?x=1", "h", "b");
        assert_eq!(first, key(Operation::Settle, "", "/A/?x=1", "i", "b"));
        let same_call = [
            key(Operation::Settle, "", "/a?x=2", "h", "b"),
            key(Operation::Settle, "", "/a?x=1", "h", "c"),
        ];
        for other in same_call {
            assert_eq!(other.record(), first.record());
            assert_ne!(other.fingerprint(), first.fingerprint());
        }
        let other_calls = [
            key(Operation::Sync, "", "/a?x=1", "h", "b"),
            key(Operation::Settle, "i", "/a?x=1", "h", "b"),
        ];
        for other in other_calls {
            assert_ne!(other.record(), first.record());
        }
    }

    #[test]
    fn the_properties_of_a_message_are_part_of_its_request() {
        let of = |value| key(Operation::SendTelemetry, "", "/a", value, "b");
        assert_eq!(of("1"), of("1"));
        assert_ne!(of("1").fingerprint(), of("2").fingerprint());
    }
}
