//! What operators touch: health, metrics, tokens, devices, what is stored. Plain HTTP on loopback.
//!
//! A web page that a browser on this machine shows could send requests here too. So a request must name a loopback
//! host, which a rebound DNS name is not, must come without `Origin`, which browsers add, and must carry the admin
//! token, except for the two health checks.

mod call;
mod dead_letters;
mod devices;
pub(crate) mod readiness;
mod shown;
mod stock;
mod tokens;
mod walk;

use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::SystemTime};

use api::{Code, Object};
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, Request, header};
use hyper::body::Incoming;
use iothub::{HubName, Identity, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use store::Store;
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;

use self::{call::Call, readiness::Listeners};
use super::{
    answer::{self, Answer},
    body::Bodies,
    extract::{self, BadRequest},
    finish,
    listen::Application,
    problem::Refusal,
    request_id::RequestIds,
};
use crate::{
    RenderMetrics, ReportDisk, ReportHubs, Stop,
    auth::Credential,
    config::{Config, Limits, ServedName},
    metrics::Metrics,
};

/// The admin API.
pub(crate) struct Admin {
    store: Store,
    /// The hubs whose devices may be named.
    hubs: Vec<HubName>,
    token: SecretString,
    render_metrics: RenderMetrics,
    report_hubs: ReportHubs,
    report_disk: ReportDisk,
    listeners: Arc<Listeners>,
    limits: Limits,
    bodies: Bodies,
    request_ids: RequestIds,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
}

impl Admin {
    pub(crate) fn new(
        config: &Config,
        parts: crate::Parts,
        metrics: Arc<Metrics>,
        listeners: Arc<Listeners>,
        stop: &Stop,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            store: parts.store,
            hubs: parts.hubs,
            token: parts.admin_token,
            render_metrics: parts.render_metrics,
            report_hubs: parts.report_hubs,
            report_disk: parts.report_disk,
            listeners,
            limits: config.limits.clone(),
            bodies: Bodies::new(
                config.limits.body_bytes_in_all,
                config.waits.clone(),
                stop.last_call.clone(),
            ),
            request_ids: RequestIds::new()?,
            metrics,
            stopping: stop.stopping.clone(),
        })
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let (parts, body) = request.into_parts();
        extract::check_head(&parts, &self.limits)?;
        extract::check_host(&parts, &loopback_names())?;
        if parts.headers.contains_key(header::ORIGIN) {
            return Err(Refusal::new(
                Code::Forbidden,
                "the admin API does not answer web pages",
            ));
        }
        let path: Vec<&str> = parts
            .uri
            .path()
            .trim_start_matches('/')
            .trim_end_matches('/')
            .split('/')
            .collect();
        let call = Call::of(&path);
        if !call.as_ref().is_some_and(Call::is_open_to_all) {
            self.authenticate(&parts)?;
        }
        let Some(call) = call else {
            return Err(Refusal::new(
                Code::NotFound,
                "the admin API has no such path",
            ));
        };
        let query = Query(parts.uri.query().unwrap_or_default());
        match (call, &parts.method) {
            (Call::Health, &Method::GET) => Ok(text("ok\n")),
            (Call::Ready, &Method::GET) => self.ready().await,
            (Call::Metrics, &Method::GET) => {
                self.measure_stock().await;
                Ok(answer::bytes(PROMETHEUS, (self.render_metrics)()))
            }
            (Call::Tokens, &Method::POST) => {
                let Object(asked) = self.bodies.json(body, self.limits.json_bytes).await?;
                self.create_token(asked).await
            }
            (Call::Tokens, &Method::GET) => self.list_tokens(&self.asked(None, &query)?).await,
            (Call::Token(id), &Method::DELETE) => {
                self.revoke_token(&self.asked(None, &query)?, id).await
            }
            (Call::Store, &Method::GET) => self.show_store().await,
            (Call::Backlog, &Method::GET) => self.list_backlog(&query).await,
            (Call::Device(device), &Method::GET) => {
                self.show_device(&self.asked(Some(device), &query)?).await
            }
            (Call::DeadLetters(side), &Method::GET) => self.list_dead_letters(side, &query).await,
            (Call::DeadLettersOf(device, side), &Method::GET) => {
                let identity = self.asked(Some(device), &query)?;
                self.list_dead_letters_of(&identity, side, &query).await
            }
            (Call::ReplayAll(device, side), &Method::POST) => {
                self.replay_all(&self.asked(Some(device), &query)?, side)
                    .await
            }
            (Call::DeadLetter(device, side, id), &Method::GET) => {
                let identity = self.asked(Some(device), &query)?;
                self.read_dead_letter(&identity, side, id).await
            }
            (Call::DeadLetter(device, side, id), &Method::DELETE) => {
                let identity = self.asked(Some(device), &query)?;
                self.discard(&identity, side, id).await
            }
            (Call::Replay(device, side, id), &Method::POST) => {
                let identity = self.asked(Some(device), &query)?;
                self.replay(&identity, side, id).await
            }
            (call, _) => Err(Refusal::new(
                Code::MethodNotAllowed,
                "the path has other methods, which Allow lists",
            )
            .with_allow(HeaderValue::from_static(call.allow()))),
        }
    }

    fn authenticate(&self, parts: &http::request::Parts) -> Result<(), Refusal> {
        let Some(credential) = parts.headers.get(header::AUTHORIZATION) else {
            return Err(Refusal::new(Code::Unauthenticated, NO_TOKEN));
        };
        let is_right = match Credential::parse(credential) {
            Ok(Credential::Token(given)) => given
                .as_bytes()
                .ct_eq(self.token.expose_secret().as_bytes())
                .into(),
            Ok(Credential::Signature(_)) | Err(_) => false,
        };
        if is_right {
            Ok(())
        } else {
            Err(Refusal::new(Code::Unauthenticated, WRONG_TOKEN))
        }
    }

    /// The identity that a request names: the device in the path or the query, all else in the query.
    fn asked(&self, device: Option<&str>, query: &Query<'_>) -> Result<Identity, Refusal> {
        let device = match device {
            Some(device) => extract::decode(device)?,
            None => query
                .get("device")?
                .ok_or_else(|| Refusal::new(Code::InvalidRequest, "the query needs device=..."))?,
        };
        self.identity(
            query.get("hub")?.as_deref(),
            &device,
            query.get("module")?.as_deref(),
        )
    }

    fn identity(
        &self,
        hub: Option<&str>,
        device: &str,
        module: Option<&str>,
    ) -> Result<Identity, Refusal> {
        let hub = match (hub, self.hubs.as_slice()) {
            (None, [only]) => only,
            (None, _) => {
                return Err(Refusal::new(
                    Code::InvalidRequest,
                    "this gateway serves several hubs: name one",
                ));
            }
            (Some(name), hubs) => hubs
                .iter()
                .find(|hub| hub.as_str().eq_ignore_ascii_case(name))
                .ok_or_else(|| Refusal::new(Code::NotFound, "this gateway serves no such hub"))?,
        };
        let device = device.parse().map_err(|error| BadRequest::Id {
            what: "device",
            error,
        })?;
        let module = module
            .map(str::parse)
            .transpose()
            .map_err(|error| BadRequest::Id {
                what: "module",
                error,
            })?;
        Ok(match module {
            None => Identity::device(hub.clone(), device),
            Some(module) => Identity::module(hub.clone(), device, module),
        })
    }
}

