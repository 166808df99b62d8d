//! The one mapping from what went wrong to what a client is told.
//!
//! Every match here is exhaustive: a new error does not compile until somebody has chosen its answer.

use std::{borrow::Cow, time::Duration};

use api::{Code, ItemResult, Problem, admin::Side};
use http::{HeaderValue, StatusCode, header};
use iothub::{
    ErrorCode, HubError, Timestamp,
    twin::{ParseTwinError, Rule},
};
use store::{Failure, KeyError, PutTokenError, ReplayError, SettleError, StoreError, SubmitError};
use tracing::error;

use super::{
    answer::{self, Answer},
    body::BodyError,
    extract::BadRequest,
    in_flight::TooMany,
    request_id::RequestId,
};
use crate::{
    auth::{AuthError, TooManyFailures},
    devices, tokens,
};

/// A request that is refused, before its name is known.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: Code,
    detail: Cow<'static, str>,
    hub_error: Option<ErrorCode>,
    retry_after: Option<Duration>,
    /// It is known that the same request will fail again, whatever the code says.
    is_final: bool,
    /// Value of `Allow`, with 405.
    allow: Option<HeaderValue>,
}

impl Refusal {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            hub_error: None,
            retry_after: None,
            is_final: false,
            allow: None,
        }
    }

    pub(crate) fn with_hub_error(mut self, error: ErrorCode) -> Self {
        self.hub_error = Some(error);
        self
    }

    pub(crate) fn with_allow(mut self, allow: HeaderValue) -> Self {
        self.allow = Some(allow);
        self
    }

    fn without_retry(mut self) -> Self {
        self.is_final = true;
        self
    }

    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// Says more of what went wrong, in front of what is said already.
    pub(crate) fn with_context(mut self, context: &str) -> Self {
        self.detail = format!("{context}: {}", self.detail).into();
        self
    }

    /// What went wrong, for people.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The result of one item of a list.
    pub(crate) fn into_item(self) -> ItemResult {
        let item = ItemResult::failed(self.code, self.detail, self.retry_after);
        if self.is_final {
            item.without_retry()
        } else {
            item
        }
    }

    /// The refusal of a request because of one of its items. None if that has not failed.
    pub(crate) fn of_item(item: ItemResult) -> Option<Self> {
        let refusal = Self {
            retry_after: item
                .retry_after_s
                .map(|after| Duration::from_secs(after.into())),
            is_final: item.retryable == Some(false),
            ..Self::new(item.code?, item.detail.unwrap_or_default())
        };
        Some(refusal)
    }

    /// The answer to the request of this name.
    pub(crate) fn into_answer(self, request: RequestId, now: Timestamp) -> Answer {
        if self.code == Code::Internal {
            error!(request = request.as_str(), detail = %self.detail, "a request failed by a defect");
        }
        let mut problem = Problem::new(self.code, self.detail, request.as_str(), now);
        if let Some(after) = self.retry_after {
            problem = problem.with_retry_after(after);
        }
        if self.is_final {
            problem = problem.without_retry();
        }
        if let Some(hub_error) = self.hub_error {
            problem = problem.with_hub_error(hub_error);
        }
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = answer::document(status, api::media_type::PROBLEM, &problem);
        let headers = answer.headers_mut();
        headers.insert(
            api::header::IOTHUB_ERRORCODE,
            HeaderValue::from_static(problem.hub_error_name()),
        );
        if let Some(seconds) = problem.retry_after_s.filter(|seconds| *seconds > 0) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::Unauthenticated {
            // Never `Basic`, which URL loading systems make into a dialogue or a silent failure.
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer error=\"invalid_token\""),
            );
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        answer
    }
}

