//! The local IoT Hub of `dev` and `emulator`: the emulator, with certificates and keys from the data folder.
//!
//! What the hub knows is gone when it stops, who may speak to it is not: all its keys are derived from one that the data
//! folder keeps, so the connection strings of a device and of the service stay good from one start to the next.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use emulator::hub::{self, DeviceKeys, DeviceSpec, Policy, Random};
use emulator::{Emulator, StartError};
use iothub::sas::Key;
use iothub::{DeviceId, HubName};
use rustls_pki_types::{DnsName, ServerName};
use secrecy::SecretString;

use crate::cli::{EmulatorArgs, HubPorts};
use crate::curl::Curl;
use crate::data_folder::DataFolder;
use crate::development_ca::{CERTIFICATE_PEM, DevelopmentCa, loopback_names};
use crate::listen::{HUB_HTTPS, HUB_MQTT};
use crate::logs;
use crate::stop::StopSignals;

/// A local IoT Hub that runs.
pub(crate) struct LocalHub {
    emulator: Emulator,
    keys: Keys,
    /// Opens the service API and `/emulator/...`.
    token: SecretString,
}

impl LocalHub {
    /// Starts it on loopback.
    ///
    /// # Errors
    ///
    /// When the data folder can not be used or a port is taken.
    pub(crate) async fn start(
        folder: &DataFolder,
        ca: &DevelopmentCa,
        name: &HubName,
        devices: &[DeviceId],
        ports: &HubPorts,
    ) -> Result<Self> {
        let mut names = loopback_names();
        names.push(ServerName::DnsName(dns_name(name)?));
        let certificate = ca.server_certificate(folder, "hub", &names, SystemTime::now())?;
        let tls = emulator::Tls {
            certificates: certificate.chain,
            key: certificate.key,
        };
        let keys = Keys(folder.key("hub.key")?);
        let token = folder.secret("hub.token")?;
        let hub = hub::Config::new(name.clone(), keys.policies());
        let config = emulator::Config {
            devices: devices.iter().map(|id| keys.identity(id)).collect(),
            mqtt: SocketAddr::from(([127, 0, 0, 1], ports.hub_mqtt_port)),
            https: SocketAddr::from(([127, 0, 0, 1], ports.hub_https_port)),
            ..emulator::Config::new(hub, tls, token.clone())
        };
        let emulator = Emulator::start(config).await.map_err(|error| match error {
            StartError::Bind {
                what,
                address,
                source,
            } => {
                let listener = if what == "MQTT" { HUB_MQTT } else { HUB_HTTPS };
                listener.refused(address, &source)
            }
            other @ (StartError::Tls(_) | StartError::Device { .. }) => {
                anyhow::Error::new(other).context("could not start the local IoT Hub")
            }
        })?;
        Ok(Self {
            emulator,
            keys,
            token,
        })
    }

    /// Closes all connections.
    ///
    /// # Errors
    ///
    /// When some had to be cut.
    pub(crate) async fn stop(self) -> Result<()> {
        Ok(self.emulator.shutdown(TIME).await?)
    }

    /// The key of a device that it was started with.
    pub(crate) fn device_key(&self, device: &DeviceId) -> Key {
        self.keys.of_device(device, "primary")
    }

    /// How curl speaks to it, as the cloud side does.
    ///
    /// # Errors
    ///
    /// When the data folder can not be written.
    pub(crate) fn curl(&self, folder: &DataFolder) -> Result<Curl> {
        Curl::new(folder, "as-cloud", &self.token)
    }

    /// What opens the service API and `/emulator/...`.
    pub(crate) const fn token(&self) -> &SecretString {
        &self.token
    }

    /// Where devices connect.
    pub(crate) const fn mqtt_address(&self) -> SocketAddr {
        self.emulator.mqtt_address()
    }

    /// Where the service API is.
    pub(crate) fn service_url(&self) -> String {
        format!("https://localhost:{}", self.emulator.https_address().port())
    }
}