impl Application for Admin {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, _source: IpAddr) -> Answer {
        let responded = AssertUnwindSafe(self.respond(request)).catch_unwind().await;
        finish(responded, self.request_ids.next(), &self.metrics)
    }
}

/// A query with percent-encoded values.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn get(&self, name: &str) -> Result<Option<std::borrow::Cow<'a, str>>, BadRequest> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs
            .into_iter()
            .find_map(|(key, value)| (key == name).then_some(value));
        value.map(extract::decode).transpose()
    }
}

fn loopback_names() -> [ServedName; 3] {
    [
        ServedName::Host("localhost".into()),
        ServedName::Ip(std::net::Ipv4Addr::LOCALHOST.into()),
        ServedName::Ip(std::net::Ipv6Addr::LOCALHOST.into()),
    ]
}

fn not_served() -> Refusal {
    Refusal::new(
        Code::NotFound,
        "this gateway serves no such device: add it to the configuration",
    )
}

fn text(body: &'static str) -> Answer {
    answer::bytes("text/plain; charset=utf-8", body)
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

const NO_TOKEN: &str = "the admin API wants its token: send \"Authorization: Bearer ...\" with what the file of \
     admin.token_file holds";
const WRONG_TOKEN: &str =
    "this is not the token of the admin API: the file of admin.token_file holds the right one";
/// The text format of Prometheus.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
