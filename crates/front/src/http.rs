//! The device API over HTTP.
//!
//! ```text
//!   listen --request--> Gateway::answer    host, head, route, credential, ids, limits
//!                         -> a handler     parses, calls one verb, shapes the answer
//!                         -> problem       the one mapping of what went wrong
//! ```
//!
//! The order of the checks is the same for every call, and each is made before the body is read:
//!
//! 1. the gateway's own limits (503), the head (400), the host (400, 421)
//! 2. path and method (404, 405): both are public knowledge
//! 3. the credential (401): nothing about ids is said to a stranger
//! 4. the ids in the path: their form (400), then whether they are the credential's own (403). Whether another device
//!    exists is never looked up, so it cannot show
//! 5. whether the call is served (501), the device's limit (429), and then what the call itself asks for
//!
//! The router is ours because the usual ones decode a path before they match it, and match it exactly: IoT Hub's
//! clients rely on the opposite of both.

mod admin;
mod answer;
mod extract;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod in_flight;
mod inbox;
pub(crate) mod listen;
mod messages;
mod methods;
mod problem;
mod pulse;
mod request_id;
mod route;
mod telemetry;
pub(crate) mod tls;
mod twin;

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Instant, SystemTime},
};

use api::{Code, Operation, Stage};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Request, header, request::Parts};
use hyper::body::Incoming;
use iothub::{Identity, Timestamp};
use store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, debug, debug_span, field::Empty};

pub(crate) use self::admin::Admin;
use self::{
    answer::Answer,
    extract::DeviceRequest,
    in_flight::InFlight,
    listen::Application,
    problem::Refusal,
    request_id::{RequestId, RequestIds},
    route::{Call, Route},
};
use crate::{
    auth,
    config::{Config, Limits, ServedName, Waits},
    delivery::Delivery,
    devices::Devices,
    metrics::Metrics,
};

/// The device API.
pub(crate) struct Gateway {
    names: Vec<ServedName>,
    limits: Limits,
    waits: Waits,
    store: Store,
    devices: Arc<Devices>,
    delivery: Delivery,
    in_flight: Arc<InFlight>,
    request_ids: RequestIds,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
    openapi: Bytes,
}

impl Gateway {
    pub(crate) fn new(
        config: &Config,
        store: Store,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            names: config.names.clone(),
            limits: config.limits.clone(),
            waits: config.waits.clone(),
            devices: Arc::new(Devices::new(store.clone(), tasks)?),
            delivery: Delivery::new(store.clone(), stopping.clone(), config.waits.hub),
            store,
            in_flight: InFlight::new(config.limits.requests, config.limits.requests_per_device),
            request_ids: RequestIds::new()?,
            metrics,
            stopping,
            openapi: api::openapi_json().into(),
        })
    }

    /// Answers a request, or says why not. `operation` is set as soon as it is known.
    async fn respond(
        &self,
        request: Request<Incoming>,
        operation: &mut Option<Operation>,
    ) -> Result<Answer, Refusal> {
        if self.stopping.is_cancelled() {
            return Err(Refusal::new(Code::Stopping, "the gateway is stopping"));
        }
        let _among_all = self.in_flight.enter()?;
        let (parts, body) = request.into_parts();
        extract::check_head(&parts, &self.limits)?;
        extract::check_host(&parts, &self.names)?;
        let call = match route::find(&parts.method, parts.uri.path()) {
            Route::Call(call) => call,
            Route::OtherMethods(allow) => {
                let refusal = Refusal::new(
                    Code::MethodNotAllowed,
                    "the path has other methods, which Allow lists",
                );
                return Err(refusal.with_allow(allow));
            }
            Route::Unknown => return Err(Refusal::new(Code::NotFound, "the API has no such path")),
        };
        *operation = Some(call.operation);
        if call.operation == Operation::GetOpenApi {
            return Ok(self.openapi());
        }
        let identity = self.authenticate(&parts).await?;
        extract::check_identity(&identity, call.device.unwrap_or_default(), call.module)?;
        if stage(&call) == Stage::Planned {
            return Err(Refusal::new(
                Code::NotImplemented,
                "this version does not serve the call yet",
            ));
        }
        let _of_device = self.in_flight.enter_device(&identity)?;
        let item = extract::decode(call.item.unwrap_or_default())?.into_owned();
        let operation = call.operation;
        let request = DeviceRequest {
            identity,
            item,
            headers: parts.headers,
            uri: parts.uri,
            body,
        };
        if operation.takes_idempotency_key() {
            request.check_idempotency_key()?;
        }
        self.carry_out(operation, request).await
    }

    async fn authenticate(&self, parts: &Parts) -> Result<Identity, Refusal> {
        let now = Timestamp::from(SystemTime::now());
        let identity = auth::authenticate(&*self.store.registry, &parts.headers, now).await?;
        tracing::Span::current().record("device", tracing::field::display(&identity));
        Ok(identity)
    }

    /// The one call that is for everybody.
    fn openapi(&self) -> Answer {
        answer::bytes(api::media_type::JSON, self.openapi.clone())
    }

    async fn carry_out(
        &self,
        operation: Operation,
        request: DeviceRequest,
    ) -> Result<Answer, Refusal> {
        match operation {
            Operation::SendTelemetry => telemetry::send(self, request).await,
            Operation::ReceiveMessage => messages::receive(self, request).await,
            Operation::CompleteMessage => messages::complete(self, request).await,
            Operation::AbandonMessage => messages::abandon(self, request).await,
            Operation::GetTwin => twin::read(self, request).await,
            Operation::PatchReported => twin::patch_reported(self, request).await,
            Operation::GetDesired => twin::desired(self, request).await,
            Operation::ListMethods => methods::list(self, request).await,
            Operation::AnswerMethod => methods::respond(self, request).await,
            Operation::GetInbox => inbox::read(self, request).await,
            Operation::Settle => inbox::settle(self, request).await,
            Operation::GetOpenApi => Ok(self.openapi()),
            Operation::CreateUpload
            | Operation::ReportUpload
            | Operation::ReportUploadById
            | Operation::OpenStream
            | Operation::Sync
            | Operation::CreateToken
            | Operation::GetReceipt
            | Operation::PutPush => Err(Refusal::new(
                Code::NotImplemented,
                "this version does not serve the call yet",
            )),
        }
    }
}

