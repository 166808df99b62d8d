//! One message from the cloud for each device, so that the memory of a session is that of one which has received.
//!
//! A plain broker is hub enough for this: whoever publishes on a device's topic is the cloud.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use tokio_rustls::TlsConnector;

use super::{Done, Tally};
use crate::fleet::Device;
use crate::http_client::{Connection, Prepared};
use crate::mqtt::Session;
use crate::tls::{self, Endpoint};

/// Publishes one message to each device, and returns when the hub has them all.
pub(super) async fn publish(hub: &Endpoint, devices: &[Device]) -> anyhow::Result<()> {
    let tls = TlsConnector::from(tls::client(&hub.ca_file, &[])?);
    let cloud = Device {
        id: "bench-cloud".to_owned(),
        key: devices
            .first()
            .map(|device| device.key.clone())
            .unwrap_or_default(),
        token: String::new(),
    };
    let mut cloud = Session::open(hub, &tls, &cloud).await?;
    let mut out = Vec::new();
    for device in devices {
        let id = &device.id;
        let topic = format!(
            "devices/{id}/messages/devicebound/%24.mid=bench&%24.to=%2Fdevices%2F{id}%2Fmessages%2Fdevicebound"
        );
        out.clear();
        let number = cloud.publish(&topic, b"{}", &mut out)?;
        cloud.write(&out).await?;
        while !cloud.acknowledged().await?.contains(&number) {}
    }
    Ok(())
}

/// Receives and completes the message of each device.
pub(super) async fn receive(
    mut connection: Connection,
    peer: Endpoint,
    devices: Vec<Device>,
) -> Done {
    let mut tally = Tally::new(&[StatusCode::NO_CONTENT])?;
    for Device { id, token, .. } in devices {
        let begun = Instant::now();
        let path = format!("/devices/{id}/messages/devicebound");
        let lock = next_lock(
            &mut connection,
            &Prepared::new(&peer, Method::GET, &path, &token, "")?,
        )
        .await
        .with_context(|| format!("{id} did not receive its message"))?;
        let path = format!("{path}/{lock}");
        let complete = Prepared::new(&peer, Method::DELETE, &path, &token, "")?;
        tally.count(connection.exchange(&complete).await?.status, begun);
    }
    Ok((connection, tally))
}

/// The lock token is the answer's ETag.
async fn next_lock(connection: &mut Connection, get: &Prepared) -> anyhow::Result<String> {
    let until = Instant::now() + ARRIVAL;
    loop {
        let answer = connection.exchange(get).await?;
        match answer.status {
            StatusCode::OK => {
                let etag = answer.etag.context("the message has no lock token")?;
                return Ok(etag.trim_matches('"').to_owned());
            }
            StatusCode::NO_CONTENT if Instant::now() < until => {
                tokio::time::sleep(AGAIN).await;
            }
            other => bail!("GET was answered with {other}"),
        }
    }
}

/// A message that takes longer is lost.
const ARRIVAL: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(5);