impl From<devices::Error> for Refusal {
    fn from(error: devices::Error) -> Self {
        use devices::Error;
        match error {
            Error::TooLarge { .. } | Error::PropertiesTooLarge { .. } => {
                Self::new(Code::MessageTooLarge, error.to_string())
            }
            Error::MessageIdTooLong(_) | Error::ReservedName => {
                Self::new(Code::InvalidRequest, error.to_string())
            }
            Error::Submit(error) => error.into(),
            Error::Failed(failure) => (*failure).into(),
            Error::Mismatch | Error::Panicked => Self::new(Code::Internal, error.to_string()),
            Error::AnswerLost(_) => Self::new(Code::MethodGone, error.to_string()),
            Error::AnswerUncertain(error) => Self::from(*error)
                .without_retry()
                .with_context("whether the answer was sent is not known"),
            Error::Settle(error) => settle(error),
            Error::Method(error) => method(error),
            Error::Store(error) => error.into(),
            Error::Lost(_) | Error::Unfinished => Self::new(Code::HubTimeout, error.to_string()),
            Error::Stopping => Self::new(Code::Stopping, error.to_string()),
        }
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::DeviceFull { .. } => Self::new(Code::OutboxFull, error.to_string()),
            SubmitError::Full => Self::new(Code::Overloaded, error.to_string()),
            SubmitError::KeyReused => Self::new(Code::KeyReused, error.to_string()),
            SubmitError::TooManyKeys { .. } => Self::new(Code::TooManyKeys, error.to_string()),
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Reused => Self::new(Code::KeyReused, error.to_string()),
            KeyError::TooMany { .. } => Self::new(Code::TooManyKeys, error.to_string()),
            KeyError::Full => Self::new(Code::Overloaded, error.to_string()),
            KeyError::Store(error) => error.into(),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let code = match &failure {
            Failure::HubError { status, error } => return hub_error(*status, error.as_deref()),
            Failure::CredentialRefused => Code::HubRefused,
            Failure::HubUnavailable => Code::HubUnavailable,
            Failure::HubTimeout => Code::HubTimeout,
            Failure::NoSession => Code::Overloaded,
            Failure::MethodGone => Code::MethodGone,
            Failure::DoesNotFit => Code::MessageTooLarge,
            Failure::Stopping => Code::Stopping,
            Failure::HubClosedOnPublish => Code::HubUnavailable,
            Failure::Damaged => Code::Internal,
        };
        Self::new(code, failure.to_string())
    }
}

/// What the hub said of a twin request. Its statuses are HTTP's (protocol of IoT Hub, twin error answers).
fn hub_error(status: u16, error: Option<&HubError>) -> Refusal {
    let known = error.and_then(|error| ErrorCode::from_number(error.error_code));
    let code = match (status, known) {
        (_, Some(ErrorCode::IotHubQuotaExceeded)) | (429, _) => Code::Throttled,
        (401 | 403, _) => Code::HubRefused,
        (404, _) => Code::NotFound,
        (409 | 412, _) => Code::VersionConflict,
        (413, _) => Code::MessageTooLarge,
        (400..=499, _) => Code::InvalidRequest,
        (504, _) => Code::HubTimeout,
        _ => Code::HubUnavailable,
    };
    let detail = match error {
        Some(error) => format!(
            "IoT Hub answered {status} ({}): {}",
            error.error_code, error.message
        ),
        None => format!("IoT Hub answered {status}"),
    };
    let refusal = Refusal::new(code, detail);
    match known {
        Some(known) => refusal.with_hub_error(known),
        None => refusal,
    }
}

/// IoT Hub says `DeviceMessageLockLost` of a token that it never gave as well.
fn settle(error: SettleError) -> Refusal {
    match error {
        SettleError::Unknown => Refusal::new(Code::LockLost, "no waiting message has this token"),
        SettleError::Lost => Refusal::new(Code::LockLost, error.to_string()),
        SettleError::Store(error) => error.into(),
    }
}

fn method(error: SettleError) -> Refusal {
    match error {
        SettleError::Unknown => {
            Refusal::new(Code::NotFound, "no direct method has this request id")
        }
        SettleError::Lost => Refusal::new(
            Code::MethodGone,
            "the direct method is answered, late, or the connection that it came on has ended",
        ),
        SettleError::Store(error) => error.into(),
    }
}