impl Application for Gateway {
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let gateway = self;
        let id = gateway.request_ids.next();
        let span = debug_span!("request", id = id.as_str(), device = Empty);
        async move {
            let start = Instant::now();
            gateway.metrics.requests_in_flight.increment(1.0);
            let _in_flight = Defer(|| gateway.metrics.requests_in_flight.decrement(1.0));
            let mut operation = None;
            let responded = AssertUnwindSafe(gateway.respond(request, &mut operation))
                .catch_unwind()
                .await;
            let answer = finish(responded, id, &gateway.metrics);
            gateway
                .metrics
                .answered(operation, answer.status(), start.elapsed().as_secs_f64());
            answer
        }
        .instrument(span)
    }
}

/// Makes an answer of whatever a handler came to, with what every answer has. `Date` is hyper's.
fn finish(
    responded: std::thread::Result<Result<Answer, Refusal>>,
    id: RequestId,
    metrics: &Metrics,
) -> Answer {
    let refusal = match responded {
        Ok(Ok(answer)) => return with_common_headers(answer, id),
        Ok(Err(refusal)) => refusal,
        Err(_) => {
            // The panic hook has said where. The message may hold what a client sent, so it is not repeated.
            metrics.panics.increment(1);
            Refusal::new(Code::Internal, "the gateway failed")
        }
    };
    metrics.problem(refusal.code());
    debug!(code = refusal.code().as_str(), "refused");
    with_common_headers(
        refusal.into_answer(id, Timestamp::from(SystemTime::now())),
        id,
    )
}

fn with_common_headers(mut answer: Answer, id: RequestId) -> Answer {
    let headers = answer.headers_mut();
    let id =
        HeaderValue::from_str(id.as_str()).expect("a request id is hexadecimal digits and dashes");
    headers.insert(HeaderName::from_static(api::header::REQUEST_ID), id);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}

/// Whether a call is served, for whom it is made.
const fn stage(call: &Call<'_>) -> Stage {
    match call.module {
        None => call.operation.stage(),
        Some(_) => call.operation.module_stage(),
    }
}

/// Does something when it is dropped: at the end, or when the client goes away in the middle.
struct Defer<F: FnMut()>(F);

impl<F: FnMut()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
