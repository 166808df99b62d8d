//! The HTTPS side: the hub's service REST API, its device API, and `/emulator/...` for what a real hub does otherwise.
//!
//! A request passes three doors before its handler: the host check, the right of its route, the size and time of its body.
//! Between the first two stand the faults and throttles of `trouble`.
//! The right to a route of the device API depends on whom the path names, so its handlers ask for it themselves.
//! Any `api-version` is taken, and none is as well: a real hub wants one.

mod access;
mod answer;
mod authentication;
mod bulk;
mod certificates;
mod device_api;
mod devices;
mod extract;
mod faults;
mod feedback;
mod files;
mod jobs;
mod messages;
mod methods;
mod modules;
mod path;
mod query;
mod storage;
mod telemetry;
mod trouble;
mod twins;
mod unsupported;
mod usage;
mod websocket;

use std::sync::Arc;

use axum::{
    Router,
    http::StatusCode,
    middleware,
    routing::{any, delete, get, post, put},
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::sync::Semaphore;

use self::{access::Door, answer::HttpError};
pub(crate) use self::{
    access::{Access, check_host},
    answer::{close_after_refusal, guid},
    extract::{Unread, read_body},
    path::into_spelling,
};
use crate::{
    Limits,
    hub::Right,
    listen::Accepted,
    mqtt,
    shell::{Served, Shell},
    websocket::Connection,
};

/// What handlers work with.
#[derive(Clone)]
struct Http {
    shell: Arc<Shell>,
    mqtt: mqtt::Server<Served>,
    access: Arc<Access>,
    limits: Limits,
    /// Places for the bodies of files.
    uploads: Arc<Semaphore>,
}

/// All routes. Each stands behind the right that it needs ("Control access to IoT Hub by using shared access signatures").
pub(crate) fn router(
    shell: Arc<Shell>,
    mqtt: mqtt::Server<Served>,
    access: Access,
    limits: Limits,
) -> Router {
    let http = Http {
        shell,
        mqtt,
        access: Arc::new(access),
        limits,
        uploads: Arc::new(Semaphore::new(UPLOADS)),
    };
    let behind = |door: Door, routes: Router<Http>| {
        let access = Arc::clone(&http.access);
        let shell = Arc::clone(&http.shell);
        routes.route_layer(middleware::from_fn(move |request, next| {
            access::check_right(Arc::clone(&access), Arc::clone(&shell), door, request, next)
        }))
    };
    let registry_read = Router::new()
        .route("/devices", get(devices::list))
        .route("/devices/{id}", get(devices::read))
        .route("/devices/{id}/modules", get(modules::list))
        .route("/devices/{id}/modules/{module}", get(modules::read))
        .route("/statistics/devices", get(devices::count))
        .route("/statistics/service", get(devices::count_connected));
    let registry_write = Router::new()
        .route("/devices", post(bulk::apply))
        .route("/devices/{id}", put(devices::write).delete(devices::remove))
        .route(
            "/devices/{id}/modules/{module}",
            put(modules::write).delete(modules::remove),
        );
    let twin = || get(twins::read).patch(twins::merge).put(twins::replace);
    let service_connect = Router::new()
        .route("/devices/{id}", post(query::run))
        .route(
            "/devices/{id}/messages/devicebound",
            post(messages::send_undocumented),
        )
        .route("/messages/servicebound/feedback", get(feedback::receive))
        .route(
            "/messages/servicebound/feedback/{lock}",
            delete(feedback::complete),
        )
        .route(
            "/messages/servicebound/feedback/{lock}/abandon",
            post(feedback::abandon),
        )
        .route("/jobs/v2/query", get(jobs::list))
        .route("/jobs/v2/{id}", get(jobs::read).put(jobs::schedule))
        .route("/jobs/v2/{id}/cancel", post(jobs::cancel))
        .merge(unsupported())
        .route("/devices/{id}/commands", delete(messages::purge))
        .route("/twins/{id}", twin())
        .route("/twins/{id}/modules/{module}", twin())
        .route("/twins/{id}/methods", post(methods::invoke))
        .route(
            "/twins/{id}/modules/{module}/methods",
            post(methods::invoke),
        );
    let emulator = Router::new()
        .route("/emulator/devices/{id}/messages", post(messages::send))
        .route(
            "/emulator/certificates",
            get(certificates::list).post(certificates::add),
        )
        .route(
            "/emulator/certificates/{thumbprint}",
            delete(certificates::remove),
        )
        .route("/emulator/telemetry", get(telemetry::read))
        .route("/emulator/usage", get(usage::read))
        .route("/emulator/files", get(files::list))
        .route("/emulator/files/{*blob}", get(files::read))
        .route("/emulator/file-notifications", get(files::notifications))
        .route("/emulator/feedback", get(feedback::read))
        .route(
            "/emulator/faults",
            get(faults::list)
                .post(faults::inject)
                .delete(faults::clear_all),
        )
        .route("/emulator/faults/{id}", delete(faults::clear));
    let device_api = Router::new()
        .route("/devices/{id}/messages/events", post(device_api::send))
        .route(
            "/devices/{id}/modules/{module}/messages/events",
            post(device_api::send),
        )
        .route(
            "/devices/{id}/messages/devicebound",
            get(device_api::receive),
        )
        .route(
            "/devices/{id}/messages/devicebound/{lock}",
            delete(device_api::complete),
        )
        .route(
            "/devices/{id}/messages/devicebound/{lock}/abandon",
            post(device_api::abandon),
        )
        .route("/devices/{id}/files", post(files::begin))
        .route("/devices/{id}/files/notifications", post(files::end))
        .route(
            "/devices/{id}/files/notifications/{correlation}",
            post(files::end),
        )
        // The token in the query is the right to it.
        .route("/uploads/{*blob}", put(storage::write).get(storage::read));
    let routes = Router::new()
        .route("/$iothub/websocket", get(websocket::open))
        .merge(device_api)
        .merge(behind(Door::Service(Right::RegistryRead), registry_read))
        .merge(behind(Door::Service(Right::RegistryWrite), registry_write))
        .merge(behind(
            Door::Service(Right::ServiceConnect),
            service_connect,
        ))
        .merge(behind(Door::Emulator, emulator))
        .method_not_allowed_fallback(|| async {
            HttpError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "This path has other methods.",
            )
        })
        .fallback(|| async {
            HttpError::new(StatusCode::NOT_FOUND, "NotFound", "There is no such path.")
        })
        .with_state(http.clone());
    // A layer of the routes themselves would come after routing.
    Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn_with_state(http.clone(), trouble::meet))
        .layer(middleware::map_request(path::into_one_spelling))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&http.access),
            check_host,
        ))
        .layer(middleware::map_response(answer::add_request_id))
        .layer(middleware::from_fn(close_after_refusal))
}

