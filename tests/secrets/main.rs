//! No secret leaves the gateway but where it belongs.
//!
//! One life of gateway and emulator with every kind of credential, right and wrong, and with what devices and cloud say
//! marked. Then everything that came out is searched: the log at its most verbose level, every answer with its headers,
//! the metrics, the admin API, the OpenAPI document.

#![expect(clippy::unwrap_used, reason = "what is not expected ends the test")]

mod capture;

use std::{sync::Arc, time::SystemTime};

use capture::Capture;
use iothub::{Timestamp, sas::Key};
use leaks::{Secret, hits};
use metrics_exporter_prometheus::PrometheusBuilder;
use reqwest::{Method, RequestBuilder, header::AUTHORIZATION};
use serde_json::{Value, json};
use tombolo_system_tests::{ADMIN_TOKEN, HUB_NAME, Rig, eventually, key_of};

/// What is said in this life: secrets for the log and the metrics, which never tell what devices and cloud say.
const SAID: [&str; 6] = [
    "payload-of-telemetry-7d1f",
    "value-of-a-property-5b2e",
    "reported-value-93aa",
    "desired-value-c04d",
    "payload-of-a-cloud-message-e81b",
    "payload-of-a-method-26f9",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_out() {
    let log = Capture::start();
    let recorder = PrometheusBuilder::new().install_recorder().unwrap();
    let render = recorder.clone();
    let mut rig = Rig::builder()
        .device("dev1")
        .stranger("dev2")
        .metrics(Arc::new(move || render.render()))
        .start()
        .await;
    let mut life = Life::new(&rig);

    life.device_speaks(&rig).await;
    life.signatures_are_judged(&rig).await;
    life.credentials_are_wrong(&rig).await;
    life.tokens_come_and_go(&rig).await;
    life.operator_looks(&rig).await;
    life.hub_refuses(&rig).await;
    rig.stop_hub().await;
    let device = rig.device("dev1");
    life.ask(device.post("messages/events").body(SAID[0])).await;
    rig.stop_gateway().await.0.unwrap();

    let text = log.take();
    for part in ["tombolo_front", "tombolo_upstream", "tombolo_emulator"] {
        assert!(text.contains(part), "{part} has logged nothing");
    }
    let said: Vec<Secret> = SAID.iter().map(|text| Secret::text(*text, text)).collect();
    let mut found = hits("log", &text, life.secrets.iter().chain(&said));
    found.extend(hits(
        "metrics",
        &recorder.render(),
        life.secrets.iter().chain(&said),
    ));
    for (place, text) in &life.answers {
        found.extend(hits(place, text, &life.secrets));
    }
    assert_eq!(found, [], "in {} answers and the log", life.answers.len());

    // And the search finds what there is to be found, in the log as it is captured.
    for secret in life.secrets.iter().chain(&said) {
        for (form, planted) in secret.forms() {
            tracing::trace!(planted);
            let found = hits("log", &log.take(), [secret]);
            assert!(
                found.iter().any(|leak| leak.form == form),
                "{}: {form}",
                secret.name
            );
        }
    }
}

/// What has been said, and what has come out.
struct Life {
    secrets: Vec<Secret>,
    /// Every answer with its headers, named by its request.
    answers: Vec<(String, String)>,
}

impl Life {
    fn new(rig: &Rig) -> Self {
        let mut life = Self {
            secrets: vec![
                Secret::text("admin token", ADMIN_TOKEN),
                Secret::text("gateway token", rig.device("dev1").token()),
                Secret::text("token of the service API", rig.service_token()),
            ],
            answers: Vec::new(),
        };
        for id in ["dev1", "dev2"] {
            let key = key_of(&id.parse().unwrap());
            life.keep_key(&format!("key of {id}"), &key);
            life.keep_key(&format!("second key of {id}"), &key.derive("secondary"));
        }
        life
    }

    /// Everything that a device does.
    async fn device_speaks(&mut self, rig: &Rig) {
        let device = rig.device("dev1");
        let send = device
            .post("messages/events")
            .header("iothub-app-level", SAID[1]);
        self.ok(send.body(SAID[0])).await;
        let batch = json!([{"body": SAID[0], "properties": {"level": SAID[1]}}]);
        let send = device
            .post("messages/events")
            .header("content-type", "application/vnd.tombolo.batch+json");
        self.ok(send.body(batch.to_string())).await;
        let patch = device.patch("twin/properties/reported");
        self.ok(patch.json(&json!({"state": SAID[2]}))).await;
        rig.patch_desired("dev1", json!({"wish": SAID[3]})).await;
        self.ok(device.get("twin")).await;
        self.ok(device.get("twin/properties/desired")).await;

        rig.send_message("dev1", SAID[4], &[("iothub-app-level", SAID[1])])
            .await;
        let lock = device.receive_lock().await;
        self.ok(device.get("inbox")).await;
        self.ok(device.delete(&format!("messages/devicebound/{lock}?reject")))
            .await;
        self.ask(device.delete(&format!("messages/devicebound/{lock}")))
            .await;

        let cloud = async {
            rig.until_subscribed("dev1", "$iothub/methods/POST/#").await;
            let (status, _) = rig
                .invoke("dev1", "reboot", json!({"why": SAID[5]}), 30)
                .await;
            assert_eq!(status, 200);
        };
        let device_answers = async {
            let poll = device.get("methods").header("prefer", "wait=20");
            let methods: Value = poll.send().await.unwrap().json().await.unwrap();
            let request = methods["methods"][0]["request_id"].as_str().unwrap();
            let answer = device.post(&format!("methods/{request}/response"));
            self.ok(answer.json(&json!({"status": 200, "payload": SAID[5]})))
                .await;
        };
        tokio::join!(cloud, device_answers);
    }

    /// Tokens that devices sign themselves: checked here, passed through, wrong, over.
    async fn signatures_are_judged(&mut self, rig: &Rig) {
        let wrong = Key::from_bytes(vec![0xa7; 32]).unwrap();
        self.keep_key("wrong key", &wrong);
        for id in ["dev1", "dev2"] {
            let key = key_of(&id.parse().unwrap());
            for (key, seconds, status) in
                [(&key, 600, 204), (&wrong, 601, 401), (&key, -86_400, 401)]
            {
                let token = self.sign(key, id, seconds);
                let given = self.ask(send_as(rig, id, &token)).await;
                assert_eq!(given, status, "{id}, {seconds} s");
            }
        }
        rig.until_connected("dev2").await;
        let token = self.sign(&key_of(&"dev2".parse().unwrap()), "dev2", 900);
        assert_eq!(self.ask(send_as(rig, "dev2", &token)).await, 204);
        let token = self.sign(&wrong, "dev2", 901);
        assert_eq!(self.ask(send_as(rig, "dev2", &token)).await, 401);
    }

    /// Credentials that are none, and requests that are none with credentials in wrong places.
    async fn credentials_are_wrong(&mut self, rig: &Rig) {
        let device = rig.device("dev1");
        for (name, credential) in [
            ("unknown token", "Bearer tmb_unknown-token-of-nobody-41c7"),
            ("password", "Basic cGFzc3dvcmQtb2Ytbm9ib2R5LTkzYjI="),
            ("word", "password-of-nobody-8e5d"),
            (
                "broken signature",
                "SharedAccessSignature sr=x&sig=broken-signature-0f3a&se=1",
            ),
        ] {
            let secret = credential.split_once(' ').map_or(credential, |(_, s)| s);
            self.secrets.push(Secret::text(name, secret));
            assert_eq!(self.ask(send_as(rig, "dev1", credential)).await, 401);
            let both = device
                .get("twin")
                .header("tombolo-authorization", credential);
            assert_eq!(self.ask(both).await, 400);
            let admin = admin(rig, Method::GET, "metrics").header(AUTHORIZATION, credential);
            assert_eq!(self.ask(admin).await, 401);
            let service = rig
                .http
                .get(format!("https://localhost:{}/devices", rig.service_port()))
                .header(AUTHORIZATION, credential);
            assert_eq!(self.ask(service).await, 401);
        }
        let others = rig
            .http
            .get(format!(
                "https://localhost:{}/devices/dev2/twin",
                rig.gateway.port()
            ))
            .bearer_auth(device.token());
        assert_eq!(self.ask(others).await, 403);
        let settle = json!([{"token": device.token(), "outcome": "complete"}]);
        self.ask(device.post("inbox/settle").body("not JSON")).await;
        self.ask(device.get("nowhere")).await;
        self.ask(device.patch("twin/properties/reported").body("[]"))
            .await;
        // A device that shows its token in the wrong place is told so without it.
        let answer = device.post("inbox/settle").json(&settle).send().await;
        assert_eq!(answer.unwrap().status(), 200);
    }

    /// Tokens are bought, made, listed and revoked. Each is shown once, in the answer that makes it.
    async fn tokens_come_and_go(&mut self, rig: &Rig) {
        let device = rig.device("dev1");
        let bought = device.post("token").json(&json!({"lifetime_s": 600}));
        let bought: Value = bought.send().await.unwrap().json().await.unwrap();
        let token = bought["token"].as_str().unwrap().to_owned();
        self.secrets.push(Secret::text("bought token", &token));
        let bearer = format!("Bearer {token}");
        assert_eq!(self.ask(send_as(rig, "dev1", &bearer)).await, 204);

        let make = operator(rig, Method::POST, "admin/v1/tokens");
        let made = make.json(&json!({"device": "dev1"})).send().await.unwrap();
        let made: Value = made.json().await.unwrap();
        let token = made["token"].as_str().unwrap();
        self.secrets.push(Secret::text("made token", token));
        self.ok(operator(rig, Method::GET, "admin/v1/tokens?device=dev1"))
            .await;
        let id = made["token_id"].as_str().unwrap();
        let path = format!("admin/v1/tokens/{id}?device=dev1");
        self.ok(operator(rig, Method::DELETE, &path)).await;
        let bearer = format!("Bearer {token}");
        assert_eq!(self.ask(send_as(rig, "dev1", &bearer)).await, 401);
    }

    /// Everything that an operator can read.
    async fn operator_looks(&mut self, rig: &Rig) {
        for path in [
            "healthz",
            "readyz",
            "metrics",
            "admin/v1/devices/dev1",
            "admin/v1/devices/dev2",
            "admin/v1/devices/dev1/inbox/dead-letters",
            "admin/v1/devices/dev1/outbox/dead-letters",
            "admin/v1/store",
            "admin/v1/outbox/devices",
        ] {
            self.ok(operator(rig, Method::GET, path)).await;
        }
        self.ask(operator(rig, Method::GET, "admin/v1/nothing"))
            .await;
        let openapi = format!("https://localhost:{}/openapi.json", rig.gateway.port());
        self.ok(rig.http.get(openapi)).await;
    }

    /// The hub takes back what it has allowed: the gateway's own signature is refused.
    async fn hub_refuses(&mut self, rig: &Rig) {
        let refuse =
            json!({"device": "dev1", "times": 100, "fault": {"kind": "refuse-connect", "code": 5}});
        rig.fault(refuse);
        rig.fault(json!({"device": "dev1", "times": 1, "fault": {"kind": "drop-connection"}}));
        let device = rig.device("dev1");
        eventually("the gateway says that the hub refuses", async || {
            let send = device.post("messages/events").body(SAID[0]);
            self.ask(send.header("prefer", "wait=1")).await == 502
        })
        .await;
        self.ok(operator(rig, Method::GET, "admin/v1/devices/dev1"))
            .await;
    }

    /// Sends a request and keeps what comes back; gives the status.
    async fn ask(&mut self, request: RequestBuilder) -> u16 {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let place = format!("{} {}", request.method(), request.url());
        let answer = client.execute(request).await.unwrap();
        let status = answer.status().as_u16();
        let head = format!("{status} {:?}", answer.headers());
        let body = answer.text().await.unwrap();
        self.answers.push((place, format!("{head}\n{body}")));
        status
    }

    /// The same for a request that must succeed.
    async fn ok(&mut self, request: RequestBuilder) {
        let status = self.ask(request).await;
        let (place, answer) = self.answers.last().expect("the answer was kept");
        assert!((200..300).contains(&status), "{place}: {answer}");
    }

    /// A token for a device, whose signature is a secret from here on.
    fn sign(&mut self, key: &Key, device: &str, seconds: i64) -> String {
        let now = Timestamp::from(SystemTime::now()).unix_seconds();
        let end = Timestamp::from_unix_seconds(now + seconds);
        let token = key.sign(&format!("{HUB_NAME}/devices/{device}"), None, end);
        let signature = token.split("&sig=").nth(1).unwrap();
        let signature = signature.split('&').next().unwrap();
        let signature = percent_encoding::percent_decode_str(signature).decode_utf8();
        let name = format!("signature for {device}, {seconds} s");
        self.secrets.push(Secret::text(name, &signature.unwrap()));
        token
    }

    fn keep_key(&mut self, name: &str, key: &Key) {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let text = key.to_base64();
        let bytes = STANDARD.decode(&text).unwrap();
        self.secrets
            .push(Secret::text(format!("{name} as text"), &text));
        self.secrets.push(Secret::bytes(name, &bytes));
    }
}

/// Telemetry with any credential.
fn send_as(rig: &Rig, device: &str, credential: &str) -> RequestBuilder {
    let port = rig.gateway.port();
    let url = format!("https://localhost:{port}/devices/{device}/messages/events");
    let request = rig.http.post(url).header(AUTHORIZATION, credential);
    request.body(SAID[0])
}

fn admin(rig: &Rig, method: Method, path: &str) -> RequestBuilder {
    rig.http
        .request(method, format!("http://{}/{path}", rig.admin))
}

fn operator(rig: &Rig, method: Method, path: &str) -> RequestBuilder {
    admin(rig, method, path).bearer_auth(ADMIN_TOKEN)
}
