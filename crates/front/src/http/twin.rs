//! The twin: read as a whole, reported properties patched, desired properties followed.

use api::{
    Delivery, etag,
    twin::{Properties, ReportedAnswer, TwinDocument},
};
use http::StatusCode;
use iothub::twin::{ReportedPatch, TwinVersion};

use super::{
    Gateway,
    answer::{self, Answer},
    extract::DeviceRequest,
    problem::Refusal,
};
use crate::{delivery::DesiredFound, devices::Reached};

/// `GET .../twin`.
pub(super) async fn read(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let wait = request.write_wait(&gateway.waits)?;
    let held = request.held_tags()?;
    let twin = gateway.devices.read_twin(request.identity(), wait).await?;
    let tag = etag::of_twin(&twin);
    if held.is_some_and(|held| held.have(&tag)) {
        return Ok(answer::tagged(
            answer::empty(StatusCode::NOT_MODIFIED),
            &tag,
        ));
    }
    Ok(answer::tagged(
        answer::json(&TwinDocument::from(&*twin)),
        &tag,
    ))
}

/// `PATCH .../twin/properties/reported`.
pub(super) async fn patch_reported(
    gateway: &Gateway,
    request: DeviceRequest,
) -> Result<Answer, Refusal> {
    let mut terms = gateway.terms(&request).await?;
    let identity = request.grant.identity;
    let body = gateway
        .bodies
        .read(request.body, gateway.limits.json_bytes)
        .await?;
    terms.key = request.key.map(|key| key.with_body(&body));
    let patch = ReportedPatch::parse(&body)?;
    let patched = gateway.devices.patch_reported(&identity, patch, &terms);
    Ok(match patched.await? {
        Reached::Hub(version) => {
            let body = ReportedAnswer {
                version: version.map(|version| version.0),
            };
            answer::delivered(answer::json(&body), Delivery::Hub)
        }
        Reached::Stored(receipt) => answer::stored(&identity, receipt, &terms),
    })
}

/// `GET .../twin/properties/desired`.
pub(super) async fn desired(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let wait = request.poll_wait(&gateway.waits)?;
    let held = request.held_tags()?;
    // Without a version of its own the device has nothing to wait against: it wants what there is.
    let wait = wait.filter(|_| held.is_some());
    let has = |version: TwinVersion| {
        let held = held.as_ref();
        held.is_some_and(|held| held.have(&etag::of_desired(version)))
    };
    match gateway
        .delivery
        .desired(request.identity(), &has, wait)
        .await?
    {
        DesiredFound::Changed(section) => {
            let body = Properties::from(&*section);
            Ok(answer::tagged(
                answer::json(&body),
                &etag::of_desired(section.version),
            ))
        }
        DesiredFound::Unchanged(version) => Ok(answer::tagged(
            answer::empty(StatusCode::NOT_MODIFIED),
            &etag::of_desired(version),
        )),
    }
}
