//! The local IoT Hub of `dev` and `emulator`: the emulator, with certificates and keys from the data folder.
//!
//! What the hub knows is gone when it stops, who may speak to it is not: all its keys are derived from one that the data
//! folder keeps, so the connection strings of a device and of the service stay good from one start to the next.

mod greeting;
mod places;
mod provisioning;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use emulator::hub::{self, DeviceKeys, DeviceSpec, Policy, Random};
use emulator::{Emulator, StartError};
use iothub::sas::Key;
use iothub::{DeviceId, HubName};
use rustls_pki_types::{DnsName, ServerName};
use secrecy::SecretString;
use tokio::time::Instant;

use self::greeting::{ConnectionStrings, Greeting};
use self::provisioning::LocalProvisioning;
use crate::cli::{EmulatorArgs, HubPorts, Place};
use crate::curl::Curl;
use crate::data_folder::DataFolder;
use crate::development_ca::{CERTIFICATE_PEM, DevelopmentCa, loopback_names};
use crate::hub_behaviour::Behaviour;
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

/// Where a hub listens, and whose keys and certificate it has.
pub(crate) struct HubPlace {
    name: HubName,
    address: IpAddr,
    /// Where a fault moves it.
    other_address: Option<IpAddr>,
    /// What its own secrets are told by among several hubs; those of the only hub are the data folder's.
    own: Option<String>,
}

impl HubPlace {
    /// The only hub.
    pub(crate) fn alone(name: &HubName) -> Self {
        Self {
            name: name.clone(),
            address: Ipv4Addr::LOCALHOST.into(),
            other_address: None,
            own: None,
        }
    }

    fn among_several(place: &Place) -> Self {
        Self {
            name: place.name.clone(),
            address: place.address,
            other_address: None,
            own: Some(format!("hub-{}", place.name)),
        }
    }
}

