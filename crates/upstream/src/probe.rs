//! A question to the hub's HTTPS API that changes nothing there: who deletes a cloud-to-device message by a lock token
//! that nobody was given must be the device, and is told that the lock is lost.

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, HOST, InvalidHeaderValue},
};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use iothub::{ErrorCode, Identity};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{pin, select};

use crate::{
    connect::{ConnectError, Door, Endpoint},
    tokens::Answer,
};

/// Why the hub did not say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// No connection.
    #[error("the hub's HTTPS API cannot be reached")]
    Connect(#[from] ConnectError),
    /// No answer on it.
    #[error("the hub's HTTPS API does not answer")]
    Http(#[from] hyper::Error),
    /// The token cannot stand in a header.
    #[error("the token is no header")]
    Header(#[from] InvalidHeaderValue),
    /// The request cannot be written.
    #[error("the request cannot be written")]
    Request(#[from] http::Error),
}

/// Asks the hub whether it takes this token of a device. Modules have no such call.
pub(crate) async fn probe(
    endpoint: &Endpoint,
    identity: &Identity,
    token: &SecretString,
) -> Result<Answer, ProbeError> {
    let request = request(identity, token)?;
    let stream = endpoint.connect(Door::Https).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let response = sender.send_request(request);
    pin!(response, connection);
    let response = select! {
        biased;
        response = &mut response => response,
        // The hub may close at once; what it said before that has been read.
        _ = &mut connection => response.await,
    }?;
    Ok(answer(&response))
}

fn request(identity: &Identity, token: &SecretString) -> Result<Request<Empty<Bytes>>, ProbeError> {
    let mut authorization = HeaderValue::from_str(token.expose_secret())?;
    authorization.set_sensitive(true);
    let id = utf8_percent_encode(identity.device_id().as_str(), NON_ALPHANUMERIC);
    let lock = lock_token();
    let path = format!("/devices/{id}/messages/deviceBound/{lock}?api-version={API_VERSION}");
    Ok(Request::delete(path)
        .header(HOST, identity.hub().as_str())
        .header(AUTHORIZATION, authorization)
        .body(Empty::new())?)
}

/// A lock token as the hub makes them. That nobody was given it is as good as certain; that nobody can guess it
/// does not matter.
fn lock_token() -> String {
    let random = fastrand::u128(..);
    let [a, b, c, d] = [96, 80, 64, 48].map(|shift| random >> shift);
    let (b, c, d) = (b & 0xffff, c & 0xffff, d & 0xffff);
    format!(
        "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{:012x}",
        random & 0xffff_ffff_ffff
    )
}

/// A hub that has got as far as to look for the lock has taken the token.
fn answer<B>(response: &Response<B>) -> Answer {
    let code = response.headers().get("iothub-errorcode");
    let is = |error: ErrorCode| {
        let code = code.and_then(|code| code.to_str().ok());
        code.is_some_and(|code| code == error.name() || code == error.number().to_string())
    };
    match response.status() {
        StatusCode::UNAUTHORIZED => Answer::Refused,
        // The hub's messages of the day are spent; that says nothing of the token.
        StatusCode::FORBIDDEN if is(ErrorCode::IotHubQuotaExceeded) => Answer::Undecided,
        StatusCode::FORBIDDEN => Answer::Refused,
        StatusCode::NOT_FOUND if is(ErrorCode::DeviceNotFound) => Answer::Refused,
        StatusCode::NOT_FOUND if is(ErrorCode::DeviceMessageLockLost) => Answer::Accepted,
        StatusCode::PRECONDITION_FAILED | StatusCode::NO_CONTENT => Answer::Accepted,
        // Any other 404 may come from somebody who knows no such path, and has looked at no token.
        _ => Answer::Undecided,
    }
}

const API_VERSION: &str = "2021-04-12";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_answer_is_read_by_status_and_code() {
        let said = |status: u16, code: Option<&str>| {
            let mut response = Response::builder().status(status);
            if let Some(code) = code {
                response = response.header("iothub-errorcode", code);
            }
            answer(&response.body(()).unwrap())
        };
        for (status, code, expected) in [
            (401, None, Answer::Refused),
            (401, Some("IotHubUnauthorizedAccess"), Answer::Refused),
            (403, Some("DeviceDisabled"), Answer::Refused),
            (403, None, Answer::Refused),
            (403, Some("IotHubQuotaExceeded"), Answer::Undecided),
            (404, Some("DeviceNotFound"), Answer::Refused),
            (404, Some("404001"), Answer::Refused),
            (404, Some("DeviceMessageLockLost"), Answer::Accepted),
            (404, None, Answer::Undecided),
            (404, Some("NotFound"), Answer::Undecided),
            (412, Some("DeviceMessageLockLost"), Answer::Accepted),
            (412, None, Answer::Accepted),
            (204, None, Answer::Accepted),
            (200, None, Answer::Undecided),
            (302, None, Answer::Undecided),
            (400, Some("ArgumentInvalid"), Answer::Undecided),
            (405, None, Answer::Undecided),
            (429, Some("ThrottlingException"), Answer::Undecided),
            (500, Some("ServerError"), Answer::Undecided),
            (503, None, Answer::Undecided),
        ] {
            assert_eq!(said(status, code), expected, "{status} {code:?}");
        }
    }

    #[test]
    fn the_request_names_the_device_and_a_lock_that_nobody_holds() {
        let identity = Identity::device("hub.example".parse().unwrap(), "a?b%41".parse().unwrap());
        let token = SecretString::from("SharedAccessSignature sr=x");
        let made = request(&identity, &token).unwrap();
        let path = made.uri().path();
        let lock = path
            .strip_prefix("/devices/a%3Fb%2541/messages/deviceBound/")
            .expect("the device");
        let lengths: Vec<_> = lock.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(made.uri().query(), Some("api-version=2021-04-12"));
        assert_eq!(made.headers()[HOST], "hub.example");
        assert!(!format!("{made:?}").contains("sr=x"));
    }
}
