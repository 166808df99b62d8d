//! The same requests to the hub itself and to the gateway: wherever IoT Hub has the call, both answer the same.
//!
//! Each side has a device of its own, because a message that the gateway has in flight cannot be received at the hub. What
//! differs by nature (ids, locks, times) is brought to its form before it is compared. What differs on purpose stands in
//! [`MEANT`], each with its reason; a line there that nothing needs fails as well.
#![expect(clippy::unwrap_used, reason = "a test's way to fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};

use iothub::{Identity, Timestamp, sas, sas::Key};
use reqwest::{
    Method, Response,
    header::{AUTHORIZATION, HeaderMap},
};
use serde_json::Value;
use tombolo_system_tests::Rig;
use upstream::config::{DeviceConfig, KeySource};

/// What the gateway does otherwise than the hub, in which steps, and why.
const MEANT: &[Meant] = &[
    Meant {
        steps: ALL,
        parts: &["tombolo-delivery"],
        why: "says how far a write has come: to the hub, or to the gateway's disk",
    },
    Meant {
        steps: ALL,
        parts: &[
            "cache-control",
            "cache-control of an error",
            "x-content-type-options",
            "x-content-type-options of an error",
        ],
        why: "caches and browsers on the way shall leave messages alone",
    },
    Meant {
        steps: ALL,
        parts: &["content-type of an error"],
        why: "RFC 9457; the hub's members stand in the same document",
    },
    Meant {
        steps: ALL,
        parts: &["www-authenticate of an error"],
        why: "RFC 9110, section 11.6.1: a 401 has one",
    },
    Meant {
        steps: &["receive it", "receive it again"],
        parts: &["iothub-enqueuedtime", "iothub-expiry"],
        why: "RFC 3339, which needs no guess at the order of day and month; what form a hub has is known from one test of \
              Azure's command line tool only",
    },
    Meant {
        steps: &["a batch that is no JSON", "a batch that is no list"],
        parts: &["iothub-errorcode of an error", "body"],
        why: "a body that cannot be read has one code here, whatever it should have been",
    },
    Meant {
        steps: &["complete it again"],
        parts: &[
            "status",
            "iothub-errorcode of an error",
            "tombolo-delivery of an error",
            "body",
        ],
        why: "the first answer may have been lost on the way: to say the same again is no mistake",
    },
];

/// A difference that is meant.
struct Meant {
    /// Names of steps; none for all.
    steps: &'static [&'static str],
    parts: &'static [&'static str],
    why: &'static str,
}