impl HubPlace {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.address).chain(self.other_address)
    }
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
        place: &HubPlace,
        devices: &[DeviceId],
        ports: &HubPorts,
        behaviour: Behaviour,
    ) -> Result<Self> {
        let mut names = loopback_names();
        names.push(ServerName::DnsName(dns_name(&place.name)?));
        for address in place.addresses() {
            let name = ServerName::IpAddress(address.into());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let stem = place.own.as_deref().unwrap_or("hub");
        let certificate = ca.server_certificate(folder, stem, &names, SystemTime::now())?;
        let tls = emulator::Tls {
            certificates: certificate.chain,
            key: certificate.key,
        };
        let key = folder.key("hub.key")?;
        let keys = Keys(match &place.own {
            None => key,
            Some(own) => key.derive(own),
        });
        let token = folder.secret("hub.token")?;
        let hub = hub::Config::new(place.name.clone(), keys.policies());
        let mut config = emulator::Config {
            devices: devices.iter().map(|id| keys.identity(id)).collect(),
            mqtt: SocketAddr::new(place.address, ports.hub_mqtt_port),
            https: SocketAddr::new(place.address, ports.hub_https_port),
            other_address: place.other_address,
            ..emulator::Config::new(hub, tls, token.clone())
        };
        let addresses = place.addresses().map(|address| address.to_string());
        config.allowed_hosts.extend(addresses);
        behaviour.apply(folder, &mut config);
        let emulator = Emulator::start(config).await.map_err(|error| match error {
            StartError::Bind {
                what,
                address,
                source,
            } => {
                let listener = if what == "MQTT" { HUB_MQTT } else { HUB_HTTPS };
                listener.refused(address, &source)
            }
            other @ (StartError::Tls(_)
            | StartError::Authority(_)
            | StartError::Faults(_)
            | StartError::State(_)
            | StartError::Group { .. }
            | StartError::Device { .. }) => {
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

    /// Where the service API is. `localhost` is one address; a hub elsewhere is asked for by its own.
    pub(crate) fn service_url(&self) -> String {
        let address = self.emulator.https_address();
        if address.ip() == Ipv4Addr::LOCALHOST {
            format!("https://localhost:{}", address.port())
        } else {
            format!("https://{address}")
        }
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
            authentication: Some(keys.into()),
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
    places::check(&args)?;
    logs::start(&args.logs.over(logs::Config::default()))?;
    let folder = DataFolder::open(&args.data)?;
    let first = args.hub.first().map_or(&args.hub_name, |hub| &hub.name);
    let name = dns_name(first)?;
    let ca = DevelopmentCa::open(&folder, Some(&name), SystemTime::now())?;
    let behaviour = Behaviour::from_flags(&args.behaviour)?;
    let places: Vec<_> = match args.hub.as_slice() {
        [] => vec![HubPlace {
            other_address: args.failover_address,
            ..HubPlace::alone(&args.hub_name)
        }],
        hubs => hubs.iter().map(HubPlace::among_several).collect(),
    };
    let (mut hubs, mut devices) = (Vec::new(), args.device.as_slice());
    for place in &places {
        let behaviour = behaviour.clone();
        let hub = LocalHub::start(&folder, &ca, place, devices, &args.ports, behaviour).await?;
        hubs.push(hub);
        devices = &[];
    }
    let provisioning = LocalProvisioning::start(
        &folder,
        &ca,
        &hubs,
        &args.provisioning,
        &args.ports,
        &behaviour,
    )
    .await?;
    let hub = hubs.first().context("there is a hub at least")?;
    let strings = ConnectionStrings::write(hub, &folder, &args.device)?;
    let greeting = Greeting {
        name: hub.emulator.hub_name(),
        mqtt: hub.mqtt_address(),
        https: hub.emulator.https_address(),
        unknown: unknown(&hubs, &provisioning).await,
        ca: folder.file(CERTIFICATE_PEM),
        strings: &strings,
        shows_keys: io::stdout().is_terminal(),
        curl: &hub.curl(&folder)?,
        service_url: &hub.service_url(),
        seed: behaviour.seed(),
        keeps: behaviour.keeps(),
        others: &provisioning::beside(&hubs, &folder)?,
        provisioning: &provisioning.to_string(),
    };
    // Before the greeting, for who reads "Ctrl-C stops" may believe it.
    let mut signals = StopSignals::catch()?;
    write!(io::stdout().lock(), "{greeting}")?;
    signals.asked().await;
    let stop = async {
        provisioning.stop().await?;
        for hub in hubs {
            hub.stop().await?;
        }
        Ok(())
    };
    signals.stop(stop).await
}

/// The names of these that programs on this machine do not find.
async fn unknown<'a>(
    hubs: &'a [LocalHub],
    provisioning: &'a LocalProvisioning,
) -> Vec<(&'a HubName, IpAddr)> {
    let hubs = hubs
        .iter()
        .map(|hub| (hub.emulator.hub_name(), hub.mqtt_address().ip()));
    let deadline = Instant::now() + LOOK_UP;
    let mut unknown = Vec::new();
    for (name, address) in hubs.chain(provisioning.place()) {
        if !is_known(name, address, deadline).await {
            unknown.push((name, address));
        }
    }
    unknown
}

/// Whether programs on this machine find a service under its name. That is so for every name below `.localhost` where
/// something follows RFC 6761, section 6.3, as systemd's resolver does; the C library alone does not. The very address has to be
/// among those that are found: each service has one of its own.
async fn is_known(name: &HubName, address: IpAddr, deadline: Instant) -> bool {
    let looked_up = tokio::net::lookup_host((name.as_str(), 0));
    match tokio::time::timeout_at(deadline, looked_up).await {
        Ok(Ok(mut found)) => found.any(|found| found.ip() == address),
        Ok(Err(_)) | Err(_) => false,
    }
}

fn dns_name(name: &HubName) -> Result<DnsName<'static>> {
    DnsName::try_from(name.to_string())
        .with_context(|| format!("no certificate can be made for the name {name}"))
}

/// Time for the look-up of all names: a resolver that asks the network first must not hold the greeting up.
const LOOK_UP: Duration = Duration::from_millis(250);
const TIME: Duration = Duration::from_millis(500);
