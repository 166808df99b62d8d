//! `/$iothub/websocket`: MQTT over WebSocket.

use axum::{
    Extension,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;

use super::{Http, answer::HttpError, extract::Query};
use crate::{
    websocket::{self, Connection, Refused},
    x509::Peer,
};

/// With `iothub-no-client-cert=true` a certificate does not count: a hub that is asked so does not ask for it ("Communicate
/// with an IoT hub using the MQTT protocol"). Here it was asked for in the handshake, as there is no later.
pub(super) async fn open(
    State(http): State<Http>,
    Extension(connection): Extension<Connection>,
    Query(query): Query<Open>,
    request: Request,
) -> Result<Response, HttpError> {
    let peer = match query.no_client_cert.as_deref() {
        Some("true") => Peer::ANONYMOUS,
        Some(_) | None => connection.peer().clone(),
    };
    websocket::offer(&http.mqtt, peer, request).map_err(|refused| {
        let (status, name) = match refused {
            Refused::NoWebSocket | Refused::NoMqtt => (StatusCode::BAD_REQUEST, "ArgumentInvalid"),
            Refused::Full => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        };
        HttpError::new(status, name, refused.to_string())
    })
}

#[derive(Deserialize)]
pub(super) struct Open {
    #[serde(rename = "iothub-no-client-cert")]
    no_client_cert: Option<String>,
}
