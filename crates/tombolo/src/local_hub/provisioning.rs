//! The provisioning service of `tombolo emulator`: it assigns devices to the local hubs.
//!
//! It has a loopback address of its own, because Azure's SDKs know one port only and the hub has it. Linux has 127.0.0.2 from
//! the start; where a system has it not and nobody asked for it, there is no provisioning service, and the text says so.

use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use emulator::hub::DeviceKeys;
use emulator::provisioning::service::{
    self, Attestation, Certificate, Group, GroupId, IdScope, OWNER, Terms,
};
use emulator::provisioning::{Config, Provisioning};
use emulator::{StartError, Tls};
use iothub::HubName;
use iothub::sas::Key;
use rustls_pki_types::ServerName;

use super::{LocalHub, TIME, dns_name};
use crate::cli::{HubPorts, ProvisioningArgs};
use crate::data_folder::DataFolder;
use crate::development_ca::{DevelopmentCa, loopback_names};
use crate::hub_behaviour::Behaviour;
use crate::listen::{DPS_HTTPS, DPS_MQTT};

/// The provisioning service, or why there is none. Its `Display` is what the greeting says.
pub(super) enum LocalProvisioning {
    Runs(Box<Runs>),
    /// Nobody wants it.
    Unwanted,
    /// The machine has not this address.
    NoAddress(IpAddr),
}

/// A provisioning service that runs, with a group that devices may use at once.
pub(super) struct Runs {
    provisioning: Provisioning,
    name: HubName,
    connection_string: PathBuf,
    /// The file with the key of the group; none if an operator gave it another proof than keys, or took it away.
    group_key: Option<PathBuf>,
}

impl LocalProvisioning {
    /// # Errors
    ///
    /// When the data folder can not be used, or a port is taken.
    pub(super) async fn start(
        folder: &DataFolder,
        ca: &DevelopmentCa,
        hubs: &[LocalHub],
        args: &ProvisioningArgs,
        ports: &HubPorts,
        behaviour: &Behaviour,
    ) -> Result<Self> {
        if args.no_dps {
            return Ok(Self::Unwanted);
        }
        let address = args.dps_address.unwrap_or(ADDRESS);
        let mut names = loopback_names();
        names.push(ServerName::DnsName(dns_name(&args.dps_name)?));
        if !names.contains(&ServerName::IpAddress(address.into())) {
            names.push(ServerName::IpAddress(address.into()));
        }
        let certificate = ca.server_certificate(folder, "dps", &names, SystemTime::now())?;
        let tls = Tls {
            certificates: certificate.chain,
            key: certificate.key,
        };
        let key = folder.key("dps.key")?;
        let id_scope = match &args.dps_id_scope {
            Some(id_scope) => id_scope.clone(),
            None => id_scope(&key)?,
        };
        let mut rules = service::Config::new(args.dps_name.clone(), id_scope, key.derive("owner"));
        for (name, certificate) in behaviour.authorities() {
            let certificate = Certificate::from_der(certificate)?;
            rules.authorities.insert(name.clone(), certificate);
        }
        let handles = hubs.iter().map(|hub| hub.emulator.handle()).collect();
        let group: GroupId = GROUP.parse()?;
        let keys = DeviceKeys {
            primary: key.derive("group/primary"),
            secondary: key.derive("group/secondary"),
        };
        let terms = Terms::new(Attestation::SymmetricKey(keys));
        let file = || folder.file(&format!("{}.state", args.dps_name));
        let mut config = Config {
            groups: vec![(group.clone(), Group { terms })],
            state: behaviour.keeps().then(file),
            mqtt: SocketAddr::new(address, args.dps_mqtt_port.unwrap_or(ports.hub_mqtt_port)),
            https: SocketAddr::new(address, args.dps_https_port.unwrap_or(ports.hub_https_port)),
            ..Config::new(rules, handles, tls, folder.secret("hub.token")?)
        };
        config.allowed_hosts.push(address.to_string());
        let provisioning = match Provisioning::start(config).await {
            Ok(provisioning) => provisioning,
            Err(StartError::Bind { source, .. })
                if source.kind() == io::ErrorKind::AddrNotAvailable
                    && args.dps_address.is_none() =>
            {
                return Ok(Self::NoAddress(address));
            }
            Err(StartError::Bind {
                what,
                address,
                source,
            }) => {
                let listener = if what == "MQTT" { DPS_MQTT } else { DPS_HTTPS };
                return Err(listener.refused(address, &source));
            }
            Err(
                other @ (StartError::Tls(_)
                | StartError::Authority(_)
                | StartError::Faults(_)
                | StartError::State(_)
                | StartError::Group { .. }
                | StartError::Device { .. }),
            ) => {
                return Err(anyhow::Error::new(other)
                    .context("could not start the local provisioning service"));
            }
        };
        // What was kept may have other keys than those that it began with.
        let key = provisioning.with_service(|service, _| {
            let attestation = service.group(&group).map(|group| &group.terms.attestation);
            match attestation {
                Ok(Attestation::SymmetricKey(keys)) => Some(keys.primary.to_base64()),
                Ok(Attestation::X509(_) | Attestation::CaReferences { .. }) | Err(_) => None,
            }
        });
        if let Some(key) = &key {
            folder.write_private(GROUP_KEY, format!("{key}\n").as_bytes())?;
        }
        let text = provisioning
            .connection_string(OWNER)
            .with_context(|| format!("the provisioning service has no policy {OWNER}"))?;
        folder.write_private(CONNECTION_STRING, format!("{text}\n").as_bytes())?;
        Ok(Self::Runs(Box::new(Runs {
            provisioning,
            name: args.dps_name.clone(),
            connection_string: folder.file(CONNECTION_STRING),
            group_key: key.map(|_| folder.file(GROUP_KEY)),
        })))
    }

