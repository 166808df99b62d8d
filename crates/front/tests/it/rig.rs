//! A front that runs, with a device, its token and its hub side.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Once},
    time::{Duration, Instant, SystemTime},
};

use iothub::Identity;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::Value;
use store::{
    Custody, DeviceRecord, MethodPolicy, Scopes, Store, TokenHash, TokenId, TokenOrigin,
    TokenRecord,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tombolo_front::{Config, Front, Handle, HubReport, Parts};

use crate::hub::Hub;

pub(crate) const HUB: &str = "hub.example";
pub(crate) const TOKEN: &str = "tmb_of-dev1";
pub(crate) const ADMIN_TOKEN: &str = "the-admin-token";
/// Longer than anything takes here, shorter than a person waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) store: Store,
    pub(crate) hub: Hub,
    pub(crate) handle: Handle,
    pub(crate) address: SocketAddr,
    pub(crate) client: reqwest::Client,
    pub(crate) certificate: Certificate,
    pub(crate) folder: TempDir,
    disk: Option<(TempDir, store::embedded::Keeper)>,
}

/// A certificate for `localhost` and 127.0.0.1 that signs itself.
pub(crate) struct Certificate {
    der: rustls::pki_types::CertificateDer<'static>,
}

impl Certificate {
    /// Makes a fresh one in these files.
    pub(crate) fn write(certificate_file: &PathBuf, key_file: &PathBuf) -> Self {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(certificate_file, made.cert.pem()).unwrap();
        std::fs::write(key_file, made.signing_key.serialize_pem()).unwrap();
        Self {
            der: made.cert.der().clone(),
        }
    }

    pub(crate) fn client_config(&self, alpn: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A front with these changes to the defaults.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::over(
            store::memory::open(store::memory::Config::default()).unwrap(),
            change,
        )
        .await
    }

    /// A front over an engine with a disk.
    pub(crate) async fn durable() -> Self {
        Self::durable_with(store::memory::Config::default()).await
    }

    /// The same with these bounds.
    pub(crate) async fn durable_with(bounds: store::memory::Config) -> Self {
        let disk = tempfile::tempdir().unwrap();
        let config = store::embedded::Config::new(disk.path().to_owned());
        let opened = store::embedded::open(bounds, &config).unwrap();
        let mut rig = Self::over(opened.store, |_| {}).await;
        rig.disk = Some((disk, opened.keeper));
        rig
    }

    /// A front over this store.
    pub(crate) async fn over(store: Store, change: impl FnOnce(&mut Config)) -> Self {
        Self::behind(store, |store| store, change).await
    }

    /// A front that sees this store through something else, which its hub side does not.
    pub(crate) async fn behind(
        store: Store,
        seen_through: impl FnOnce(Store) -> Store,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        leaks::record();
        leaks::mark("admin token", ADMIN_TOKEN);
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        let (certificate_file, key_file) =
            (folder.path().join("crt.pem"), folder.path().join("key.pem"));
        let certificate = Certificate::write(&certificate_file, &key_file);
        let mut config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            certificate_file,
            key_file,
            ..Config::default()
        };
        change(&mut config);

        serve_device(&store, &identity("dev1"), TOKEN).await;
        let hub = Hub::new(&store, &identity("dev1")).await;
        let parts = Parts {
            store: seen_through(store.clone()),
            hubs: vec![HUB.parse().unwrap()],
            admin_token: ADMIN_TOKEN.into(),
            render_metrics: Arc::new(|| "tombolo_test 1\n".to_owned()),
            report_hubs: Arc::new(|| {
                vec![HubReport {
                    hub: HUB.parse().unwrap(),
                    reached: Some(false),
                }]
            }),
            report_disk: Arc::new(|| None),
        };
        let handle = Front::start(config, parts).await.unwrap();
        let client = client(&certificate, &[b"http/1.1"]);
        Self {
            address: handle.addresses()[0],
            store,
            hub,
            handle,
            client,
            certificate,
            folder,
            disk: None,
        }
    }

    /// A request of the device, with its token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(TOKEN)
    }

    /// The gateway has no key for this device from here on.
    pub(crate) async fn pass_through(&self, device: &str) {
        let registry = &self.store.registry;
        let record = registry.device(&identity(device)).await.unwrap();
        let record = DeviceRecord {
            is_passed_through: true,
            ..record.expect("it is served")
        };
        registry.put_device(record).await.unwrap();
    }

    /// A request of nobody.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        send(self.request(Method::POST, path).body(body)).await
    }

    /// A post with an idempotency key.
    pub(crate) fn keyed(
        &self,
        path: &str,
        key: &str,
        body: impl Into<reqwest::Body>,
    ) -> RequestBuilder {
        self.request(Method::POST, path)
            .header("idempotency-key", key)
            .body(body)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// A request to the admin API, with its token.
    pub(crate) fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.handle.admin_address());
        self.client.request(method, url).bearer_auth(ADMIN_TOKEN)
    }

    /// A TLS connection on which a test may write what it likes.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_with(&[b"http/1.1"]).await
    }

    pub(crate) async fn connect_with(&self, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(Arc::new(self.certificate.client_config(alpn)));
        let socket = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, socket).await.unwrap()
    }

    /// Writes bytes on a connection of their own and reads until the front closes it.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_to_end(&mut stream).await
    }
}

