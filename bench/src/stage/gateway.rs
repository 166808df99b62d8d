//! The gateway itself: `tombolo serve` with a configuration made for the trial.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{PeerKind, free_address};
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

pub(super) fn start(
    rig: &Rig,
    folder: &Path,
    listen: SocketAddr,
    hub: &Endpoint,
    fleet: &Fleet,
) -> anyhow::Result<Process> {
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
    for Device { id, key, .. } in &fleet.devices {
        write!(
            text,
            "[[upstream.devices]]\nid = \"{id}\"\nkey.text = \"{key}\"\n"
        )?;
    }
    let config = folder.join("tombolo.toml");
    fs::write(&config, text)?;
    let arguments = ["serve".as_ref(), "--config".as_ref(), config.as_os_str()];
    Process::start(PeerKind::Gateway.name(), rig.tombolo()?, arguments, folder)
}

/// Replaces the fleet's tokens by some that this gateway has made.
pub(super) async fn hand_out_tokens(folder: &Path, fleet: &mut Fleet) -> anyhow::Result<()> {
    let admin: Admin = serde_json::from_slice(&fs::read(folder.join(ADMIN))?)?;
    let stream = TcpStream::connect(admin.address)
        .await
        .context("could not reach the admin API")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    for device in &mut fleet.devices {
        device.token = create_token(&mut sender, &admin, &device.id)
            .await
            .with_context(|| format!("the admin API made no token for {}", device.id))?;
    }
    Ok(())
}

async fn create_token(
    sender: &mut SendRequest<Full<Bytes>>,
    admin: &Admin,
    device: &str,
) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Created {
        token: String,
    }
    let request = Request::post("/admin/v1/tokens")
        .header(header::HOST, admin.address.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {}", admin.token))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(json!({ "device": device }).to_string()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(serde_json::from_slice::<Created>(&body)?.token)
}

const ADMIN: &str = "admin.json";