/// A dead letter that could not be replayed.
pub(crate) fn replay(side: Side, error: ReplayError) -> Refusal {
    let text = error.to_string();
    let code = match error {
        ReplayError::Unknown | ReplayError::NotKept => Code::NotFound,
        ReplayError::Full => match side {
            Side::Outbox => Code::OutboxFull,
            Side::Inbox => Code::Throttled,
        },
        ReplayError::Store(error) => return error.into(),
    };
    Refusal::new(code, text)
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::UnknownOutcome => Code::HubTimeout,
            StoreError::Unavailable => Code::Overloaded,
            StoreError::StorageFull => Code::StorageFull,
            // A front holds no session lease, and asks for nothing durable of an engine that keeps nothing.
            StoreError::Stale | StoreError::Held { .. } | StoreError::Volatile => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        let code = match error {
            AuthError::Conflicting => Code::InvalidRequest,
            AuthError::Missing
            | AuthError::Scheme
            | AuthError::Unknown
            | AuthError::Expired
            | AuthError::Malformed(_)
            | AuthError::Refused => Code::Unauthenticated,
            // "We could not find out" is not "the answer is no".
            AuthError::Undecided => Code::HubUnavailable,
            AuthError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<TooManyFailures> for Refusal {
    fn from(error: TooManyFailures) -> Self {
        Self {
            retry_after: Some(error.retry_after),
            ..Self::new(Code::Throttled, error.to_string())
        }
    }
}

impl From<PutTokenError> for Refusal {
    fn from(error: PutTokenError) -> Self {
        match error {
            PutTokenError::TooMany { .. } => Self::new(Code::Throttled, error.to_string()),
            PutTokenError::Store(error) => error.into(),
        }
    }
}

impl From<tokens::Error> for Refusal {
    fn from(error: tokens::Error) -> Self {
        use tokens::Error;
        let text = error.to_string();
        match error {
            Error::Scope | Error::TooFarFromItsOrigin => Self::new(Code::Forbidden, text),
            Error::TooMany { retry_after } => Self {
                retry_after: Some(retry_after),
                ..Self::new(Code::Throttled, text)
            },
            Error::Randomness(_) => Self::new(Code::Internal, text),
            Error::Put(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

impl From<BadRequest> for Refusal {
    fn from(error: BadRequest) -> Self {
        let code = match error {
            BadRequest::Host
            | BadRequest::Id { .. }
            | BadRequest::Escape
            | BadRequest::HeaderText { .. }
            | BadRequest::NotAscii(_)
            | BadRequest::Prefer(_)
            | BadRequest::IdempotencyKey(_)
            | BadRequest::LockTimeout
            | BadRequest::BatchItem { .. }
            | BadRequest::NotBase64(_)
            | BadRequest::Lifetime
            | BadRequest::MaxBytes
            | BadRequest::SyncName
            | BadRequest::Json(_)
            | BadRequest::Empty(_) => Code::InvalidRequest,
            BadRequest::Misdirected => Code::Misdirected,
            BadRequest::Headers { .. } => Code::HeadersTooLarge,
            BadRequest::OtherDevice => Code::Forbidden,
            BadRequest::TooMany { .. } => Code::MessageTooLarge,
        };
        Self::new(code, error.to_string())
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::TooLarge { .. } => Code::MessageTooLarge,
            BodyError::TooSlow => Code::RequestTimeout,
            BodyError::Broken(_) => Code::InvalidRequest,
            BodyError::NoRoom => Code::Overloaded,
            BodyError::Stopping => Code::Stopping,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ParseTwinError> for Refusal {
    fn from(error: ParseTwinError) -> Self {
        let code = match &error {
            ParseTwinError::Json(_) | ParseTwinError::NotAnObject | ParseTwinError::Missing(_) => {
                Code::InvalidRequest
            }
            ParseTwinError::Rule(broken) => match broken.rule {
                Rule::TooLarge { .. } => Code::MessageTooLarge,
                Rule::EmptyKey
                | Rule::KeyTooLong(_)
                | Rule::KeyCharacter(_)
                | Rule::TooDeep
                | Rule::StringTooLong(_)
                | Rule::Integer
                | Rule::NullInArray => Code::InvalidRequest,
            },
        };
        Self::new(code, error.to_string())
    }
}

impl From<TooMany> for Refusal {
    fn from(error: TooMany) -> Self {
        let (code, after) = match error {
            TooMany::OfDevice(_) => (Code::Throttled, Duration::from_secs(1)),
            TooMany::OfAll => (Code::Overloaded, Duration::from_secs(5)),
        };
        Self {
            retry_after: Some(after),
            ..Self::new(code, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, error_code: Option<u32>) -> Code {
        let error = error_code.map(|error_code| HubError {
            error_code,
            tracking_id: String::new(),
            message: String::new(),
            timestamp_utc: String::new(),
            info: serde_json::Value::Null,
        });
        hub_error(status, error.as_ref()).code
    }

    #[test]
    fn the_hubs_statuses_become_ours() {
        for (status, error_code, expected) in [
            (400, Some(400_004), Code::InvalidRequest),
            (401, None, Code::HubRefused),
            (403, Some(403_002), Code::Throttled),
            (403, None, Code::HubRefused),
            (404, Some(404_001), Code::NotFound),
            (412, None, Code::VersionConflict),
            (413, None, Code::MessageTooLarge),
            (429, Some(429_001), Code::Throttled),
            (500, None, Code::HubUnavailable),
            (503, None, Code::HubUnavailable),
            (504, None, Code::HubTimeout),
            (200, None, Code::HubUnavailable),
        ] {
            assert_eq!(of(status, error_code), expected, "{status} {error_code:?}");
        }
    }
}
