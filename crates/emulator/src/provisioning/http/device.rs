//! `/{idScope}/registrations/...`: what devices ask for.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, LOCATION, RETRY_AFTER},
    },
    response::{IntoResponse as _, Response},
};
use serde_json::Value;

use super::{
    Http, HttpError,
    extract::{self, Payload},
};
use crate::{
    hub::Now,
    provisioning::service::{Code, Error, Presented, RegistrationId, Reply, Service},
    websocket::Connection,
};

/// Who asks, by path, header and handshake.
struct Caller {
    scope: String,
    registration: RegistrationId,
    token: Option<String>,
    connection: Connection,
}

pub(super) async fn register(
    State(http): State<Http>,
    Path((scope, id)): Path<(String, String)>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Response, HttpError> {
    let caller = Caller::read(scope, &id, connection, &headers)?;
    let reply = caller.ask(&http, |service, presented, now| {
        service.register(&caller.registration, presented, &body, now)
    })?;
    Ok(caller.answer(reply))
}

pub(super) async fn operation_status(
    State(http): State<Http>,
    Path((scope, id, operation)): Path<(String, String, String)>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let caller = Caller::read(scope, &id, connection, &headers)?;
    let reply = caller.ask(&http, |service, presented, now| {
        service.operation_status(&caller.registration, presented, &operation, now)
    })?;
    Ok(caller.answer(reply))
}

pub(super) async fn look_up(
    State(http): State<Http>,
    Path((scope, id)): Path<(String, String)>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Value>, HttpError> {
    let caller = Caller::read(scope, &id, connection, &headers)?;
    let state = caller.ask(&http, |service, presented, now| {
        service.look_up(&caller.registration, presented, &body, now)
    })?;
    Ok(Json(state))
}

impl Caller {
    fn read(
        scope: String,
        id: &str,
        connection: Connection,
        headers: &HeaderMap,
    ) -> Result<Self, HttpError> {
        Ok(Self {
            scope,
            registration: extract::id(id)?,
            token: extract::text(headers, AUTHORIZATION.as_str())?.map(str::to_owned),
            connection,
        })
    }

    fn ask<R>(
        &self,
        http: &Http,
        question: impl FnOnce(&mut Service, Presented<'_>, Now) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let presented = Presented {
            token: self.token.as_deref(),
            peer: self.connection.peer(),
        };
        http.mqtt.wiring.with(|served, now| {
            if !served.service.id_scope().is(&self.scope) {
                return Err(Error::new(Code::NotFound, "There is no such id scope."));
            }
            question(&mut served.service, presented, now)
        })
    }

    fn answer(&self, reply: Reply) -> Response {
        let status = StatusCode::from_u16(reply.status)
            .expect("an answer to a device has status 200 or 202");
        let mut response = (status, Json(reply.body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = reply.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
            let (scope, id, operation) = (&self.scope, &self.registration, reply.operation);
            let location = format!(
                "/{scope}/registrations/{id}/operations/{}",
                operation.as_str()
            );
            if let Ok(location) = location.parse() {
                headers.insert(LOCATION, location);
            }
        }
        response
    }
}
