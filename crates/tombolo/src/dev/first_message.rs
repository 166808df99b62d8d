//! The first message: a device's, over the whole road, read back at the cloud side.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use iothub::DeviceId;
use reqwest::{Certificate, Client, Response};
use rustls_pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::lines::in_path;
use crate::http_client;
use crate::local_hub::LocalHub;

/// How long a first message took.
pub(super) struct Times {
    /// Until the hub had acknowledged it; the session with the hub was opened for it.
    pub(super) acknowledged: Duration,
    /// Until it was read at the cloud side.
    pub(super) read: Duration,
}

/// Sends it as a device does, and reads it as a back end does.
///
/// # Errors
///
/// When it did not arrive.
pub(super) async fn send(
    device: &DeviceId,
    token: &SecretString,
    gateway: SocketAddr,
    hub: &LocalHub,
    root: &CertificateDer<'_>,
) -> Result<Times> {
    let root = Certificate::from_der(root)?;
    // Where the gateway is, is known; `localhost` may be looked up otherwise.
    let loopback = SocketAddr::from(([127, 0, 0, 1], gateway.port()));
    let client = http_client::trusting([root]).resolve("localhost", loopback);
    let client = http_client::build(client)?;

    let text = json!({ "hello": format!("from {device}") }).to_string();
    let start = Instant::now();
    let url = format!(
        "https://localhost:{}/devices/{}/messages/events",
        gateway.port(),
        in_path(device)
    );
    let request = client.post(url).bearer_auth(token.expose_secret());
    let answer = request.body(text.clone()).send().await;
    success(answer.context("the gateway did not answer")?)
        .await
        .context("the gateway did not take the first message")?;
    let acknowledged = start.elapsed();

    let telemetry = read(&client, hub).await?;
    ensure!(
        telemetry
            .lines()
            .any(|line| is_message(line, device, &text)),
        "the hub acknowledged the first message and does not show it"
    );
    Ok(Times {
        acknowledged,
        read: start.elapsed(),
    })
}

async fn read(client: &Client, hub: &LocalHub) -> Result<String> {
    let url = format!("{}/emulator/telemetry", hub.service_url());
    let request = client.get(url).bearer_auth(hub.token().expose_secret());
    let answer = request.send().await;
    success(answer.context("the local IoT Hub did not answer")?)
        .await
        .context("the telemetry could not be read at the cloud side")
}

fn is_message(line: &str, device: &DeviceId, text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(line)
        .is_ok_and(|record| record["deviceId"] == device.as_str() && record["body"] == text)
}

async fn success(answer: Response) -> Result<String> {
    let status = answer.status();
    let body = answer.bytes().await?;
    if !status.is_success() {
        bail!("{status}: {}", http_client::problem(&body));
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}
