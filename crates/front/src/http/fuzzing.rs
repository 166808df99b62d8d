//! Parsers of requests as functions without a gateway, for the fuzz targets.

use api::{Object, telemetry::HubBatchItem};
use http::request::Parts;
use iothub::{Identity, Telemetry};

use super::{
    batch,
    extract::{self, BadRequest},
    route::{self, Route},
    telemetry,
};
use crate::{
    auth::{self, Credential},
    config::{Limits, ServedName},
};

/// Whether the device API would take the head of a request, if its credential were that of `identity`. Runs the checks
/// of the API in their order, each on what the one before let through.
#[must_use]
pub fn takes_head(parts: &Parts, names: &[ServedName], identity: &Identity) -> bool {
    let Route::Call(call) = route::find(&parts.method, parts.uri.path()) else {
        return false;
    };
    let checked = || -> Result<(), BadRequest> {
        extract::check_head(parts, &Limits::default())?;
        extract::check_host(parts, names)?;
        extract::named(identity, call.device.unwrap_or_default(), call.module)?;
        extract::decode(call.item.unwrap_or_default())?;
        telemetry::properties(&parts.headers)?;
        Ok(())
    };
    auth::credential(&parts.headers)
        .and_then(Credential::parse)
        .is_ok()
        && checked().is_ok()
}

/// The messages that a body would be, as each of the three forms of a batch.
#[must_use]
pub fn batch_messages(body: &[u8]) -> [Vec<Telemetry>; 3] {
    let hub: Vec<Object<HubBatchItem>> = serde_json::from_slice(body).unwrap_or_default();
    let hub = hub.into_iter().map(|Object(item)| batch::from_hub(item));
    let each = |texts: Result<Vec<&str>, serde_json::Error>| {
        let texts = texts.unwrap_or_default().into_iter();
        texts
            .filter_map(|text| batch::from_ours(text).ok())
            .collect()
    };
    [
        hub.filter_map(Result::ok).collect(),
        each(batch::parse_list(body)),
        each(batch::parse_lines(body)),
    ]
}
