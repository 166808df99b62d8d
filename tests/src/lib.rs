//! Rigs shared by the whole-system tests.
//!
//! A [`Rig`] is the real gateway and the real emulator in one process, joined by sockets alone: the gateway reaches the
//! hub over MQTT and TLS as it reaches any hub, the test speaks HTTPS with both. Everything listens on port 0 of
//! loopback and lives in a temporary folder.

#![expect(
    clippy::unwrap_used,
    reason = "a rig that cannot be set up ends its test"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's tasks end with its runtime"
)]

use std::{
    net::SocketAddr,
    sync::{Arc, Once},
    time::{Duration, Instant, SystemTime},
};

use emulator::{
    Emulator, Tls,
    hub::{self, DeviceKeys, DeviceSpec, FaultRule, ModuleSpec},
};
use front::{Front, Parts, RenderMetrics};
use iothub::{DeviceId, HubName, Identity, Timestamp, sas::Key};
use reqwest::{Method, RequestBuilder, Response};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use store::{NodeId, Store, TokenHash, TokenId, TokenRecord, memory};
use tempfile::TempDir;
use tombolo::{
    data_folder::DataFolder,
    development_ca::{DevelopmentCa, loopback_names},
};
use upstream::{
    Upstream,
    config::{DeviceConfig, HubConfig, KeySource},
};

/// Gateway and emulator, joined by sockets.
pub struct Rig {
    /// For requests to either, with the development CA as its only root.
    pub http: reqwest::Client,
    /// Where the gateway's device API is.
    pub gateway: SocketAddr,
    /// Where the gateway's admin API is.
    pub admin: SocketAddr,
    store: Store,
    hub: Option<Emulator>,
    hub_setup: HubSetup,
    front: Option<front::Handle>,
    upstream: Option<Upstream>,
    _folder: TempDir,
}

/// What a rig is made with.
pub struct Builder {
    devices: Vec<DeviceId>,
    strangers: Vec<DeviceId>,
    front: front::Config,
    upstream: upstream::Config,
    store: memory::Config,
    render_metrics: RenderMetrics,
}

/// What it takes to start the hub, again if need be, at the same address with the same devices.
struct HubSetup {
    name: HubName,
    mqtt: SocketAddr,
    https: SocketAddr,
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    devices: Vec<(DeviceId, DeviceSpec)>,
}

/// A device that speaks nothing but HTTPS.
#[derive(Clone)]
pub struct Device {
    http: reqwest::Client,
    /// `https://{gateway}/devices/{id}/`
    base: String,
    token: String,
}

impl Rig {
    /// A rig with these devices and the defaults.
    pub async fn start(devices: &[&str]) -> Self {
        let builder = devices
            .iter()
            .fold(Self::builder(), |builder, device| builder.device(device));
        builder.start().await
    }

    /// To start a rig with other settings.
    pub fn builder() -> Builder {
        Builder {
            devices: Vec::new(),
            strangers: Vec::new(),
            front: front::Config::default(),
            upstream: upstream::Config::default(),
            store: memory::Config::default(),
            render_metrics: Arc::new(String::new),
        }
    }

    /// A device of the rig, with a token of its own.
    pub fn device(&self, id: &str) -> Device {
        Device {
            http: self.http.clone(),
            base: format!("https://localhost:{}/devices/{id}/", self.gateway.port()),
            token: token_of(id),
        }
    }

    /// The store between the two halves.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Gives a device at the hub a module with this key.
    pub fn add_module(&self, device: &str, module: &str, key: &Key) {
        leaks::mark_key(&format!("key of {device}/{module}"), &key.to_base64());
        let keys = DeviceKeys {
            primary: key.clone(),
            secondary: key.clone(),
        };
        let spec = ModuleSpec {
            authentication: Some(keys.into()),
            ..ModuleSpec::default()
        };
        let (device, module) = (device.parse().unwrap(), module.parse().unwrap());
        self.with_hub(|hub, now| hub.create_module(&device, &module, spec, now))
            .unwrap();
    }

    /// A request to the hub's service REST API.
    pub fn service(&self, method: Method, path: &str) -> RequestBuilder {
        let port = self.hub_setup.https.port();
        self.http
            .request(method, format!("https://localhost:{port}/{path}"))
            .bearer_auth(HUB_TOKEN)
    }

