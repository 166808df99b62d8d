//! How devices write, and the requests of it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::PAYLOAD;
use crate::fleet::Fleet;
use crate::http_client::Prepared;
use crate::tls::Endpoint;

/// A way to send telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Writing {
    /// One message, answered when the hub has acknowledged it.
    Keyless,
    /// The same with an idempotency key, each time another.
    Keyed,
    /// One message that the hub is not waited for, answered when it is stored.
    Stored,
    /// [`BATCH`] messages in the hub's own form, answered when the hub has acknowledged all of them.
    Batches,
    /// [`BATCH`] messages of 300 bytes, answered when all of them are stored.
    Backlog,
}

impl Writing {
    /// Those that are compared with each other.
    pub(crate) const COMPARED: [Self; 4] =
        [Self::Keyless, Self::Keyed, Self::Stored, Self::Batches];

    /// As tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keyless => "one by one",
            Self::Keyed => "one by one, with a key",
            Self::Stored => "one by one, stored",
            Self::Batches => "batches of 500",
            Self::Backlog => "batches of 500, stored",
        }
    }

    /// Messages in one request.
    pub(crate) fn messages(self) -> usize {
        match self {
            Self::Keyless | Self::Keyed | Self::Stored => 1,
            Self::Batches | Self::Backlog => BATCH,
        }
    }

    /// The answers to a request that has got what it wants.
    pub(super) fn answers(self) -> &'static [StatusCode] {
        match self {
            Self::Keyless | Self::Keyed | Self::Batches => &[StatusCode::NO_CONTENT],
            // The hub may have acknowledged it by the time that it is stored.
            Self::Stored | Self::Backlog => &[StatusCode::ACCEPTED, StatusCode::NO_CONTENT],
        }
    }

    fn headers(self) -> Vec<(HeaderName, &'static str)> {
        let json = (CONTENT_TYPE, "application/json");
        let batch = (CONTENT_TYPE, "application/vnd.microsoft.iothub.json");
        let at_once = (HeaderName::from_static("prefer"), "respond-async");
        match self {
            Self::Keyless | Self::Keyed => vec![json],
            Self::Stored => vec![json, at_once],
            Self::Batches => vec![batch],
            Self::Backlog => vec![batch, at_once],
        }
    }

    fn body(self) -> Bytes {
        match self {
            Self::Keyless | Self::Keyed | Self::Stored => PAYLOAD.into(),
            Self::Batches => batch_of(PAYLOAD),
            Self::Backlog => batch_of(&PAYLOAD.repeat(3)),
        }
    }
}

fn batch_of(message: &str) -> Bytes {
    let item = json!({ "body": BASE64_STANDARD.encode(message) });
    json!(vec![item; BATCH]).to_string().into()
}

/// A device's request, for each device.
pub(super) struct Requests {
    writing: Writing,
    prepared: Vec<Prepared>,
    /// How many keys there were.
    keys: AtomicU64,
}

impl Requests {
    pub(super) fn new(writing: Writing, peer: &Endpoint, fleet: &Fleet) -> anyhow::Result<Self> {
        let (headers, body) = (writing.headers(), writing.body());
        let prepared = fleet.devices.iter().map(|device| {
            let path = format!("/devices/{}/messages/events", device.id);
            let (token, body) = (&device.token, body.clone());
            Prepared::with_headers(peer, Method::POST, &path, token, &headers, body)
        });
        Ok(Self {
            writing,
            prepared: prepared.collect::<anyhow::Result<_>>()?,
            keys: AtomicU64::new(0),
        })
    }

    /// The request of a device.
    pub(super) fn of(&self, device: usize) -> anyhow::Result<Cow<'_, Prepared>> {
        let prepared = &self.prepared[device];
        Ok(match self.writing {
            Writing::Keyless | Writing::Stored | Writing::Batches | Writing::Backlog => {
                Cow::Borrowed(prepared)
            }
            Writing::Keyed => {
                let number = self.keys.fetch_add(1, Ordering::Relaxed);
                let name = HeaderName::from_static("idempotency-key");
                Cow::Owned(prepared.and(name, &format!("bench-key-{number:016}"))?)
            }
        })
    }

    /// The only answers that count.
    pub(super) fn answers(&self) -> &'static [StatusCode] {
        self.writing.answers()
    }
}

/// As many as an app sends that was without a network for some hours.
const BATCH: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_stored_messages_fits_into_one_request() {
        let body = Writing::Backlog.body();
        assert!(body.len() <= 256 * 1024, "{} bytes", body.len());
        let items: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        assert_eq!(items.len(), Writing::Backlog.messages());
        let message = BASE64_STANDARD.decode(items[0]["body"].as_str().unwrap());
        assert_eq!(message.unwrap().len(), 300);
    }
}