/// The hub's keys, all derived from one.
struct Keys(Key);

impl Keys {
    fn policies(&self) -> Vec<Policy> {
        // The keys that come with them are not used.
        let mut policies = Policy::defaults(&mut Random::new(|bytes| bytes.fill(0)));
        for policy in &mut policies {
            policy.primary = self.0.derive(&format!("policy/{}/primary", policy.name));
            policy.secondary = self.0.derive(&format!("policy/{}/secondary", policy.name));
        }
        policies
    }

    fn identity(&self, device: &DeviceId) -> (DeviceId, DeviceSpec) {
        let keys = DeviceKeys {
            primary: self.of_device(device, "primary"),
            secondary: self.of_device(device, "secondary"),
        };
        let spec = DeviceSpec {
            keys: Some(keys),
            ..DeviceSpec::default()
        };
        (device.clone(), spec)
    }

    fn of_device(&self, device: &DeviceId, which: &str) -> Key {
        self.0.derive(&format!("device/{device}/{which}"))
    }
}

/// `tombolo emulator`: the local IoT Hub alone, until it is asked to stop.
///
/// # Errors
///
/// When it can not start, or connections had to be cut at the end.
pub(crate) async fn run(args: EmulatorArgs) -> Result<()> {
    logs::start(&args.logs.over(logs::Config::default()))?;
    let folder = DataFolder::open(&args.data)?;
    let name = dns_name(&args.hub_name)?;
    let ca = DevelopmentCa::open(&folder, Some(&name), SystemTime::now())?;
    let hub = LocalHub::start(&folder, &ca, &args.hub_name, &args.device, &args.ports).await?;
    let strings = write_connection_strings(&hub, &folder, &args.device)?;
    print(&hub, &folder, &strings)?;
    let mut signals = StopSignals::catch()?;
    signals.asked().await;
    signals.stop(hub.stop()).await
}

/// Writes the connection strings as Azure's samples take them, and gives the names of the files.
fn write_connection_strings(
    hub: &LocalHub,
    folder: &DataFolder,
    devices: &[DeviceId],
) -> Result<[&'static str; 2]> {
    let of_service = hub
        .emulator
        .service_connection_string("iothubowner")
        .context("the hub has no policy iothubowner")?;
    folder.write_private(SERVICE_STRING, format!("{of_service}\n").as_bytes())?;
    let mut of_devices = String::new();
    for device in devices {
        of_devices += &hub.emulator.device_connection_string(device)?;
        of_devices.push('\n');
    }
    folder.write_private(DEVICE_STRINGS, of_devices.as_bytes())?;
    Ok([SERVICE_STRING, DEVICE_STRINGS])
}

fn print(hub: &LocalHub, folder: &DataFolder, strings: &[&str; 2]) -> Result<()> {
    let [service, devices] = strings.map(|name| folder.file(name).display().to_string());
    let (curl, url) = (hub.curl(folder)?, hub.service_url());
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\
The local IoT Hub {name} runs. What it knows is gone when it stops; its keys stay.

  devices             MQTT over TLS on {mqtt}, for the name {name}
  service API         {url}
  trust               {ca}
  connection strings  {service} (service)
                      {devices} (devices)

List the devices
{curl} {url}/devices

Follow the telemetry
{curl} --no-buffer '{url}/emulator/telemetry?follow=true'

Ctrl-C stops.",
        name = hub.emulator.hub_name(),
        mqtt = hub.mqtt_address(),
        ca = folder.file(CERTIFICATE_PEM).display(),
    )?;
    Ok(out.flush()?)
}

fn dns_name(name: &HubName) -> Result<DnsName<'static>> {
    DnsName::try_from(name.to_string())
        .with_context(|| format!("no certificate can be made for the name {name}"))
}

const SERVICE_STRING: &str = "hub-service.connection-string";
const DEVICE_STRINGS: &str = "hub-devices.connection-strings";
const TIME: Duration = Duration::from_millis(500);
