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
//! 3. the credential (401, or 429 once too many have failed): nothing about ids is said to a stranger. A shared access
//!    signature is judged for the ids in the path, so there their form (400) comes first
//! 4. the ids in the path: their form (400), then whether they are the credential's own, or a module of its device
//!    (403). Whether another device exists is never looked up, so it cannot show; whether a device has a module may be
//!    known to the device (404)
//! 5. whether the credential's scope covers the call (403) and whether it is served (501), the device's limit (429), and
//!    then what the call itself asks for
//!
//! The router is ours because the usual ones decode a path before they match it, and match it exactly: IoT Hub's
//! clients rely on the opposite of both.

mod admin;
mod answer;
mod batch;
mod body;
mod extract;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod in_flight;
mod inbox;
mod key;
pub(crate) mod listen;
mod messages;
mod methods;
mod once;
mod problem;
mod pulse;
mod receipts;
mod remembered;
mod request_id;
mod route;
mod sync;
mod telemetry;
pub(crate) mod tls;
mod tokens;
mod twin;

use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Instant, SystemTime},
};

use api::{Code, Operation, Stage};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Request, Version, header, request::Parts};
use hyper::body::{Body as _, Incoming};
use iothub::{ErrorCode, Timestamp};
use store::Registry;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, debug, debug_span, field::Empty};

pub(crate) use self::{
    admin::{Admin, readiness::Listeners},
    problem::Refusal,
};
use self::{
    answer::Answer,
    body::Bodies,
    extract::DeviceRequest,
    in_flight::InFlight,
    key::KeyOfHead,
    listen::Application,
    once::Keys,
    request_id::{RequestId, RequestIds},
    route::{Call, Route},
};
use crate::{
    Stop,
    auth::{self, AuthError, Authenticator, Credential, Failures, Grant, Proof},
    config::{Config, Limits, ServedName, Waits},
    delivery::Delivery,
    devices::{Devices, Terms},
    metrics::Metrics,
    tokens::Tokens,
};

/// The device API.
pub(crate) struct Gateway {
    names: Vec<ServedName>,
    limits: Limits,
    waits: Waits,
    registry: Arc<dyn Registry>,
    authenticator: Authenticator,
    failures: Failures,
    devices: Arc<Devices>,
    delivery: Delivery,
    tokens: Tokens,
    keys: Arc<Keys>,
    in_flight: Arc<InFlight>,
    bodies: Bodies,
    request_ids: RequestIds,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
    openapi: Bytes,
}

impl Gateway {
    pub(crate) fn new(
        config: &Config,
        parts: &crate::Parts,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        stop: &Stop,
    ) -> Result<Self, getrandom::Error> {
        let store = &parts.store;
        Ok(Self {
            names: config.names.clone(),
            limits: config.limits.clone(),
            waits: config.waits.clone(),
            registry: store.registry.clone(),
            authenticator: Authenticator::new(
                store.registry.clone(),
                store.judge.clone(),
                parts.hubs.clone(),
                config.names.clone(),
            ),
            failures: Failures::new(config.limits.failed_credentials),
            keys: Arc::new(Keys::new(
                store.registry.clone(),
                tasks.clone(),
                config.waits.most,
            )),
            devices: Arc::new(Devices::new(store.clone(), tasks, stop.last_call.clone())?),
            delivery: Delivery::new(store.clone(), stop.stopping.clone(), config.waits.hub),
            tokens: Tokens::new(store.registry.clone(), config.limits.bought_tokens),
            in_flight: InFlight::new(config.limits.requests, config.limits.requests_per_device),
            bodies: Bodies::new(
                config.limits.body_bytes_in_all,
                config.waits.clone(),
                stop.last_call.clone(),
            ),
            request_ids: RequestIds::new()?,
            metrics,
            stopping: stop.stopping.clone(),
            openapi: api::openapi_json().into(),
        })
    }

    /// How a write is to be carried out, its key aside. For a device that is passed through, what opens its session is kept
    /// before anything is promised; a token that is kept already costs a look.
    async fn terms(&self, request: &DeviceRequest) -> Result<Terms, Refusal> {
        let mut terms = request.terms(&self.waits)?;
        if !terms.may_be_stored {
            terms.may_be_stored = self.devices.keeps_token(request.identity()).await;
        }
        Ok(terms)
    }

    /// Answers a request, or says why not. `operation` is set as soon as it is known.
    async fn respond(
        &self,
        request: Request<Incoming>,
        source: IpAddr,
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
        let grant = self.authenticate(&parts, &call, source).await?;
        if !tokens::is_open(call.operation.scopes(), grant.scopes) {
            return Err(Refusal::new(
                Code::Forbidden,
                "the token does not have the scope that the call needs",
            ));
        }
        if call.operation.stage() == Stage::Planned {
            return Err(Refusal::new(
                Code::NotImplemented,
                "this version does not serve the call yet",
            ));
        }
        let _of_device = self.in_flight.enter_device(&grant.identity)?;
        let item = extract::decode(call.item.unwrap_or_default())?.into_owned();
        let operation = call.operation;
        let key = if operation.takes_idempotency_key() {
            KeyOfHead::read(&parts.headers, &parts.uri, operation, &item)?
        } else {
            None
        };
        let request = DeviceRequest {
            grant,
            item,
            headers: parts.headers,
            uri: parts.uri,
            key,
            body,
        };
        self.carry_out(operation, request).await
    }

