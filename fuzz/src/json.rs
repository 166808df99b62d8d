//! JSON from both sides.

use std::fmt::Debug;

use api::{
    file::{UploadReport, UploadRequest},
    inbox::Settle,
    method::MethodAnswer,
    push::PushTarget,
    sync::SyncRequest,
    telemetry::{HubBatch, Item},
    token::TokenRequest,
};
use iothub::{
    HubError, MethodResponse, Telemetry,
    twin::{DesiredPatch, ReportedPatch, Section, Twin, merge},
};
use serde::{Serialize, de::DeserializeOwned};

/// Every body that a device may send. What was read is written so that it reads the same.
pub fn device_json(bytes: &[u8]) {
    read::<Vec<Settle>>(bytes);
    read::<HubBatch>(bytes);
    read::<TokenRequest>(bytes);
    read::<PushTarget>(bytes);
    read::<UploadRequest>(bytes);
    read::<UploadReport>(bytes);
    read::<SyncRequest>(bytes);
    read::<Vec<Item>>(bytes);
    if let Some(answer) = read::<MethodAnswer>(bytes) {
        let _ = MethodResponse::from(answer);
    }
    if let Ok(patch) = ReportedPatch::parse(bytes) {
        let again = ReportedPatch::parse(&patch.to_json());
        assert_eq!(again.as_ref().ok(), Some(&patch), "{again:?}");
    }
}

/// Batches of telemetry, in all three forms. What the hub would read off the topic is the message that was read, unless
/// a name claims to be a system property's.
pub fn batches(bytes: &[u8]) {
    for message in front::batch_messages(bytes).iter().flatten() {
        let is_plain = |(name, _): &(String, String)| !name.starts_with("$.");
        if message.properties.iter().all(is_plain) {
            let again = Telemetry::from_bag(&message.to_bag(), message.payload.clone());
            assert_eq!(&again, message);
        }
    }
}

/// What the hub says of twins and of errors: a document, and on the next line a change of it. What was read is written so
/// that it reads the same; a change that is merged twice is merged once.
pub fn hub_json(bytes: &[u8]) {
    let (document, change) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, bytes),
    };
    read::<HubError>(document);
    let mut section = Section::new();
    if let Ok(twin) = Twin::parse(document) {
        let again = Twin::parse(twin.to_json().to_string().as_bytes());
        assert_eq!(again.as_ref().ok(), Some(&twin), "{again:?}");
        section = twin.desired;
    }
    if let Ok(change) = DesiredPatch::parse(change) {
        let again = DesiredPatch::parse(change.to_json().to_string().as_bytes());
        assert_eq!(again.as_ref().ok(), Some(&change), "{again:?}");

        let before = section.version;
        if section.apply(&change) {
            assert!(section.version >= before && section.version >= change.version);
        } else {
            assert_eq!(section.version, before);
        }
        merge(&mut section.properties, &change.patch);
        let once = section.properties.clone();
        merge(&mut section.properties, &change.patch);
        assert_eq!(section.properties, once);
    }
}

fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&value).expect("what was JSON has a JSON form");
    let again = serde_json::from_slice(&written);
    assert_eq!(again.as_ref().ok(), Some(&value), "{again:?}");
    Some(value)
}
