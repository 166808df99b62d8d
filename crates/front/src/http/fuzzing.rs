//! What a stranger's request passes before anybody is asked who he is, for the fuzz targets.

use http::request::Parts;
use iothub::Identity;

use super::{
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
