//! What operators touch: health, metrics, tokens, devices. Plain HTTP on loopback.
//!
//! A web page that a browser on this machine shows could send requests here too. So a request must name a loopback
//! host, which a rebound DNS name is not, must come without `Origin`, which browsers add, and must carry the admin
//! token, except for the two health checks.

pub(crate) mod readiness;
mod shown;

use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime},
};

use api::{Code, Object};
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use iothub::{HubName, Identity, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use store::{
    DeadLetter, InboxEntry, Page, Partition, Scopes, Store, TokenId, TokenOrigin, TokenRecord,
};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;

use self::{
    readiness::Listeners,
    shown::{
        CreateToken, CreatedToken, ShownDeadLetter, ShownDeadLetters, ShownDevice, ShownInbox,
        ShownToken, ShownTokens,
    },
};
use super::{
    answer::{self, Answer},
    body::Bodies,
    extract::{self, BadRequest},
    finish,
    listen::Application,
    problem::Refusal,
    request_id::RequestIds,
    tokens,
};
use crate::{
    RenderMetrics, ReportHubs, Stop,
    auth::{AuthError, Credential},
    config::{Config, Limits, ServedName},
    metrics::Metrics,
    tokens::FreshToken,
};

/// The admin API.
pub(crate) struct Admin {
    store: Store,
    /// The hubs whose devices may be named.
    hubs: Vec<HubName>,
    token: SecretString,
    render_metrics: RenderMetrics,
    report_hubs: ReportHubs,
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
        let query = Query(parts.uri.query().unwrap_or_default());
        match (path.as_slice(), &parts.method) {
            (["healthz"], &Method::GET) => return Ok(text("ok\n")),
            (["readyz"], &Method::GET) => return self.ready().await,
            (["healthz" | "readyz"], _) => return Err(other_methods("GET")),
            _ => self.authenticate(&parts)?,
        }
        match (path.as_slice(), &parts.method) {
            (["metrics"], &Method::GET) => Ok(answer::bytes(PROMETHEUS, (self.render_metrics)())),
            (["admin", "v1", "tokens"], &Method::POST) => {
                let Object(asked) = self.bodies.json(body, self.limits.json_bytes).await?;
                self.create_token(asked).await
            }
            (["admin", "v1", "tokens"], &Method::GET) => {
                self.list_tokens(&self.asked(None, &query)?).await
            }
            (["admin", "v1", "tokens", id], &Method::DELETE) => {
                self.revoke_token(&self.asked(None, &query)?, id).await
            }
            (["admin", "v1", "devices", device], &Method::GET) => {
                self.show_device(&self.asked(Some(device), &query)?).await
            }
            (["admin", "v1", "devices", device, "dead-letters"], &Method::GET) => {
                self.list_dead_letters(&self.asked(Some(device), &query)?)
                    .await
            }
            (["admin", "v1", "tokens"], _) => Err(other_methods("GET, POST")),
            (["admin", "v1", "tokens", _], _) => Err(other_methods("DELETE")),
            (
                ["metrics"]
                | ["admin", "v1", "devices", _]
                | ["admin", "v1", "devices", _, "dead-letters"],
                _,
            ) => Err(other_methods("GET")),
            _ => Err(Refusal::new(
                Code::NotFound,
                "the admin API has no such path",
            )),
        }
    }

    fn authenticate(&self, parts: &http::request::Parts) -> Result<(), Refusal> {
        let credential = parts
            .headers
            .get(header::AUTHORIZATION)
            .ok_or(AuthError::Missing)?;
        let Credential::Token(given) = Credential::parse(credential)? else {
            return Err(AuthError::Scheme.into());
        };
        if bool::from(
            given
                .as_bytes()
                .ct_eq(self.token.expose_secret().as_bytes()),
        ) {
            Ok(())
        } else {
            Err(AuthError::Unknown.into())
        }
    }

    async fn create_token(&self, asked: CreateToken) -> Result<Answer, Refusal> {
        let identity =
            self.identity(asked.hub.as_deref(), &asked.device, asked.module.as_deref())?;
        if self.store.registry.device(&identity).await?.is_none() {
            return Err(not_served());
        }
        let fresh = FreshToken::new().map_err(|error| {
            Refusal::new(
                Code::Internal,
                format!("no randomness for a token: {error}"),
            )
        })?;
        let created_at = now();
        let expires_at = asked
            .lifetime_s
            .map(|seconds| created_at.saturating_add(Duration::from_secs(seconds)));
        let record = TokenRecord {
            id: fresh.id,
            identity,
            hash: fresh.hash,
            created_at,
            expires_at,
            scopes: tokens::known(&asked.scope).unwrap_or(Scopes::ALL),
            origin: TokenOrigin::Operator,
        };
        self.store.registry.put_token(record.clone()).await?;
        let created = CreatedToken {
            token: fresh.token.expose_secret(),
            shown: record.into(),
        };
        Ok(answer::document(
            StatusCode::CREATED,
            api::media_type::JSON,
            &created,
        ))
    }

    async fn list_tokens(&self, identity: &Identity) -> Result<Answer, Refusal> {
        let tokens = self.store.registry.tokens(identity).await?;
        Ok(answer::json(&ShownTokens {
            tokens: tokens.into_iter().map(ShownToken::from).collect(),
        }))
    }

    async fn revoke_token(&self, identity: &Identity, id: &str) -> Result<Answer, Refusal> {
        let id = TokenId(extract::decode(id)?.into_owned());
        if self.store.registry.revoke_token(identity, &id).await? {
            Ok(answer::empty(StatusCode::NO_CONTENT))
        } else {
            Err(Refusal::new(
                Code::NotFound,
                "the device has no token of this id",
            ))
        }
    }

    async fn show_device(&self, identity: &Identity) -> Result<Answer, Refusal> {
        let record = self
            .store
            .registry
            .device(identity)
            .await?
            .ok_or_else(not_served)?;
        let status = self.store.signals.status(identity).await?;
        let view = self.store.inbox.read(identity).await?;
        let messages = view
            .entries
            .iter()
            .filter(|entry| matches!(entry, InboxEntry::Message(_)))
            .count();
        Ok(answer::json(&ShownDevice {
            identity: record.identity.into(),
            custody: record.custody,
            method_policy: record.method_policy,
            pinned: record.is_pinned,
            session: status.into(),
            inbox: ShownInbox {
                messages,
                methods: view.entries.len() - messages,
                desired_version: view.desired.map(|desired| desired.section.version.0),
            },
        }))
    }

    async fn list_dead_letters(&self, identity: &Identity) -> Result<Answer, Refusal> {
        let partition = Partition::of(identity);
        let mut dead_letters = Vec::new();
        let mut after = None;
        loop {
            let page: Page<DeadLetter> = self
                .store
                .inbox
                .dead_letters(partition, after.as_deref())
                .await?;
            let own = page
                .items
                .into_iter()
                .filter(|letter| letter.identity == *identity);
            dead_letters.extend(own.map(ShownDeadLetter::from));
            after = page.next;
            if after.is_none() {
                return Ok(answer::json(&ShownDeadLetters { dead_letters }));
            }
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

fn other_methods(allow: &'static str) -> Refusal {
    Refusal::new(
        Code::MethodNotAllowed,
        "the path has other methods, which Allow lists",
    )
    .with_allow(HeaderValue::from_static(allow))
}

fn text(body: &'static str) -> Answer {
    answer::bytes("text/plain; charset=utf-8", body)
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// The text format of Prometheus.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
