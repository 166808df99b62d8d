//! Direct methods: those that wait, and their answers.

use std::time::SystemTime;

use api::{
    Code, Delivery, Object,
    method::{MethodAnswer, WaitingMethod, WaitingMethods},
};
use http::StatusCode;
use iothub::Timestamp;
use store::{MethodEntry, MethodRequestId};

use super::{
    Gateway,
    answer::{self, Answer},
    extract::{BadRequest, DeviceRequest},
    problem::Refusal,
};

/// `GET .../methods`.
pub(super) async fn list(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let wait = request.poll_wait(&gateway.waits)?;
    let found = gateway.delivery.methods(request.identity(), wait).await?;
    if found.found.is_empty() {
        return Ok(answer::inbox(
            answer::empty(StatusCode::NO_CONTENT),
            found.completeness,
        ));
    }
    let methods = found.found.iter().map(shown).collect();
    Ok(answer::json(&WaitingMethods { methods }))
}

/// `POST .../methods/{request}/response`.
pub(super) async fn respond(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let wait = request.write_wait(&gateway.waits)?;
    let identity = request.identity().clone();
    let id: MethodRequestId =
        request
            .item
            .parse()
            .map_err(|error: store::ParseMethodRequestIdError| {
                Refusal::new(Code::NotFound, error.to_string())
            })?;
    let body = gateway
        .bodies
        .read(request.body, gateway.limits.json_bytes)
        .await?;
    let key = request.key.map(|key| key.with_body(&body));
    let Object::<MethodAnswer>(answer) = serde_json::from_slice(&body).map_err(BadRequest::Json)?;
    let (devices, of) = (gateway.devices.clone(), identity.clone());
    let answered = move |_: Option<Delivery>| async move {
        devices.answer_method(&of, id, answer.into(), wait).await?;
        Ok(Delivery::Hub)
    };
    let delivery = gateway.keys.once(&identity, key, answered).await?;
    Ok(answer::done(delivery))
}

/// A method as devices see it.
pub(super) fn shown(method: &MethodEntry) -> WaitingMethod {
    let now = Timestamp::from(SystemTime::now());
    WaitingMethod::new(
        method.id.to_string(),
        &method.request,
        method.deadline_at,
        now,
    )
}