    /// What opens the hub's service REST API.
    pub fn service_token(&self) -> &'static str {
        HUB_TOKEN
    }

    /// Where the hub's service REST API is.
    pub fn service_port(&self) -> u16 {
        self.hub_setup.https.port()
    }

    /// Works on the hub itself.
    pub fn with_hub<R>(&self, act: impl FnOnce(&mut hub::Hub, hub::Now) -> R) -> R {
        self.hub.as_ref().expect("the hub is running").with_hub(act)
    }

    /// All telemetry at the hub, oldest first.
    pub fn telemetry(&self) -> Vec<hub::TelemetryRecord> {
        let page = self.with_hub(|hub, _| hub.telemetry(1, usize::MAX));
        let records = page.records.iter();
        records
            .map(|record| hub::TelemetryRecord::clone(record))
            .collect()
    }

    /// Sends a cloud-to-device message.
    pub async fn send_message(&self, device: &str, body: &str, headers: &[(&str, &str)]) {
        let path = format!("emulator/devices/{device}/messages");
        let mut request = self.service(Method::POST, &path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    /// Invokes a direct method; the result is the hub's HTTP status and body.
    pub fn invoke(
        &self,
        device: &str,
        method: &str,
        payload: Value,
        response_timeout_s: u64,
    ) -> impl Future<Output = (u16, Value)> + Send + 'static {
        let path = format!("twins/{device}/methods");
        let request = self.service(Method::POST, &path).json(&json!({
            "methodName": method,
            "payload": payload,
            "responseTimeoutInSeconds": response_timeout_s,
        }));
        let call = tokio::spawn(request.send());
        async move {
            let answer = call.await.unwrap().unwrap();
            (answer.status().as_u16(), answer.json().await.unwrap())
        }
    }

    /// Patches the desired properties.
    pub async fn patch_desired(&self, device: &str, desired: Value) {
        let patch = json!({ "properties": { "desired": desired } });
        let request = self.service(Method::PATCH, &format!("twins/{device}"));
        let answer = request.json(&patch).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// The twin as the service sees it.
    pub fn twin(&self, device: &str) -> Value {
        self.with_hub(|hub, _| hub.twin(&hub.identity(device.parse().unwrap(), None)))
            .unwrap()
    }

    /// Makes something go wrong at the hub; see the emulator's faults.
    pub fn fault(&self, rule: Value) {
        let rule: FaultRule = serde_json::from_value(rule).unwrap();
        self.with_hub(|hub, now| hub.inject(rule, now)).unwrap();
    }

    /// Cloud-to-device messages that the hub still has.
    pub fn waiting_messages(&self, device: &str) -> usize {
        let info = self.with_hub(|hub, _| hub.device(&device.parse().unwrap()));
        info.unwrap().cloud_messages
    }

    /// What the hub knows of a device's session.
    pub fn session(&self, device: &str) -> hub::SessionInfo {
        self.with_hub(|hub, _| hub.session_info(&hub.identity(device.parse().unwrap(), None)))
            .unwrap()
    }

    /// Whether the device's session has subscribed to `filter`.
    pub fn is_subscribed(&self, device: &str, filter: &str) -> bool {
        let subscriptions = self.session(device).subscriptions;
        subscriptions.iter().any(|subscribed| subscribed == filter)
    }

    /// Waits until the device's session has subscribed to `filter`.
    pub async fn until_subscribed(&self, device: &str, filter: &str) {
        eventually("the session has subscribed", async || {
            self.is_subscribed(device, filter)
        })
        .await;
    }

    /// Waits until the device's session is connected.
    pub async fn until_connected(&self, device: &str) {
        eventually("the session is connected", async || {
            self.session(device).is_connected
        })
        .await;
    }

    /// Takes the hub away: its port answers nobody.
    pub async fn stop_hub(&mut self) {
        let hub = self.hub.take().expect("the hub is running");
        hub.shutdown(Duration::from_secs(5)).await.unwrap();
    }

    /// Brings the hub back at its old address, with its devices and without its memory.
    pub async fn start_hub(&mut self) {
        self.hub = Some(self.hub_setup.start().await);
    }

    /// Stops the gateway in order, as the binary does.
    pub async fn stop_gateway(&mut self) -> (Result<(), front::CutOff>, Result<(), upstream::Cut>) {
        let front = self.front.take().expect("the gateway is running");
        let front = front.shutdown(Duration::from_secs(5)).await;
        let upstream = self.upstream.take().expect("the gateway is running");
        (front, upstream.shutdown(Duration::from_secs(5)).await)
    }
}

impl Builder {
    /// Adds a device that hub and gateway know.
    #[must_use]
    pub fn device(mut self, id: &str) -> Self {
        self.devices.push(id.parse().unwrap());
        self
    }

    /// Adds a device that the hub alone knows; the gateway passes through whomever the hub lets in.
    #[must_use]
    pub fn stranger(mut self, id: &str) -> Self {
        self.strangers.push(id.parse().unwrap());
        self
    }

    /// Changes settings of the device-facing half.
    #[must_use]
    pub fn front(mut self, change: impl FnOnce(&mut front::Config)) -> Self {
        change(&mut self.front);
        self
    }

    /// Changes settings of the hub-facing half.
    #[must_use]
    pub fn upstream(mut self, change: impl FnOnce(&mut upstream::Config)) -> Self {
        change(&mut self.upstream);
        self
    }

    /// Changes settings of the store.
    #[must_use]
    pub fn store(mut self, change: impl FnOnce(&mut memory::Config)) -> Self {
        change(&mut self.store);
        self
    }

    /// Has `/metrics` answer what this renders.
    #[must_use]
    pub fn metrics(mut self, render: RenderMetrics) -> Self {
        self.render_metrics = render;
        self
    }

    /// Starts hub and gateway.
    pub async fn start(self) -> Rig {
        leaks::record();
        self.mark_secrets();
        install_crypto();
        let temporary = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&temporary.path().join("data")).unwrap();
        let now = SystemTime::now();
        let ca = DevelopmentCa::open(&folder, None, now).unwrap();
        let mut names = loopback_names();
        ca.server_certificate(&folder, "gateway", &names, now)
            .unwrap();
        let hub_name: HubName = HUB_NAME.parse().unwrap();
        names.push(HUB_NAME.try_into().unwrap());
        let hub_tls = ca.server_certificate(&folder, "hub", &names, now).unwrap();

        let devices = self.devices.iter().chain(&self.strangers);
        let devices = devices.map(|id| (id.clone(), spec_of(id)));
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut hub_setup = HubSetup {
            name: hub_name.clone(),
            mqtt: free,
            https: free,
            certificates: hub_tls.chain,
            key: hub_tls.key,
            devices: devices.collect(),
        };
        let hub = hub_setup.start().await;
        (hub_setup.mqtt, hub_setup.https) = (hub.mqtt_address(), hub.https_address());

        let store = memory::open(self.store).unwrap();
        let mut config = self.upstream;
        let mut hub_config = HubConfig::new(hub_name.clone());
        hub_config.address = Some(hub.mqtt_address().to_string().parse().unwrap());
        hub_config.https_address = Some(hub.https_address().to_string().parse().unwrap());
        hub_config.ca_file = Some(folder.file("ca.pem"));
        hub_config.pass_through = !self.strangers.is_empty();
        config.hubs.push(hub_config);
        for id in &self.devices {
            let key = KeySource::Text(key_of(id).to_base64().into());
            config.devices.push(DeviceConfig::new(id.clone(), key));
        }
        let upstream = Upstream::start(config, store.clone(), NodeId::new("rig"))
            .await
            .unwrap();

        for id in &self.devices {
            let record = TokenRecord {
                id: TokenId(format!("token-of-{id}")),
                identity: Identity::device(hub_name.clone(), id.clone()),
                hash: TokenHash::of(&token_of(id.as_str())),
                created_at: Timestamp::from(now),
                expires_at: None,
                scopes: store::Scopes::ALL,
                origin: store::TokenOrigin::Operator,
            };
            store.registry.put_token(record).await.unwrap();
        }
        let mut config = self.front;
        config.listen = vec![free];
        config.admin_listen = free;
        config.certificate_file = folder.file("gateway.pem");
        config.key_file = folder.file("gateway.pem");
        let parts = Parts {
            store: store.clone(),
            hubs: vec![hub_name],
            admin_token: ADMIN_TOKEN.to_owned().into(),
            render_metrics: self.render_metrics,
            report_hubs: Arc::new(Vec::new),
            report_disk: Arc::new(|| None),
        };
        let front = Front::start(config, parts).await.unwrap();

        let root = reqwest::Certificate::from_der(ca.certificate()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([root]);
        Rig {
            http: http.build().unwrap(),
            gateway: front.addresses()[0],
            admin: front.admin_address(),
            store,
            hub: Some(hub),
            hub_setup,
            front: Some(front),
            upstream: Some(upstream),
            _folder: temporary,
        }
    }
}

impl Builder {
    /// What must not come out of a rig, for the search of the whole suite.
    fn mark_secrets(&self) {
        leaks::mark("admin token", ADMIN_TOKEN);
        leaks::mark("token of the service API", HUB_TOKEN);
        for id in self.devices.iter().chain(&self.strangers) {
            let primary = key_of(id);
            for key in [primary.derive("secondary"), primary] {
                leaks::mark_key(&format!("key of {id}"), &key.to_base64());
            }
            leaks::mark(&format!("gateway token of {id}"), &token_of(id.as_str()));
        }
    }
}

impl HubSetup {
    async fn start(&self) -> Emulator {
        let policies = hub::Policy::defaults(&mut hub::Random::seeded(1));
        let tls = Tls {
            certificates: self.certificates.clone(),
            key: self.key.clone_key(),
        };
        let hub = hub::Config::new(self.name.clone(), policies);
        let mut config = emulator::Config::new(hub, tls, HUB_TOKEN.to_owned().into());
        config.devices = self.devices.clone();
        (config.mqtt, config.https) = (self.mqtt, self.https);
        Emulator::start(config).await.unwrap()
    }
}

impl Device {
    /// A request below `/devices/{id}/`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    /// A GET below `/devices/{id}/`.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A POST below `/devices/{id}/`.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// A PATCH below `/devices/{id}/`.
    pub fn patch(&self, path: &str) -> RequestBuilder {
        self.request(Method::PATCH, path)
    }

    /// A DELETE below `/devices/{id}/`.
    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.request(Method::DELETE, path)
    }

    /// The gateway token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Receives the next cloud-to-device message, and gives its lock token.
    pub async fn receive_lock(&self) -> String {
        let received = self.get("messages/devicebound").send().await.unwrap();
        assert_eq!(received.status(), 200);
        lock_of(&received)
    }

    /// The entries of the inbox.
    pub async fn inbox(&self) -> Vec<Value> {
        let answer = self.get("inbox").send().await.unwrap();
        match answer.status().as_u16() {
            204 => Vec::new(),
            200 => {
                let mut inbox: Value = answer.json().await.unwrap();
                let entries = inbox["entries"].take();
                serde_json::from_value(entries).unwrap()
            }
            status => panic!("the inbox is answered {status}"),
        }
    }
}

