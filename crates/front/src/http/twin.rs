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
use crate::delivery::DesiredFound;

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
    let wait = request.write_wait(&gateway.waits)?;
    let body = gateway
        .bodies
        .read(request.body, gateway.limits.json_bytes)
        .await?;
    let patch = ReportedPatch::parse(&body)?;
    let version = gateway
        .devices
        .patch_reported(&request.grant.identity, patch, wait)
        .await?;
    let body = ReportedAnswer {
        version: version.map(|version| version.0),
    };
    Ok(answer::delivered(answer::json(&body), Delivery::Hub))
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