    /// Its name and its address, if it runs.
    pub(super) fn place(&self) -> Option<(&HubName, IpAddr)> {
        match self {
            Self::Runs(runs) => Some((&runs.name, runs.provisioning.mqtt_address().ip())),
            Self::Unwanted | Self::NoAddress(_) => None,
        }
    }

    /// Closes all connections.
    ///
    /// # Errors
    ///
    /// When some had to be cut.
    pub(super) async fn stop(self) -> Result<()> {
        match self {
            Self::Runs(runs) => Ok(runs.provisioning.shutdown(TIME).await?),
            Self::Unwanted | Self::NoAddress(_) => Ok(()),
        }
    }
}

impl fmt::Display for LocalProvisioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs(runs) => {
                write!(
                    f,
                    "\
Provisioning service {name}
  ID scope                         {scope}
  MQTT over TLS                    {mqtt}
  HTTPS, and MQTT over WebSocket   {https}
  connection string                {string}
",
                    name = runs.name,
                    scope = runs.provisioning.id_scope(),
                    mqtt = runs.provisioning.mqtt_address(),
                    https = runs.provisioning.https_address(),
                    string = runs.connection_string.display(),
                )?;
                if let Some(key) = &runs.group_key {
                    writeln!(f, "  key of the group {GROUP}         {}", key.display())?;
                }
                writeln!(f)
            }
            Self::Unwanted => Ok(()),
            Self::NoAddress(address) => write!(
                f,
                "\
No provisioning service: this machine has no address {address}
  sudo ifconfig lo0 alias {address}     gives it one, on macOS

"
            ),
        }
    }
}

/// What is said of the hubs beside the first one; their connection strings are written into the data folder.
///
/// # Errors
///
/// When the data folder can not be written.
pub(super) fn beside(hubs: &[LocalHub], folder: &DataFolder) -> Result<String> {
    let mut text = String::new();
    for hub in hubs.iter().skip(1) {
        let name = hub.emulator.hub_name();
        let string = hub
            .emulator
            .service_connection_string("iothubowner")
            .context("the hub has no policy iothubowner")?;
        let file = format!("hub-{name}-service.connection-string");
        folder.write_private(&file, format!("{string}\n").as_bytes())?;
        writeln!(
            text,
            "\
The hub {name} beside it
  MQTT over TLS                    {mqtt}
  HTTPS, and MQTT over WebSocket   {https}
  connection string                {file}
",
            mqtt = hub.emulator.mqtt_address(),
            https = hub.emulator.https_address(),
            file = folder.file(&file).display(),
        )?;
    }
    Ok(text)
}

/// `0ne` and eight digits that stay the same as long as the key does.
fn id_scope(key: &Key) -> Result<IdScope> {
    let bytes = STANDARD.decode(key.derive("id-scope").to_base64())?;
    let digits: String = bytes.iter().take(4).map(|b| format!("{b:02X}")).collect();
    Ok(format!("0ne{digits}").parse()?)
}

pub(super) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// The group that is there from the start.
const GROUP: &str = "devices";
const GROUP_KEY: &str = "dps-group-devices.key";
const CONNECTION_STRING: &str = "dps-service.connection-string";