/// What a hub has and this one has not: refused with its name, so that nobody searches for a wrong path.
fn unsupported() -> Router<Http> {
    let (jobs, configurations, twins) = (
        "Import and export jobs",
        "Configurations and deployments",
        "Digital twins",
    );
    [
        ("/jobs", jobs),
        ("/jobs/{id}", jobs),
        ("/configurations", configurations),
        ("/configurations/{*rest}", configurations),
        ("/devices/{id}/applyconfigurationcontent", configurations),
        ("/digitaltwins/{*rest}", twins),
    ]
    .into_iter()
    .fold(Router::new(), |routes, (path, what)| {
        routes.route(path, any(move || async move { unsupported::refuse(what) }))
    })
}

/// Serves one connection, HTTP/1.1 or HTTP/2, until its end or shutdown; then what it was upgraded to, if it was.
///
/// Handlers find the connection as an extension of the request.
pub(crate) async fn serve(accepted: Accepted, router: Router, limits: Limits) {
    let Accepted {
        stream,
        peer,
        slot,
        stop,
    } = accepted;
    let connection = Connection::new(peer, stop.clone());
    let router = TowerToHyperService::new(router);
    let service = service_fn({
        let connection = connection.clone();
        move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(connection.clone());
            hyper::service::Service::call(&router, request)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .keep_alive_interval(limits.headers)
        .keep_alive_timeout(limits.headers);
    // Boxed, so that an upgraded connection does not keep the room of HTTP.
    let mut http = Box::pin(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = connection.until_cut() => return,
        () = stop.cancelled() => {
            http.as_mut().graceful_shutdown();
            http.as_mut().await
        }
    };
    drop(http);
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTPS connection ended early");
    }
    if let Some(upgrade) = connection.take_upgrade() {
        drop(slot);
        upgrade.run(limits.websocket_message_bytes).await;
    }
}

/// Files of which the bodies are read at a time; more wait.
const UPLOADS: usize = 4;
/// Requests at a time on one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 100;
