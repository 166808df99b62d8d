//! Who may ask: the host check of every request, and the right that a route needs.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, HOST, ORIGIN, UPGRADE},
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use iothub::{ErrorCode, HubName};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::answer::HttpError;
use crate::{
    hub::{Error, Right},
    shell::Shell,
};

/// What the doors know.
pub(crate) struct Access {
    hosts: Vec<String>,
    token: SecretString,
    token_opens_service_api: bool,
}

/// What a route needs.
#[derive(Clone, Copy)]
pub(super) enum Door {
    /// A right of a shared access policy.
    Service(Right),
    /// The emulator's own token.
    Emulator,
}

impl Access {
    pub(crate) fn new(
        hub: &HubName,
        mut hosts: Vec<String>,
        token: SecretString,
        token_opens_service_api: bool,
    ) -> Self {
        hosts.push(hub.to_string());
        Self {
            hosts,
            token,
            token_opens_service_api,
        }
    }

    /// The names that the emulator is reached by.
    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    fn is_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|h| h.eq_ignore_ascii_case(host))
    }

    /// `https://{name}`, with or without a port, where the name is one of the emulator's.
    fn is_origin(&self, origin: &HeaderValue) -> bool {
        let origin = origin.to_str().ok();
        let authority = origin.and_then(|origin| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| self.is_host(without_port(authority)))
    }

    /// Whether a header is the emulator's own token, and that is enough for the service API.
    pub(crate) fn opens_service_api(&self, header: &str) -> bool {
        self.token_opens_service_api && self.is_token(header)
    }

    /// In the same time whatever the answer is.
    fn is_token(&self, header: &str) -> bool {
        let expected = self.token.expose_secret().as_bytes();
        header
            .strip_prefix("Bearer ")
            .is_some_and(|token| token.as_bytes().ct_eq(expected).into())
    }
}

/// Keeps web pages out. A browser names the page in `Origin`; and a page whose own name was made to point to this machine
/// (DNS rebinding) comes with that name in `Host`.
///
/// The Python SDK, which is no browser, opens a WebSocket with the hub itself as its `Origin` (paho), so such a request may
/// have one that names this emulator. A page cannot set `Upgrade` in any other request.
pub(crate) async fn check_host(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let may_have_origin = |origin| is_websocket(headers) && access.is_origin(origin);
    if headers
        .get(ORIGIN)
        .is_some_and(|origin| !may_have_origin(origin))
    {
        return forbidden("Web pages may not use this API: a request with Origin is refused.");
    }
    let authority = request.uri().authority().map(|a| a.as_str());
    let header = request.headers().get(HOST).and_then(|h| h.to_str().ok());
    let Some(host) = authority.or(header).map(without_port) else {
        return forbidden("The request names no Host.");
    };
    if !access.is_host(host) {
        return forbidden("This Host is not a name of the emulator.");
    }
    next.run(request).await
}

/// Lets a request through that carries the right.
pub(super) async fn check_right(
    access: Arc<Access>,
    shell: Arc<Shell>,
    door: Door,
    request: Request,
    next: Next,
) -> Response {
    let header = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let judged = match door {
        Door::Emulator if access.is_token(header) => Ok(()),
        Door::Emulator => Err(Error {
            code: ErrorCode::IotHubUnauthorizedAccess,
            message: "This path wants Authorization: Bearer with the emulator's own token, which tombolo keeps in hub.token in the data folder.".to_owned(),
        }),
        Door::Service(_) if access.opens_service_api(header) => Ok(()),
        Door::Service(right) => {
            shell.with(|hub, now| hub.authorize_service(header, right, &access.hosts, now))
        }
    };
    match judged {
        Ok(()) => next.run(request).await,
        Err(error) => HttpError::from(error).into_response(),
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE);
    upgrade.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn forbidden(message: &str) -> Response {
    HttpError::new(StatusCode::FORBIDDEN, "Forbidden", message).into_response()
}

/// `name:443`, `127.0.0.1:443`, `[::1]:443` without the port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_compared_without_its_port() {
        for (authority, host) in [
            ("localhost", "localhost"),
            ("localhost:9443", "localhost"),
            ("[::1]:9443", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(authority), host);
        }
    }
}
