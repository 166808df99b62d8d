//! The HTTPS side: the service's device API, its REST API for operators, and WebSockets.
//!
//! Any `api-version` is taken, and none is as well: the real service wants one.

mod answer;
mod device;
mod extract;
mod operator;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};

use self::answer::HttpError;
use super::{
    server::Served,
    service::{Code, Enrollment, Error, Group, Individual},
};
use crate::{
    Limits,
    http::{Access, check_host, close_after_refusal, into_spelling},
    mqtt,
    websocket::{self, Connection, Refused},
};

/// What handlers work with.
#[derive(Clone)]
struct Http {
    mqtt: mqtt::Server<Served>,
    access: Arc<Access>,
    limits: Limits,
}

pub(super) fn router(mqtt: mqtt::Server<Served>, access: Access, limits: Limits) -> Router {
    let http = Http {
        mqtt,
        access: Arc::new(access),
        limits,
    };
    let operators = Router::new()
        .merge(enrollments::<Individual>("/enrollments"))
        .merge(enrollments::<Group>("/enrollmentgroups"))
        .route(
            "/registrations/{id}",
            get(operator::registration).delete(operator::delete_registration),
        )
        .route(
            "/registrations/{id}/query",
            post(operator::query_registrations),
        )
        .route_layer(middleware::from_fn_with_state(http.clone(), check_operator));
    let devices = Router::new()
        .route(
            "/{scope}/registrations/{id}/register",
            put(device::register),
        )
        .route(
            "/{scope}/registrations/{id}/operations/{operation}",
            get(device::operation_status),
        )
        .route("/{scope}/registrations/{id}", post(device::look_up));
    let routes = Router::new()
        .merge(operators)
        .merge(devices)
        .method_not_allowed_fallback(|| async {
            HttpError::other(
                StatusCode::METHOD_NOT_ALLOWED,
                "This path has other methods.",
            )
        })
        .fallback(anywhere)
        .with_state(http.clone());
    // A layer of the routes themselves would come after routing.
    Router::new()
        .fallback_service(routes)
        .layer(middleware::map_request(|request| async {
            into_spelling(request, &BEFORE_ID)
        }))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&http.access),
            check_host,
        ))
        .layer(middleware::from_fn(close_after_refusal))
}

/// The routes of one kind of enrollment.
fn enrollments<E: Enrollment>(path: &str) -> Router<Http> {
    Router::new()
        .route(path, post(operator::bulk::<E>))
        .route(&format!("{path}/query"), post(operator::query::<E>))
        .route(
            &format!("{path}/{{id}}"),
            get(operator::read::<E>)
                .put(operator::write::<E>)
                .delete(operator::remove::<E>),
        )
        .route(
            &format!("{path}/{{id}}/attestationmechanism"),
            post(operator::mechanism::<E>),
        )
}

/// Lets an operator's request through.
async fn check_operator(State(http): State<Http>, request: Request, next: Next) -> Response {
    let header = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let has_token = http.access.opens_service_api(header);
    let judged = http.mqtt.wiring.with(|served, now| {
        if !has_token {
            served.service.authorize(header, http.access.hosts(), now)?;
        }
        served.service.count_operation(now)
    });
    match judged {
        Ok(()) => next.run(request).await,
        Err(error) => HttpError::from(error).into_response(),
    }
}

/// A WebSocket opens at any path: Node, Python and C ask for a hub's, .NET for `/`, Java for `/mqtt`.
async fn anywhere(
    State(http): State<Http>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Response, HttpError> {
    websocket::offer(&http.mqtt, connection.peer().clone(), request).map_err(
        |refused| match refused {
            Refused::NoWebSocket => Error::new(Code::NotFound, "There is no such path.").into(),
            Refused::NoMqtt => Error::invalid(refused.to_string()).into(),
            Refused::Full => HttpError::other(StatusCode::SERVICE_UNAVAILABLE, refused.to_string()),
        },
    )
}

/// The words of a path that an id follows.
const BEFORE_ID: [&str; 4] = [
    "enrollments",
    "enrollmentgroups",
    "registrations",
    "operations",
];
