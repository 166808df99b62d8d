//! What happens to a request before its handler sees it: faults that somebody asked for, and the throttles and quota of the
//! hub's tier.
//!
//! Nothing of it is for `/emulator/...`, so that whoever asked for trouble can end it; only sending cloud-to-device messages
//! there has the throttle of the AMQP link that it stands for.

mod asked;

use std::time::Duration;

use axum::{
    Extension,
    body::HttpBody as _,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Version, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use iothub::ErrorCode;

use self::asked::Asked;
use super::{Http, answer::HttpError};
use crate::{
    hub::{Error, ErrorStatus, Operation, RequestFault},
    websocket::Connection,
};

/// What is in store for a request.
enum Outlook {
    /// Its handler, after this time.
    Handled(Duration),
    /// This answer, after this time.
    Refused(HttpError, Duration),
    /// The end of its connection.
    Cut,
}

/// Lets a request through, late or not at all.
pub(super) async fn meet(
    State(http): State<Http>,
    Extension(connection): Extension<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let Some(asked) = Asked::of(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    let is_http1 = request.version() <= Version::HTTP_11;
    let is_read = asked.is_read;
    // What says that it is larger is refused unread, and costs no more than what is read.
    let size = size_of(request.body()).min(http.limits.body_bytes);
    match outlook(&http, asked, size) {
        Outlook::Handled(wait) => pause(&http, wait).await,
        Outlook::Refused(error, wait) => {
            pause(&http, wait).await;
            return refusal(error, is_http1);
        }
        Outlook::Cut => {
            connection.cut();
            // The connection ends before this does.
            return std::future::pending().await;
        }
    }
    let response = next.run(request).await;
    if is_read && response.status().is_success() {
        let size = size_of(response.body());
        if let Err(error) = http.shell.with(|hub, now| hub.charge([size], now)) {
            return refusal(error.into(), is_http1);
        }
    }
    response
}

fn outlook(http: &Http, asked: Asked, size: usize) -> Outlook {
    http.shell.with(|hub, now| {
        let mut wait = Duration::ZERO;
        let fault = asked
            .api
            .and_then(|api| hub.request_fault(api, asked.device, asked.module, now));
        match fault {
            None => {}
            Some(RequestFault::Delay(asked)) => wait = asked,
            Some(RequestFault::Drop) => return Outlook::Cut,
            Some(RequestFault::Fail(status)) => return Outlook::Refused(failure(status), wait),
            Some(RequestFault::Throttle(wait)) => {
                let error = Error {
                    code: ErrorCode::ThrottlingBacklogTimeout,
                    message: "The request has been throttled. A fault asks for it.".to_owned(),
                };
                return Outlook::Refused(error.into(), wait);
            }
        }
        let Some(operation) = asked.operation else {
            return Outlook::Handled(wait);
        };
        let amount = if operation == Operation::Methods {
            // "IoT Hub quotas and throttling": methods are metered in blocks of 4 KB, requests only.
            (size as u64).div_ceil(4096).max(1)
        } else {
            1
        };
        let turn = hub.throttle(operation, amount, now);
        let turn = turn.and_then(|turn| {
            if asked.is_charged {
                hub.charge([size], now)?;
            }
            Ok(turn)
        });
        match turn {
            Ok(turn) => Outlook::Handled(wait + turn),
            Err(error) => Outlook::Refused(error.into(), wait),
        }
    })
}

/// Waits, but not beyond the emulator's end.
async fn pause(http: &Http, wait: Duration) {
    if !wait.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = http.shell.stop.cancelled() => {}
        }
    }
}

/// A throttled connection is closed, and told no time (live hub, 2026).
fn refusal(error: HttpError, is_http1: bool) -> Response {
    let mut response = error.into_response();
    if is_http1 && response.status() == StatusCode::TOO_MANY_REQUESTS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// The hub's code for a status, if it has one.
fn failure(status: ErrorStatus) -> HttpError {
    let number = match u16::from(status) {
        // The codes that a hub answers requests with; the first one of their status, or the one that is seen.
        400 => ErrorCode::ArgumentInvalid,
        401 => ErrorCode::IotHubUnauthorizedAccess,
        403 => ErrorCode::IotHubQuotaExceeded,
        404 => ErrorCode::DeviceNotFound,
        412 => ErrorCode::PreconditionFailed,
        413 => ErrorCode::MessageTooLarge,
        429 => ErrorCode::ThrottlingException,
        500 => ErrorCode::ServerError,
        503 => ErrorCode::ServiceUnavailable,
        504 => ErrorCode::GatewayTimeout,
        other => {
            let status = StatusCode::from_u16(other).expect("400 to 599 are statuses");
            return HttpError::new(status, "Fault", "A fault asks for this error.");
        }
    };
    HttpError::from(Error {
        code: number,
        message: "A fault asks for this error.".to_owned(),
    })
}

/// What is known of the size of a body before it comes; most say it.
fn size_of(body: &axum::body::Body) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}
