//! Mosquitto as hub: TLS, nothing kept, nothing logged, nothing limited.
//!
//! It takes any username and password, and IoT Hub's topics are topics like others, so it judges nobody; as a hub it is
//! faster than any that checks.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::certificates::HUB;
use super::{Hub, free_address};
use crate::process::Process;
use crate::rig::Rig;

pub(super) fn start(rig: &Rig, folder: &Path) -> anyhow::Result<Hub> {
    let endpoint = rig.certificates.endpoint(free_address()?, HUB);
    let config = folder.join("mosquitto.conf");
    // `user root`: it would else give up the right to read the key when it is started by root; no other user can be
    // switched from, and then the line means nothing.
    let text = format!(
        "user root\n\
         listener {port} {ip}\n\
         cafile {ca}\n\
         certfile {certificate}\n\
         keyfile {key}\n\
         allow_anonymous true\n\
         persistence false\n\
         log_type error\n\
         log_dest stderr\n\
         connection_messages false\n\
         sys_interval 0\n\
         set_tcp_nodelay true\n\
         max_connections -1\n\
         max_inflight_messages 0\n\
         max_queued_messages 0\n",
        port = endpoint.address.port(),
        ip = endpoint.address.ip(),
        ca = rig.certificates.ca_file.display(),
        certificate = rig.certificates.certificate_file.display(),
        key = rig.certificates.key_file.display(),
    );
    fs::write(&config, text).context("could not write the configuration of mosquitto")?;
    let process = Process::start(
        "mosquitto",
        program(),
        ["-c".as_ref(), config.as_os_str()],
        folder,
    )
    .context("the hub is mosquitto: install the package of that name")?;
    Ok(Hub {
        process,
        endpoint,
        service: None,
        start: Duration::ZERO,
    })
}

/// The Debian package keeps it where only root looks.
fn program() -> &'static str {
    let debian = "/usr/sbin/mosquitto";
    if Path::new(debian).exists() {
        debian
    } else {
        "mosquitto"
    }
}