const ALL: &[&str] = &[];

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_answers_as_the_hub_does() {
    let (hub, gateway) = ("side-a", "side-b");
    let key_source = || KeySource::Text(module_key().to_base64().into());
    let rig = Rig::builder()
        .device(hub)
        .device(gateway)
        .upstream(|config| {
            let mut module = DeviceConfig::new(gateway.parse().unwrap(), key_source());
            module.module = Some(MODULE.parse().unwrap());
            config.devices.push(module);
            config.gateway_names = vec!["localhost".to_owned()];
        })
        .start()
        .await;
    for device in [hub, gateway] {
        rig.add_module(device, MODULE, &module_key());
    }
    let mut sides = [
        Side::new(&rig, hub_port(&rig), hub),
        Side::new(&rig, rig.gateway.port(), gateway),
    ];

    let mut found = BTreeSet::new();
    let mut wrong = Vec::new();
    for step in steps() {
        let [at_hub, at_gateway] = &mut sides;
        let theirs = at_hub.take(&rig, &step).await;
        let ours = at_gateway.take(&rig, &step).await;
        for (part, theirs, ours) in differences(&theirs, &ours) {
            if let Some(meant) = Meant::find(step.name, &part) {
                found.insert((meant, part));
            } else {
                wrong.push(format!(
                    "{}: {part}: {theirs} there, {ours} here",
                    step.name
                ));
            }
        }
    }
    for (index, meant) in MEANT.iter().enumerate() {
        for part in meant.parts {
            if !found.contains(&(index, (*part).to_owned())) {
                wrong.push(format!("{part} does not differ at all: {}", meant.why));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

impl Meant {
    /// The place in the table of what covers a difference.
    fn find(step: &str, part: &str) -> Option<usize> {
        let covers = |meant: &Self| {
            meant.parts.contains(&part) && (meant.steps.is_empty() || meant.steps.contains(&step))
        };
        MEANT.iter().position(covers)
    }
}

/// One request, or a message that is sent down.
struct Step {
    name: &'static str,
    method: Method,
    /// Below `/`; `{d}` is the device, `{lock}` the lock that was given last.
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    credential: Credential,
    /// Whether the request is repeated until it is not answered 204: a message takes a moment through the gateway.
    waits: bool,
}

#[derive(Clone, Copy)]
enum Credential {
    Device,
    /// By the name under which the side was called.
    HostName,
    Module,
    WrongKey,
    Expired,
    OtherDevice,
    Policy,
    None,
}

fn steps() -> Vec<Step> {
    let mut steps = vec![
        post("one message", EVENTS).body("{\"t\":1}"),
        post("one with properties", EVENTS)
            .header("iothub-to", "/devices/{d}/messages/events")
            .header("IoTHub-MessageId", "id 1/:+")
            .header("iothub-contenttype", "application/json")
            .header("iothub-app-zeta", "a b")
            .body("x"),
        post("in other letters, with a slash", "Devices/{d}/Messages/Events/?api-version=2016-11-14"),
        post("by the host's name", EVENTS).by(Credential::HostName),
        post("a batch", EVENTS)
            .header("content-type", BATCH)
            .body(r#"[{"body":"eyJ0IjoxfQ==","properties":{"iothub-app-a":"b"}},{"body":"x","base64Encoded":false}]"#),
        post("a batch that is no JSON", EVENTS).header("content-type", BATCH).body("["),
        post("a batch that is no list", EVENTS).header("content-type", BATCH).body("{}"),
        post("a batch without a message", EVENTS).header("content-type", BATCH).body("[]"),
        post("a batch with a bad body", EVENTS)
            .header("content-type", BATCH)
            .body(r#"[{"body":"eA=="},{"body":"?"}]"#),
        post("a batch that is too large", EVENTS)
            .header("content-type", BATCH)
            .body(vec![b' '; LARGEST + 1]),
        post("the largest message", EVENTS).body(vec![0; LARGEST]),
        post("a message that is too large", EVENTS).body(vec![0; LARGEST + 1]),
        post("one that its properties make too large", EVENTS)
            .header("iothub-app-a", "b")
            .body(vec![0; LARGEST]),
        post("a message id that is too long", EVENTS).header("iothub-messageid", "m".repeat(129)),
        post("a device's message, by its module", EVENTS).body("x").by(Credential::Module),
        post("a module's message", MODULE_EVENTS).body("x").by(Credential::Module),
        post("a module's message, by its device", MODULE_EVENTS).body("x"),
        post("a bad id", "devices/a%2Fb/messages/events"),
        request("nothing waits", Method::GET, BOUND),
    ];
    for (name, credential) in [
        ("no credential", Credential::None),
        ("a wrong key", Credential::WrongKey),
        ("an expired token", Credential::Expired),
        ("another device's token", Credential::OtherDevice),
        ("a policy that may not", Credential::Policy),
    ] {
        steps.push(post(name, EVENTS).body("x").by(credential));
        steps.push(request(name, Method::GET, BOUND).by(credential));
    }
    steps.push(post("an unknown device", "devices/nobody/messages/events"));
    for seconds in ["0", "301", "x"] {
        let step = request("a bad time for a lock", Method::GET, BOUND);
        steps.push(step.header("iothub-messagelocktimeout", seconds));
    }
    steps.extend([
        down("a message for completion")
            .header("iothub-messageid", "m-1")
            .header("iothub-correlationid", "c")
            .header("iothub-userid", "u")
            .header("iothub-contenttype", "application/json")
            .header("iothub-contentencoding", "utf-8")
            .header("iothub-expiry", "2099-12-31T13:05:09Z")
            .header("iothub-ack", "full")
            .header("iothub-app-level", "a b")
            .body("{\"on\":true}"),
        request(
            "receive it",
            Method::GET,
            &format!("{BOUND}&iothub-messagelocktimeout=60"),
        )
        .waiting(),
        request("complete it", Method::DELETE, SETTLE).header("if-match", "{lock}"),
        request("complete it again", Method::DELETE, SETTLE).header("if-match", "{lock}"),
        post("abandon it then", ABANDON),
        request(
            "reject it then",
            Method::DELETE,
            &format!("{SETTLE}&reject"),
        ),
        request(
            "a lock that never was",
            Method::DELETE,
            "devices/{d}/messages/devicebound/none",
        ),
        down("a message for abandon").body("bare"),
        request("receive it", Method::GET, BOUND).waiting(),
        post("abandon it", ABANDON).header("if-match", "\"{lock}\""),
        request("receive it again", Method::GET, BOUND).waiting(),
        request("reject it", Method::DELETE, &format!("{SETTLE}&reject")),
        request("nothing is left", Method::GET, BOUND),
    ]);
    steps
}

fn post(name: &'static str, path: &str) -> Step {
    request(name, Method::POST, path)
}

fn request(name: &'static str, method: Method, path: &str) -> Step {
    Step {
        name,
        method,
        path: path.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        credential: Credential::Device,
        waits: false,
    }
}

/// Sends a message down; both sides do it by the hub's own means.
fn down(name: &'static str) -> Step {
    request(name, Method::CONNECT, "")
}

impl Step {
    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn by(mut self, credential: Credential) -> Self {
        self.credential = credential;
        self
    }

    fn waiting(mut self) -> Self {
        self.waits = true;
        self
    }
}

/// The hub or the gateway, with its device.
struct Side {
    client: reqwest::Client,
    origin: String,
    identity: Identity,
    key: Key,
    policy: Key,
    lock: String,
}

/// An answer, as far as it is compared.
#[derive(Default)]
struct Seen {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Side {
    fn new(rig: &Rig, port: u16, device: &str) -> Self {
        let (identity, info, policy) = rig.with_hub(|hub, _| {
            let device = device.parse().unwrap();
            let info = hub.device(&device).unwrap();
            let policy = hub.policies().iter().find(|p| p.name == "service");
            let policy = policy.unwrap().primary.clone();
            (hub.identity(device, None), info, policy)
        });
        Self {
            client: rig.http.clone(),
            origin: format!("https://localhost:{port}/"),
            identity,
            key: info.authentication.keys().unwrap().primary.clone(),
            policy,
            lock: String::new(),
        }
    }

    async fn take(&mut self, rig: &Rig, step: &Step) -> Seen {
        if step.method == Method::CONNECT {
            let headers: Vec<_> = step.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let body = String::from_utf8(step.body.clone()).unwrap();
            let device = self.identity.device_id().as_str();
            rig.send_message(device, &body, &headers).await;
            return Seen::default();
        }
        let deadline = Instant::now() + Duration::from_secs(15);
        let answer = loop {
            let answer = self.ask(step).await;
            if !step.waits || answer.status() != 204 {
                break answer;
            }
            assert!(Instant::now() < deadline, "{}: nothing in 15 s", step.name);
        };
        if let Some(tag) = answer.headers().get("etag") {
            self.lock = tag.to_str().unwrap().trim_matches('"').to_owned();
        }
        self.see(answer).await
    }

    async fn ask(&self, step: &Step) -> Response {
        let url = format!("{}{}", self.origin, self.filled(&step.path));
        let mut request = self.client.request(step.method.clone(), url);
        for (name, value) in &step.headers {
            request = request.header(*name, self.filled(value));
        }
        if let Some(token) = self.token(step.credential) {
            request = request.header(AUTHORIZATION, token);
        }
        request.body(step.body.clone()).send().await.unwrap()
    }

    fn filled(&self, text: &str) -> String {
        let device = self.identity.device_id().as_str();
        text.replace("{d}", device).replace("{lock}", &self.lock)
    }

    fn token(&self, credential: Credential) -> Option<String> {
        let own = sas::resource(&self.identity);
        let now = Timestamp::from(SystemTime::now());
        let soon = now.saturating_add(Duration::from_secs(600));
        let past = Timestamp::from_unix_seconds(now.unix_seconds() - 3600);
        Some(match credential {
            Credential::Device => self.key.sign(&own, None, soon),
            Credential::HostName => {
                let resource = sas::resource_at("localhost", &self.identity);
                self.key.sign(&resource, None, soon)
            }
            Credential::Module => {
                let resource = format!("{own}/modules/{MODULE}");
                module_key().sign(&resource, None, soon)
            }
            Credential::WrongKey => module_key().sign(&own, None, soon),
            Credential::Expired => self.key.sign(&own, None, past),
            Credential::OtherDevice => self.key.sign(&format!("{own}x"), None, soon),
            Credential::Policy => {
                let hub = sas::service_resource(self.identity.hub());
                self.policy.sign(&hub, Some("service"), soon)
            }
            Credential::None => return None,
        })
    }

    async fn see(&self, answer: Response) -> Seen {
        let status = answer.status().as_u16();
        let names = answer.headers().keys();
        let headers = names
            .filter(|name| !BY_CHANCE.contains(&name.as_str()))
            .map(|name| {
                (
                    name.to_string(),
                    self.value_of(answer.headers(), name.as_str()),
                )
            })
            .collect();
        let text = answer.text().await.unwrap();
        Seen {
            status,
            headers,
            body: if status < 400 {
                text
            } else {
                error_form(&text)
            },
        }
    }

    /// The value of a header, or the form of one that is never the same twice.
    fn value_of(&self, headers: &HeaderMap, name: &str) -> String {
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
        let value = values
            .join(", ")
            .replace(self.identity.device_id().as_str(), "{d}");
        match name {
            "etag" => value.replace(&self.lock, "{lock}"),
            "x-ms-request-id" => "{id}".to_owned(),
            "iothub-enqueuedtime" => value
                .chars()
                .map(|c| if c.is_ascii_digit() { '0' } else { c })
                .collect(),
            _ => value,
        }
    }
}

/// What clients that were written for IoT Hub read of an error: the first envelope, up to the text for people.
fn error_form(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |member: &str| body[member].as_str().unwrap_or_default().to_owned();
    let message = text("Message");
    let (code, _) = message.split_once(';').unwrap_or((&message, ""));
    let exception = text("ExceptionMessage");
    let (tracking, _) = exception.split_once(':').unwrap_or((&exception, ""));
    format!("{code};... {tracking}:...")
}

/// Part, there, here.
fn differences(there: &Seen, here: &Seen) -> Vec<(String, String, String)> {
    let mut differences = Vec::new();
    let mut compare = |part: String, there: Option<String>, here: Option<String>| {
        if there != here {
            let shown = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
            differences.push((part, shown(there), shown(here)));
        }
    };
    compare(
        "status".to_owned(),
        Some(there.status.to_string()),
        Some(here.status.to_string()),
    );
    let names: BTreeSet<_> = there.headers.keys().chain(here.headers.keys()).collect();
    for name in names {
        let kind = if there.status < 400 {
            ""
        } else {
            " of an error"
        };
        compare(
            format!("{name}{kind}"),
            there.headers.get(name).cloned(),
            here.headers.get(name).cloned(),
        );
    }
    compare(
        "body".to_owned(),
        Some(there.body.clone()),
        Some(here.body.clone()),
    );
    differences
}

/// Where the hub's HTTPS API is.
fn hub_port(rig: &Rig) -> u16 {
    let request = rig.service(Method::GET, "").build().unwrap();
    request.url().port().unwrap()
}

fn module_key() -> Key {
    Key::from_bytes(vec![5; 32]).unwrap()
}

/// Headers that depend on the moment, or on the length of a text for people.
const BY_CHANCE: [&str; 3] = ["date", "content-length", "tombolo-inbox"];
const EVENTS: &str = "devices/{d}/messages/events?api-version=2021-04-12";
const MODULE_EVENTS: &str = "devices/{d}/modules/mod1/messages/events?api-version=2021-04-12";
const BOUND: &str = "devices/{d}/messages/devicebound?api-version=2021-04-12";
const SETTLE: &str = "devices/{d}/messages/devicebound/{lock}?api-version=2021-04-12";
const ABANDON: &str = "devices/{d}/messages/devicebound/{lock}/abandon?api-version=2021-04-12";
const MODULE: &str = "mod1";
const BATCH: &str = "application/vnd.microsoft.iothub.json";
const LARGEST: usize = 256 * 1024;
