//! The gateway itself: `tombolo serve` with a configuration made for the trial.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Kept, PeerKind, free_address};
use crate::fleet::{Device, Fleet};
use crate::process::{self, Process};
use crate::rig::Rig;
use crate::tls::Endpoint;

/// Has cargo build the gateway and returns the program's file. The profile is this program's own, which the bare proxy is
/// a part of: both sides are to be optimized alike.
pub(crate) async fn build() -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let own = std::env::current_exe().context("could not find this program's own file")?;
    // Cargo names the folder after the profile, but for the one that was there before profiles had names.
    let profile = match own.parent().and_then(Path::file_name) {
        Some(folder) if folder != "debug" => folder.to_string_lossy().into_owned(),
        Some(_) | None => "dev".to_owned(),
    };
    let profile = format!("--profile={profile}");
    let arguments = [
        "build",
        profile.as_str(),
        "--package=tombolo",
        "--message-format=json",
        "--manifest-path",
    ];
    let arguments = arguments
        .map(AsRef::as_ref)
        .into_iter()
        .chain([manifest.as_os_str()]);
    let printed =
        process::output("cargo build", "cargo", arguments, Duration::from_secs(1800)).await?;
    String::from_utf8_lossy(&printed)
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .find_map(|artifact| (artifact.target.name == "tombolo").then_some(artifact.executable)?)
        .context("cargo built no program of the name tombolo")
}

/// A line of cargo's about something it built.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// What the bench and the gateway's admin API have to agree on.
#[derive(Serialize, Deserialize)]
struct Admin {
    address: SocketAddr,
    token: String,
}

/// Writes the configuration of a gateway with these devices, and where its admin API is.
pub(super) fn configure(
    rig: &Rig,
    folder: &Path,
    listen: SocketAddr,
    hub: &Endpoint,
    fleet: &Fleet,
    has_disk: bool,
) -> anyhow::Result<()> {
    let admin = Admin {
        address: free_address()?,
        token: "bench-admin-token-of-this-trial-alone".to_owned(),
    };
    fs::write(folder.join(ADMIN), serde_json::to_string(&admin)?)?;
    let token_file = folder.join("admin.token");
    fs::write(&token_file, &admin.token)?;

    // JSON's strings are TOML's.
    let quoted = |path: &Path| json!(path).to_string();
    let mut text = format!(
        "[front]\n\
         listen = [\"{listen}\"]\n\
         names = [\"localhost\"]\n\
         certificate_file = {certificate}\n\
         key_file = {key}\n\
         admin_listen = \"{admin}\"\n\
         [admin]\n\
         token_file = {token_file}\n\
         [[upstream.hubs]]\n\
         name = \"{hub_name}\"\n\
         address = \"{hub_address}\"\n\
         ca_file = {ca}\n\
         connects_per_second = 100000\n",
        certificate = quoted(&rig.certificates.certificate_file),
        key = quoted(&rig.certificates.key_file),
        admin = admin.address,
        token_file = quoted(&token_file),
        hub_name = hub.name,
        hub_address = hub.address,
        ca = quoted(&hub.ca_file),
    );
    if has_disk {
        // A minute of load with keys fits in, and so does the longest recovery.
        write!(
            text,
            "[disk]\nfolder = {disk}\nbytes = {DISK_BYTES}\n\
             [store]\nkeys = {KEYS}\nkeys_in_all = {KEYS_IN_ALL}\n",
            disk = quoted(&folder.join(DISK)),
        )?;
    }
    for Device { id, key, .. } in &fleet.devices {
        write!(
            text,
            "[[upstream.devices]]\nid = \"{id}\"\nkey.text = \"{key}\"\n"
        )?;
    }
    fs::write(folder.join(CONFIG), text)?;
    Ok(())
}

/// Starts the gateway that is configured in this folder.
pub(super) fn start(rig: &Rig, folder: &Path) -> anyhow::Result<Process> {
    let config = folder.join(CONFIG);
    let arguments = ["serve".as_ref(), "--config".as_ref(), config.as_os_str()];
    Process::start(PeerKind::Gateway.name(), rig.tombolo()?, arguments, folder)
}

/// What the gateway of this folder has on its disk.
pub(super) fn kept(folder: &Path) -> anyhow::Result<Kept> {
    Kept::of(&folder.join(DISK))
}

/// How many entries a gateway says that it has found at its start.
pub(super) fn recovered(process: &Process) -> anyhow::Result<usize> {
    let printed = process.printed();
    let line = printed
        .lines()
        .find(|line| line.contains("the store is open"))
        .context("the gateway has not said what it has found")?;
    let number = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("entries="));
    let number = number.and_then(|number| number.parse().ok());
    number
        .with_context(|| format!("the gateway has not said how many entries it has found: {line}"))
}

/// How many messages the hub has acknowledged.
pub(super) async fn acknowledged(folder: &Path) -> anyhow::Result<u64> {
    let mut admin = AdminApi::open(folder).await?;
    let metrics = admin.ask(Method::GET, "/metrics", None).await?;
    let metrics = String::from_utf8_lossy(&metrics);
    let of_telemetry = metrics.lines().filter(|line| {
        line.starts_with("tombolo_outbox_settled_total{")
            && line.contains("lane=\"telemetry\"")
            && line.contains("outcome=\"done\"")
    });
    let numbers = of_telemetry.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(numbers.sum())
}

/// Replaces the fleet's tokens by some that this gateway has made.
pub(super) async fn hand_out_tokens(folder: &Path, fleet: &mut Fleet) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Created {
        token: String,
    }
    let mut admin = AdminApi::open(folder).await?;
    for Device { id, token, .. } in &mut fleet.devices {
        let created = admin
            .ask(
                Method::POST,
                "/admin/v1/tokens",
                Some(json!({ "device": id })),
            )
            .await
            .with_context(|| format!("the admin API made no token for {id}"))?;
        *token = serde_json::from_slice::<Created>(&created)?.token;
    }
    Ok(())
}

/// A connection to a gateway's admin API.
struct AdminApi {
    admin: Admin,
    sender: SendRequest<Full<Bytes>>,
    /// Hyper's side of the connection; ends when this is dropped.
    _driver: JoinSet<Result<(), hyper::Error>>,
}

impl AdminApi {
    async fn open(folder: &Path) -> anyhow::Result<Self> {
        let admin: Admin = serde_json::from_slice(&fs::read(folder.join(ADMIN))?)?;
        let stream = TcpStream::connect(admin.address)
            .await
            .context("could not reach the admin API")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self {
            admin,
            sender,
            _driver: driver,
        })
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<Bytes> {
        let Admin { address, token } = &self.admin;
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }
}

const ADMIN: &str = "admin.json";
const CONFIG: &str = "tombolo.toml";
const DISK: &str = "store";
const DISK_BYTES: u64 = 32 << 30;
const KEYS: usize = 100_000;
const KEYS_IN_ALL: usize = 10_000_000;
