//! The gateway as a web developer would write it: `bench/peers/node`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use crate::fleet::Fleet;
use crate::process::{self, Process};
use crate::rig::Rig;
use crate::tls::Endpoint;

/// Installs the packages that the lock file names, if they are not there yet.
///
/// # Errors
///
/// Node or npm is missing, or a package cannot be had: then there is no such peer on this machine.
pub(crate) async fn prepare() -> anyhow::Result<()> {
    process::output("node", "node", ["--version"], Duration::from_secs(10)).await?;
    let installed = modified(&folder().join("node_modules/.package-lock.json"));
    if installed.is_some() && installed >= modified(&folder().join("package-lock.json")) {
        return Ok(());
    }
    let folder = folder();
    let arguments = [
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
    ];
    let arguments = arguments
        .map(AsRef::as_ref)
        .into_iter()
        .chain([folder.as_os_str()]);
    process::output("npm ci", "npm", arguments, Duration::from_secs(300)).await?;
    Ok(())
}

pub(super) fn start(
    rig: &Rig,
    trial: &Path,
    listen: SocketAddr,
    hub: &Endpoint,
    fleet: &Fleet,
) -> anyhow::Result<Process> {
    let settings = trial.join("node.json");
    let text = json!({
        "listen": { "host": listen.ip(), "port": listen.port() },
        "certificateFile": rig.certificates.certificate_file,
        "keyFile": rig.certificates.key_file,
        "hub": { "name": hub.name, "address": hub.address, "caFile": hub.ca_file },
        "keys": fleet
            .devices
            .iter()
            .map(|device| (device.id.clone(), device.key.clone().into()))
            .collect::<serde_json::Map<_, _>>(),
    });
    fs::write(&settings, text.to_string())
        .context("could not write the settings of the Node gateway")?;
    let program = folder().join("gateway.js");
    Process::start("Node gateway", "node", [program, settings], trial)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/node")
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}
