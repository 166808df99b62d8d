//! A device that speaks nothing but HTTPS, and writes down what it sends and is answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use parking_lot::Mutex;
use reqwest::{
    Method, RequestBuilder,
    header::{AUTHORIZATION, HeaderMap},
};
use serde_json::Value;
use tokio::{sync::watch, time::timeout};

use crate::{
    history::{Kind, Promise, Recorder},
    rig::{Credentials, Rig},
    workload::receipts::Sampled,
};

/// A device.
#[derive(Clone)]
pub(crate) struct Device {
    /// Its name; a module's has that of its device before it.
    pub(crate) id: String,
    /// How the gateway treats it.
    pub(crate) kind: Kind,
    /// What it sees is written here.
    pub(crate) recorder: Recorder,
    /// The receipts that are looked at.
    pub(crate) receipts: Sampled,
    http: reqwest::Client,
    /// What it has for `Authorization`.
    authorization: String,
    port: watch::Receiver<Option<u16>>,
    rng: Arc<Mutex<fastrand::Rng>>,
    names: Arc<AtomicU64>,
}

/// What a device was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    headers: HeaderMap,
    /// The body, if it is JSON.
    pub(crate) body: Value,
    /// The body's bytes.
    pub(crate) bytes: Vec<u8>,
}

/// What an answer says of one thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// It is promised.
    Promised(Promise, Option<String>),
    /// It is not, says this status.
    Refused(u16),
}

impl Device {
    /// The devices of a rig; what they do at random comes from the seed.
    pub(crate) fn of(rig: &Rig, seed: u64) -> Result<Vec<Self>> {
        let receipts = Sampled::default();
        let device = |(number, credentials): (u64, &Credentials)| {
            Ok(Self {
                id: credentials.id.clone(),
                kind: credentials.kind,
                recorder: rig.recorder.clone(),
                receipts: receipts.clone(),
                http: rig.client(number % 2 == 0)?,
                authorization: credentials.authorization.clone(),
                port: rig.port(),
                rng: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed ^ (number << 32)))),
                names: Arc::default(),
            })
        };
        (0..).zip(&rig.devices).map(device).collect()
    }

    /// Does something at random.
    pub(crate) fn by_chance<R>(&self, act: impl FnOnce(&mut fastrand::Rng) -> R) -> R {
        act(&mut self.rng.lock())
    }

    /// An idempotency key that nobody has had.
    pub(crate) fn new_key(&self) -> String {
        self.by_chance(|rng| format!("{:032x}", rng.u128(..)))
    }

    /// A number that no other request and no other message of this device has.
    pub(crate) fn number(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request when the gateway is there, and gives the answer; none if there was none. A gateway that is not
    /// there in time counts as one that gives no answer.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Option<Answer> {
        let port = self.until_there().await?;
        let whose = path_of(&self.id);
        let url = format!("https://localhost:{port}/{whose}/{path}");
        let request = { self.http.request(method, url) }.header(AUTHORIZATION, &self.authorization);
        let answer = shape(request).send().await.ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await.ok()?.to_vec();
        Some(Answer {
            status,
            headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            bytes,
        })
    }

    /// Waits until the gateway listens.
    async fn until_there(&self) -> Option<u16> {
        let mut port = self.port.clone();
        let there = port.wait_for(Option::is_some);
        let there = timeout(Duration::from_secs(60), there).await.ok()?;
        *there.ok()?
    }
}

impl Answer {
    /// A header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What it says as a whole.
    pub(crate) fn said(&self) -> Said {
        let promise = self.header("tombolo-delivery").and_then(promise_of);
        let receipt = self
            .header("location")
            .and_then(|path| path.rsplit('/').next());
        match (self.status, promise) {
            (200..300, Some(promise)) => Said::Promised(promise, receipt.map(str::to_owned)),
            (status, _) => Said::Refused(status),
        }
    }

    /// What it says of each of so many things, whose results stand in a member of the body.
    pub(crate) fn said_of_each(&self, member: &str, count: usize) -> Vec<Said> {
        match self.body[member].as_array() {
            Some(results) if self.status == 200 && results.len() == count => {
                results.iter().map(said_in).collect()
            }
            Some(_) | None => vec![Said::Refused(self.status); count],
        }
    }
}

/// What a result says.
pub(crate) fn said_in(result: &Value) -> Said {
    let status = result["status"].as_u64().unwrap_or_default();
    let promise = result["delivery"].as_str().and_then(promise_of);
    match (status, promise) {
        (200..300, Some(promise)) => {
            Said::Promised(promise, result["receipt"].as_str().map(str::to_owned))
        }
        (status, _) => Said::Refused(u16::try_from(status).unwrap_or_default()),
    }
}

/// Where the gateway has a device, or a module.
fn path_of(id: &str) -> String {
    match id.split_once('/') {
        Some((device, module)) => format!("devices/{device}/modules/{module}"),
        None => format!("devices/{id}"),
    }
}

fn promise_of(text: &str) -> Option<Promise> {
    match text {
        "hub" => Some(Promise::Hub),
        "stored" => Some(Promise::Stored),
        "gateway" => Some(Promise::Gateway),
        _ => None,
    }
}
