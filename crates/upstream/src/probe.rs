//! Questions to the hub's HTTPS API that change nothing there.
//!
//! - **A device** deletes a cloud-to-device message by a lock token that nobody was given. Who is told that the lock is
//!   lost is the device.
//! - **A module** has no cloud-to-device messages: its only call is to send telemetry (REST reference, "Send device event"). So
//!   it sends a batch without a message, which nobody receives. That the hub finds fault with the batch says something of
//!   the token only if the hub looks at the token first; so the same batch is sent once with a signature that no key has
//!   made, and must be refused for that. A hub that has shown so is not asked again.
//!
//! Every question waits for its turn at the hub, among those of strangers.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, InvalidHeaderValue},
};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use iothub::{
    ErrorCode, Identity, ModuleId,
    sas::{self, Key},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{pin, select};

use crate::{
    connect::{ConnectError, Door},
    node::Hub,
    pace::Rank,
    tokens::{Answer, DeviceToken},
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

/// What is known of how a hub judges telemetry.
#[derive(Default)]
pub(crate) struct Manners {
    /// Set when it has refused a token before it looked at what the token was sent with.
    judges_the_token_first: OnceLock<()>,
}

/// Asks the hub whether it takes this token.
pub(crate) async fn probe(
    hub: &Hub,
    identity: &Identity,
    token: &DeviceToken,
) -> Result<Answer, ProbeError> {
    let Some(module) = identity.module_id() else {
        let response = ask(hub, settle_nothing(identity, &token.text)?).await?;
        return Ok(answer_to_settlement(&response));
    };
    let response = ask(hub, send_nothing(identity, module, &token.text)?).await?;
    let answer = answer_to_batch(&response);
    if answer != Answer::Accepted || hub.manners.judges_the_token_first.get().is_some() {
        return Ok(answer);
    }
    let nobodys = Key::from_bytes(fastrand::u128(..).to_be_bytes().to_vec());
    let nobodys = nobodys.expect("16 bytes are enough for a key");
    let forged = nobodys.sign(&sas::resource(identity), None, token.expires_at);
    let response = ask(hub, send_nothing(identity, module, &forged.into())?).await?;
    if answer_to_batch(&response) != Answer::Refused {
        return Ok(Answer::Undecided);
    }
    // Another question may have found it out meanwhile.
    let _ = hub.manners.judges_the_token_first.set(());
    Ok(answer)
}

async fn ask(hub: &Hub, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ProbeError> {
    hub.turnstile.queue(Rank::Unproved).admitted().await;
    let stream = hub.endpoint.connect(Door::Https).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let response = sender.send_request(request);
    pin!(response, connection);
    let response = select! {
        biased;
        response = &mut response => response,
        // The hub may close at once; what it said before that has been read.
        _ = &mut connection => response.await,
    }?;
    Ok(response)
}

fn settle_nothing(
    identity: &Identity,
    token: &SecretString,
) -> Result<Request<Full<Bytes>>, ProbeError> {
    let id = utf8_percent_encode(identity.device_id().as_str(), NON_ALPHANUMERIC);
    let lock = lock_token();
    let path = format!("/devices/{id}/messages/deviceBound/{lock}?api-version={API_VERSION}");
    Ok(Request::delete(path)
        .header(HOST, identity.hub().as_str())
        .header(AUTHORIZATION, authorization(token)?)
        .body(Full::default())?)
}

fn send_nothing(
    identity: &Identity,
    module: &ModuleId,
    token: &SecretString,
) -> Result<Request<Full<Bytes>>, ProbeError> {
    let [device, module] = [identity.device_id().as_str(), module.as_str()]
        .map(|id| utf8_percent_encode(id, NON_ALPHANUMERIC));
    let path =
        format!("/devices/{device}/modules/{module}/messages/events?api-version={API_VERSION}");
    Ok(Request::post(path)
        .header(HOST, identity.hub().as_str())
        .header(AUTHORIZATION, authorization(token)?)
        .header(CONTENT_TYPE, BATCH)
        .body(Full::from(NO_MESSAGES))?)
}

fn authorization(token: &SecretString) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut authorization = HeaderValue::from_str(token.expose_secret())?;
    authorization.set_sensitive(true);
    Ok(authorization)
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
fn answer_to_settlement<B>(response: &Response<B>) -> Answer {
    match response.status() {
        StatusCode::NOT_FOUND if is(response, ErrorCode::DeviceMessageLockLost) => Answer::Accepted,
        StatusCode::PRECONDITION_FAILED | StatusCode::NO_CONTENT => Answer::Accepted,
        _ => answer_to_any(response),
    }
}

/// A hub that judges the token first, and has got as far as to look at the batch, has taken the token. What it says of a
/// batch without a message is not documented: that there is none, that the form is wrong, or nothing. An error without
/// the hub's code may come from somebody in between, who has looked at no token.
fn answer_to_batch<B>(response: &Response<B>) -> Answer {
    let has_looked = [
        ErrorCode::ArgumentInvalid,
        ErrorCode::ArgumentNull,
        ErrorCode::InvalidOperation,
        ErrorCode::IotHubFormatError,
    ];
    match response.status() {
        StatusCode::BAD_REQUEST if has_looked.iter().any(|code| is(response, *code)) => {
            Answer::Accepted
        }
        StatusCode::NO_CONTENT => Answer::Accepted,
        _ => answer_to_any(response),
    }
}

/// What the hub says of a token whatever is asked with it.
fn answer_to_any<B>(response: &Response<B>) -> Answer {
    match response.status() {
        StatusCode::UNAUTHORIZED => Answer::Refused,
        // The hub's messages of the day are spent; that says nothing of the token.
        StatusCode::FORBIDDEN if is(response, ErrorCode::IotHubQuotaExceeded) => Answer::Undecided,
        StatusCode::FORBIDDEN => Answer::Refused,
        StatusCode::NOT_FOUND
            if is(response, ErrorCode::DeviceNotFound)
                || is(response, ErrorCode::ModuleNotFound) =>
        {
            Answer::Refused
        }
        // Any other 404 may come from somebody who knows no such path, and has looked at no token.
        _ => Answer::Undecided,
    }
}

fn is<B>(response: &Response<B>, error: ErrorCode) -> bool {
    let code = response.headers().get("iothub-errorcode");
    let code = code.and_then(|code| code.to_str().ok());
    code.is_some_and(|code| code == error.name() || code == error.number().to_string())
}

const API_VERSION: &str = "2021-04-12";

/// The media type of IoT Hub's batches (REST reference, "Send device event").
const BATCH: &str = "application/vnd.microsoft.iothub.json";
const NO_MESSAGES: &str = "[]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_settlement_is_read_by_status_and_code() {
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
            let answer = answer_to_settlement(&said(status, code));
            assert_eq!(answer, expected, "{status} {code:?}");
        }
    }

    #[test]
    fn the_answer_to_a_batch_is_read_by_status_and_code() {
        for (status, code, expected) in [
            (401, Some("IotHubUnauthorizedAccess"), Answer::Refused),
            (403, Some("DeviceDisabled"), Answer::Refused),
            (403, Some("IotHubQuotaExceeded"), Answer::Undecided),
            (404, Some("ModuleNotFound"), Answer::Refused),
            (404, Some("DeviceNotFound"), Answer::Refused),
            (404, None, Answer::Undecided),
            (204, None, Answer::Accepted),
            (400, Some("ArgumentInvalid"), Answer::Accepted),
            (400, Some("400006"), Answer::Accepted),
            (400, Some("InvalidProtocolVersion"), Answer::Undecided),
            (400, None, Answer::Undecided),
            (412, Some("DeviceMessageLockLost"), Answer::Undecided),
            (413, Some("MessageTooLarge"), Answer::Undecided),
            (429, Some("ThrottlingException"), Answer::Undecided),
            (500, Some("ServerError"), Answer::Undecided),
        ] {
            let answer = answer_to_batch(&said(status, code));
            assert_eq!(answer, expected, "{status} {code:?}");
        }
    }

    fn said(status: u16, code: Option<&str>) -> Response<()> {
        let mut response = Response::builder().status(status);
        if let Some(code) = code {
            response = response.header("iothub-errorcode", code);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn the_request_names_the_device_and_a_lock_that_nobody_holds() {
        let identity = Identity::device("hub.example".parse().unwrap(), "a?b%41".parse().unwrap());
        let token = SecretString::from("SharedAccessSignature sr=x");
        let made = settle_nothing(&identity, &token).unwrap();
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

    #[test]
    fn a_module_is_asked_about_with_its_own_call() {
        let (hub, device, module) = ("hub.example", "a?b", "m?1");
        let module: ModuleId = module.parse().unwrap();
        let identity = Identity::module(
            hub.parse().unwrap(),
            device.parse().unwrap(),
            module.clone(),
        );
        let token = SecretString::from("SharedAccessSignature sr=x");
        let made = send_nothing(&identity, &module, &token).unwrap();
        assert_eq!(
            made.uri().path(),
            "/devices/a%3Fb/modules/m%3F1/messages/events"
        );
        assert_eq!(made.headers()[CONTENT_TYPE], BATCH);
        assert!(!format!("{made:?}").contains("sr=x"));
    }
}