/// The lock token in an answer to `GET .../devicebound`.
pub fn lock_of(received: &Response) -> String {
    let etag = received.headers()["etag"].to_str().unwrap();
    etag.trim_matches('"').to_owned()
}

/// Waits until a state is reached, 15 s at most.
pub async fn eventually(what: &str, mut is_reached: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !is_reached().await {
        assert!(Instant::now() < deadline, "not within 15 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.install_default().unwrap();
    });
}

fn spec_of(id: &DeviceId) -> DeviceSpec {
    let primary = key_of(id);
    let secondary = primary.derive("secondary");
    DeviceSpec {
        authentication: Some(DeviceKeys { primary, secondary }.into()),
        ..DeviceSpec::default()
    }
}

/// A key that the hub can be given again after its memory is gone.
/// A device's key at the hub.
pub fn key_of(id: &DeviceId) -> Key {
    Key::from_bytes(vec![7; 32]).unwrap().derive(id.as_str())
}

fn token_of(id: &str) -> String {
    let random = Key::from_bytes(vec![9; 32]).unwrap().derive(id);
    format!("tmb_{}", random.to_base64())
}

/// Not a name of the gateway, as everywhere.
/// The hub's name, which is not the gateway's.
pub const HUB_NAME: &str = "rig-hub.localhost";
const HUB_TOKEN: &str = "hub-token-of-the-rig";
/// Opens the gateway's admin API.
pub const ADMIN_TOKEN: &str = "admin-token-of-the-rig";
