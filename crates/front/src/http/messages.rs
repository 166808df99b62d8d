//! IoT Hub's own calls for cloud-to-device messages: receive under a lock, complete, reject, abandon.

use std::time::Duration;

use api::{Delivery, etag, header, limits, media_type, query};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use iothub::AckRequest;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use store::{DeliveryLease, LockToken, Settlement};

use super::{
    Gateway,
    answer::{self, Answer},
    extract::{BadRequest, DeviceRequest},
    problem::Refusal,
};

/// `GET .../messages/devicebound`.
pub(super) async fn receive(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let wait = request.poll_wait(&gateway.waits)?;
    let lock = lock_timeout(&request)?.unwrap_or(gateway.waits.lock);
    let found = gateway
        .delivery
        .receive(request.identity(), lock, wait)
        .await?;
    match found.found {
        Some(lease) => Ok(shown(&lease)),
        None => Ok(answer::inbox(
            answer::empty(StatusCode::NO_CONTENT),
            found.completeness,
        )),
    }
}

/// `DELETE .../messages/devicebound/{lock}`, with `?reject` or without.
pub(super) async fn complete(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let settlement = match request.query(query::REJECT) {
        Some(_) => Settlement::Reject,
        None => Settlement::Complete,
    };
    settle(gateway, &request, settlement).await
}

/// `POST .../messages/devicebound/{lock}/abandon`.
pub(super) async fn abandon(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    settle(gateway, &request, Settlement::Abandon).await
}

async fn settle(
    gateway: &Gateway,
    request: &DeviceRequest,
    settlement: Settlement,
) -> Result<Answer, Refusal> {
    let token = LockToken::from_text(&request.item);
    let wait = request.write_wait(&gateway.waits)?;
    let key = request.key.as_ref().map(|key| key.with_body(&[]));
    let (devices, of) = (gateway.devices.clone(), request.identity().clone());
    let settled = move |_: Option<Delivery>| async move {
        let settled = devices.settle(&of, &token, settlement, wait).await?;
        Ok(answer::delivery_of(settled))
    };
    let once = gateway.keys.once(request.identity(), key, settled);
    Ok(answer::done(once.await?))
}

/// How long the lock should last. Java's SDK says it in a header, .NET's in the query.
fn lock_timeout(request: &DeviceRequest) -> Result<Option<Duration>, BadRequest> {
    let header = match request.headers.get(header::LOCK_TIMEOUT) {
        Some(value) => Some(value.to_str().map_err(|_| BadRequest::LockTimeout)?),
        None => None,
    };
    let Some(text) = header.or_else(|| request.query(query::LOCK_TIMEOUT)) else {
        return Ok(None);
    };
    let seconds = text
        .trim()
        .parse()
        .ok()
        .filter(|seconds| limits::LOCK_SECONDS.contains(seconds));
    Ok(Some(Duration::from_secs(
        seconds.ok_or(BadRequest::LockTimeout)?,
    )))
}

/// A message under a lock, as IoT Hub shows it: the body byte by byte, all else in headers.
fn shown(lease: &DeliveryLease) -> Answer {
    let (entry, message) = (&lease.entry, &lease.entry.message);
    let mut answer = answer::tagged(
        answer::bytes(media_type::BYTES, message.payload.clone()),
        &etag::of_lock(lease.token.as_str()),
    );
    let headers = answer.headers_mut();
    headers.insert(header::SEQUENCE_NUMBER, entry.sequence.into());
    headers.insert(header::DELIVERY_COUNT, entry.delivery_count.into());
    add(
        headers,
        header::ENQUEUED_TIME,
        &entry.arrived_at.to_string(),
    );
    let system = &message.system;
    let expiry = entry
        .expires_at
        .map(|at| at.to_string())
        .or_else(|| system.expiry.clone());
    for (name, value) in [
        (header::MESSAGE_ID, &system.message_id),
        (header::CORRELATION_ID, &system.correlation_id),
        (header::USER_ID, &system.user_id),
        (header::TO, &system.to),
        (header::EXPIRY, &expiry),
        (header::ANSWER_CONTENT_TYPE, &system.content_type),
        (header::ANSWER_CONTENT_ENCODING, &system.content_encoding),
    ] {
        if let Some(value) = value {
            add(headers, name, value);
        }
    }
    if message.ack != AckRequest::None {
        add(headers, header::ACK, message.ack.as_str());
    }
    for (name, value) in &message.properties {
        let name = utf8_percent_encode(name, NO_TOKEN);
        add(headers, &format!("{}{name}", header::APP_PREFIX), value);
    }
    answer
}

/// Adds a header. What no header can carry, and IoT Hub does not let through, is percent-encoded.
fn add(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::try_from(name);
    let value = HeaderValue::from_bytes(value.as_bytes())
        .or_else(|_| HeaderValue::try_from(utf8_percent_encode(value, CONTROLS).to_string()));
    if let (Ok(name), Ok(value)) = (name, value) {
        headers.append(name, value);
    }
}

/// All that a header's name cannot have (RFC 9110, section 5.6.2).
const NO_TOKEN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'%')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');