    /// Finds out whom the request is for and what its credential allows. A credential that has failed is counted.
    async fn authenticate(
        &self,
        parts: &Parts,
        call: &Call<'_>,
        source: IpAddr,
    ) -> Result<Grant, Refusal> {
        let (device, module) = (call.device.unwrap_or_default(), call.module);
        let credential = auth::credential(&parts.headers).and_then(Credential::parse);
        let granted = match credential {
            Ok(Credential::Token(token)) => self.authenticator.token(token, now()).await,
            Ok(Credential::Signature(text)) => {
                let (device, module) = extract::ids(device, module)?;
                self.authenticator.signature(text, device, module).await
            }
            Err(error) => Err(error),
        };
        let grant = match granted {
            Ok(grant) => self.narrow(grant, device, module).await?,
            Err(error) => return Err(self.refuse(error, device, source)),
        };
        tracing::Span::current().record("device", tracing::field::display(&grant.identity));
        Ok(grant)
    }

    /// Makes a grant one for the identity in the path: the credential's own, or a module of its device.
    async fn narrow(
        &self,
        mut grant: Grant,
        device: &str,
        module: Option<&str>,
    ) -> Result<Grant, Refusal> {
        let Proof::Token {
            is_passed_through, ..
        } = grant.proof
        else {
            // It was judged for the path.
            return Ok(grant);
        };
        let named = extract::named(&grant.identity, device, module)?;
        if named != grant.identity {
            // What the gateway holds no key for, only the hub knows.
            if !is_passed_through && self.registry.device(&named).await?.is_none() {
                let refusal = Refusal::new(Code::NotFound, "the gateway serves no such module");
                return Err(refusal.with_hub_error(ErrorCode::ModuleNotFound));
            }
            grant.identity = named;
        }
        Ok(grant)
    }

    fn refuse(&self, error: AuthError, device: &str, source: IpAddr) -> Refusal {
        if error.is_failed_attempt() {
            // In whatever way it is written, it is one device.
            let device = extract::decode(device).unwrap_or_else(|_| device.into());
            if let Err(too_many) = self.failures.count(&device, source, Instant::now()) {
                return too_many.into();
            }
        }
        error.into()
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
        // All but the most frequent are boxed: every request has room for the largest that is not.
        match operation {
            Operation::SendTelemetry => telemetry::send(self, request).await,
            Operation::ReceiveMessage => Box::pin(messages::receive(self, request)).await,
            Operation::CompleteMessage => Box::pin(messages::complete(self, request)).await,
            Operation::AbandonMessage => Box::pin(messages::abandon(self, request)).await,
            Operation::GetTwin => Box::pin(twin::read(self, request)).await,
            Operation::PatchReported => Box::pin(twin::patch_reported(self, request)).await,
            Operation::GetDesired => Box::pin(twin::desired(self, request)).await,
            Operation::ListMethods => Box::pin(methods::list(self, request)).await,
            Operation::AnswerMethod => Box::pin(methods::respond(self, request)).await,
            Operation::GetInbox => Box::pin(inbox::read(self, request)).await,
            Operation::Settle => Box::pin(inbox::settle(self, request)).await,
            Operation::Sync => Box::pin(sync::sync(self, request)).await,
            Operation::CreateToken => Box::pin(tokens::create(self, request)).await,
            Operation::GetReceipt => Box::pin(receipts::read(self, request)).await,
            Operation::GetOpenApi => Ok(self.openapi()),
            Operation::CreateUpload
            | Operation::ReportUpload
            | Operation::ReportUploadById
            | Operation::OpenStream
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
        source: IpAddr,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let gateway = self;
        let id = gateway.request_ids.next();
        let span = debug_span!("request", id = id.as_str(), device = Empty);
        async move {
            let start = Instant::now();
            gateway.metrics.requests_in_flight.increment(1.0);
            let _in_flight = Defer(|| gateway.metrics.requests_in_flight.decrement(1.0));
            let may_leave_body = may_leave_body(&request);
            let mut operation = None;
            // Boxed, because it is large, and this future is moved several times before it is polled.
            let respond = Box::pin(gateway.respond(request, source, &mut operation));
            let responded = AssertUnwindSafe(respond).catch_unwind().await;
            let mut answer = finish(responded, id, &gateway.metrics);
            if may_leave_body && !answer.status().is_success() {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
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
    with_common_headers(refusal.into_answer(id, now()), id)
}

/// Whether a refusal may come before the body is read, so that an HTTP/1.1 connection ends with it. A client that is not
/// told so sends its next request into a connection that closes. What is left of a small body is read and forgotten by
/// hyper; HTTP/2 ends the stream alone, and says so itself.
fn may_leave_body(request: &Request<Incoming>) -> bool {
    let is_large = |length| length > BODY_READ_AND_FORGOTTEN;
    request.version() <= Version::HTTP_11 && request.body().size_hint().upper().is_none_or(is_large)
}

fn with_common_headers(mut answer: Answer, id: RequestId) -> Answer {
    let headers = answer.headers_mut();
    let id =
        HeaderValue::from_str(id.as_str()).expect("a request id is hexadecimal digits and dashes");
    headers.insert(REQUEST_ID, id);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// Does something when it is dropped: at the end, or when the client goes away in the middle.
struct Defer<F: FnMut()>(F);

impl<F: FnMut()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Made at compile time: every answer has it.
const REQUEST_ID: HeaderName = HeaderName::from_static(api::header::REQUEST_ID);
/// Bytes of a body that come with its head or right behind it.
const BODY_READ_AND_FORGOTTEN: u64 = 4 * 1024;
