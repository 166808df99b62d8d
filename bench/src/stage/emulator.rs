//! The emulator as hub: `tombolo emulator`, in a process of its own.
//!
//! It checks what IoT Hub checks, so its share of the machine is larger than mosquitto's and the peers look more alike.
//! Devices are registered through its service API, like at any hub.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use serde_json::json;
use tokio_rustls::TlsConnector;

use super::certificates::HUB;
use super::{Hub, free_address};
use crate::fleet::Fleet;
use crate::http_client::{Connection, Prepared};
use crate::process::Process;
use crate::rig::Rig;
use crate::tls::{self, Endpoint};

pub(super) fn start(rig: &Rig, folder: &Path) -> anyhow::Result<Hub> {
    let data = folder.join("emulator");
    let endpoint = |name: &str| {
        anyhow::Ok(Endpoint {
            address: free_address()?,
            name: name.to_owned(),
            ca_file: data.join("ca.pem"),
        })
    };
    let (devices, service) = (endpoint(HUB)?, endpoint("localhost")?);
    let ports = [&devices, &service].map(|endpoint| endpoint.address.port().to_string());
    let arguments = [
        "emulator".as_ref(),
        "--data".as_ref(),
        data.as_os_str(),
        "--hub-name".as_ref(),
        HUB.as_ref(),
        "--hub-mqtt-port".as_ref(),
        ports[0].as_ref(),
        "--hub-https-port".as_ref(),
        ports[1].as_ref(),
    ];
    Ok(Hub {
        process: Process::start("emulator", rig.tombolo()?, arguments, folder)?,
        endpoint: devices,
        service: Some(service),
        start: Duration::ZERO,
    })
}

/// Makes the devices known, with their keys.
pub(super) async fn register(service: &Endpoint, fleet: &Fleet) -> anyhow::Result<()> {
    let token = fs::read_to_string(service.ca_file.with_file_name("hub.token"))
        .context("could not read the emulator's token")?;
    let tls = TlsConnector::from(tls::client(&service.ca_file, &[tls::HTTP1])?);
    let mut connection = Connection::open(service, &tls).await?;
    for device in &fleet.devices {
        let body = json!({
            "deviceId": device.id,
            "authentication": {
                "type": "sas",
                "symmetricKey": { "primaryKey": device.key, "secondaryKey": device.key },
            },
        });
        let path = format!("/devices/{}?api-version=2021-04-12", device.id);
        let request = Prepared::new(service, Method::PUT, &path, token.trim(), &body.to_string())?;
        let status = connection.exchange(&request).await?.status;
        if status != StatusCode::OK {
            bail!("the emulator refused to register {}: {status}", device.id);
        }
    }
    Ok(())
}