/// Something that goes on while the test does something else; it ends with the test.
pub(crate) struct Background<T> {
    tasks: JoinSet<T>,
    task: AbortHandle,
}

/// Starts something in the background.
pub(crate) fn background<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Background<T> {
    let mut tasks = JoinSet::new();
    let task = tasks.spawn(future);
    Background { tasks, task }
}

impl<T: 'static> Background<T> {
    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    pub(crate) async fn result(mut self) -> T {
        self.tasks
            .join_next()
            .await
            .expect("there is one task")
            .unwrap()
    }
}

/// A request whose answer the test waits for later.
pub(crate) fn waiting(request: RequestBuilder) -> Background<Response> {
    background(send(request))
}

/// Waits for a state, with a bound.
pub(crate) async fn until(mut is_reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_reached() {
        assert!(start.elapsed() < PATIENCE, "the state is not reached");
        tokio::task::yield_now().await;
    }
}

/// Reads until the other side closes, in whatever way.
pub(crate) async fn read_to_end(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    // A close without TLS's farewell is an error to rustls, and is one way to close a connection.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the front closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A client that speaks what ALPN agrees on.
pub(crate) fn client(certificate: &Certificate, alpn: &[&[u8]]) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(certificate.client_config(alpn))
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .unwrap()
}

pub(crate) async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("the front answers")
}

pub(crate) fn identity(device: &str) -> Identity {
    Identity::device(HUB.parse().unwrap(), device.parse().unwrap())
}

pub(crate) fn module(device: &str, module: &str) -> Identity {
    Identity::module(
        HUB.parse().unwrap(),
        device.parse().unwrap(),
        module.parse().unwrap(),
    )
}

/// Adds a device and a token for it.
pub(crate) async fn serve_device(store: &Store, identity: &Identity, token: &str) {
    leaks::mark("gateway token", token);
    serve(store, identity).await;
    let record = TokenRecord {
        id: TokenId(format!("id-of-the-token-of-{identity}")),
        identity: identity.clone(),
        hash: TokenHash::of(token),
        created_at: SystemTime::now().into(),
        expires_at: None,
        scopes: Scopes::ALL,
        origin: TokenOrigin::Operator,
    };
    store.registry.put_token(record).await.unwrap();
}

/// Adds a device or module.
pub(crate) async fn serve(store: &Store, identity: &Identity) {
    let record = DeviceRecord {
        identity: identity.clone(),
        custody: Custody::Hub,
        method_policy: MethodPolicy::FailFast,
        is_pinned: false,
        is_passed_through: false,
    };
    store.registry.put_device(record).await.unwrap();
}

/// Checks the form that every problem has, and gives its detail.
pub(crate) async fn problem(response: Response, status: u16, code: &str) -> String {
    let body = problem_body(response, status, code).await;
    body["detail"].as_str().unwrap().to_owned()
}

/// Checks the form that every problem has, and gives all of it.
pub(crate) async fn problem_body(response: Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status().as_u16(), status);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/problem+json");
    assert!(headers.contains_key("iothub-errorcode"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["status"], status);
    assert_eq!(
        body["request_id"],
        headers["x-ms-request-id"].to_str().unwrap()
    );
    for member in [
        "title",
        "detail",
        "errorCode",
        "trackingId",
        "message",
        "timestampUtc",
        "Message",
        "ExceptionMessage",
    ] {
        assert!(!body[member].is_null(), "{member} is missing in {body}");
    }
    let retry_after = headers
        .get("retry-after")
        .map(|value| value.to_str().unwrap().parse().unwrap());
    assert_eq!(
        body["retry_after_s"]
            .as_u64()
            .filter(|seconds| *seconds > 0),
        retry_after
    );
    assert_eq!(status == 401, headers.contains_key("www-authenticate"));
    body
}

pub(crate) fn assert_status(response: &Response, status: StatusCode) {
    assert_eq!(response.status(), status, "{response:?}");
}

fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}
