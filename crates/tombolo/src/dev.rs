//! `tombolo dev`: gateway and local IoT Hub in one process, ready to try.
//!
//! The two meet here and nowhere else, and only as strangers do: the gateway reaches the hub through its socket, over TLS,
//! by a name that is none of its own.

mod first_message;
mod lines;

use std::fmt::{self, Display};
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use front::ServedName;
use iothub::{DeviceId, HubName, Identity};
use rustls_pki_types::{DnsName, ServerName};
use secrecy::SecretString;
use store::{Scopes, Store, TokenHash, TokenId, TokenOrigin, TokenRecord};
use upstream::config::{DeviceConfig, HubAddress, HubConfig, KeySource};

use self::first_message::Times;
use self::lines::Lines;
use crate::cli::{DevArgs, HUB_NAME};
use crate::config::{Admin, Config};
use crate::curl::Curl;
use crate::data_folder::DataFolder;
use crate::development_ca::{self, CERTIFICATE_PEM, DevelopmentCa, loopback_names};
use crate::gateway::{self, Gateway, Listeners};
use crate::hub_behaviour::Behaviour;
use crate::listen;
use crate::local_hub::{HubPlace, LocalHub};
use crate::logs;
use crate::stop::StopSignals;

/// Runs both until asked to stop.
///
/// # Errors
///
/// When something can not start, the first message does not arrive, or something was cut off at the end.
pub(crate) async fn run(args: DevArgs) -> Result<()> {
    let quiet = logs::Config {
        filter: QUIET.parse()?,
        ..logs::Config::default()
    };
    logs::start(&args.logs.clone().over(quiet))?;
    let hub_name: HubName = HUB_NAME.parse()?;
    if args
        .host
        .as_ref()
        .is_some_and(|host| host.as_ref() == HUB_NAME)
    {
        bail!(
            "--host {HUB_NAME} is the name of the local IoT Hub: the gateway needs one of its own"
        );
    }
    let folder = DataFolder::open(&args.data)?;
    let ca = DevelopmentCa::open(&folder, args.host.as_ref(), SystemTime::now())?;

    let devices = std::slice::from_ref(&args.device);
    let behaviour = Behaviour::from_flags(&args.behaviour)?;
    let place = HubPlace::alone(&hub_name);
    let hub = LocalHub::start(&folder, &ca, &place, devices, &args.hub, behaviour).await?;
    let config = gateway_config(&args, &folder, &ca, &hub, &hub_name)?;
    let admin_token = folder.secret(ADMIN_TOKEN)?;
    let (store, keeper) = gateway::open_store(config.store.clone(), config.disk.clone()).await?;
    let report = keeper.report();
    let gateway = Gateway::start(config, store.clone(), report, admin_token, LISTENERS).await?;

    let token = folder.secret(&format!("device-{}.token", args.device))?;
    let identity = Identity::device(hub_name, args.device.clone());
    admit(&store, identity, &token).await?;
    let address = *gateway
        .front()
        .addresses()
        .first()
        .context("the gateway listens nowhere")?;
    let times = first_message::send(&args.device, &token, address, &hub, ca.certificate()).await?;

    let gateway_url = format!("https://localhost:{}", address.port());
    let welcome = Welcome {
        gateway_url: &gateway_url,
        gateway: &gateway,
        hub: &hub,
        device: &args.device,
        host: args.host.as_ref(),
        folder: &folder,
        ca: &ca,
        times: &times,
        lines: Lines::new(
            &folder,
            Curl::new(&folder, "as-device", &token)?,
            hub.curl(&folder)?,
            &gateway_url,
            hub.service_url(),
            &args.device,
        ),
    };
    let mut signals = StopSignals::catch()?;
    welcome.print()?;

    tokio::select! {
        () = signals.asked() => {}
        () = keeper.failed() => {}
    }
    let stopped = signals.stop(stop(gateway, hub)).await;
    keeper.close().await.and(stopped)
}

/// The gateway first: its sessions say goodbye to the hub.
async fn stop(gateway: Gateway, hub: LocalHub) -> Result<()> {
    let gateway = gateway.stop().await;
    let hub = hub.stop().await;
    gateway.and(hub)
}

/// What a configuration file would say.
fn gateway_config(
    args: &DevArgs,
    folder: &DataFolder,
    ca: &DevelopmentCa,
    hub: &LocalHub,
    hub_name: &HubName,
) -> Result<Config> {
    let mut names = loopback_names();
    names.extend(args.host.clone().map(ServerName::DnsName));
    ca.server_certificate(folder, "gateway", &names, SystemTime::now())?;
    let certificate = folder.file("gateway.pem");
    // Other machines reach the device API only when they are to, and nothing else ever.
    let any_or_loopback = match args.host {
        Some(_) => [0, 0, 0, 0],
        None => [127, 0, 0, 1],
    };
    let front = front::Config {
        listen: vec![SocketAddr::from((any_or_loopback, args.gateway_port))],
        key_file: certificate.clone(),
        certificate_file: certificate,
        names: names
            .iter()
            .map(|name| name.to_str().parse::<ServedName>())
            .collect::<Result<_, _>>()?,
        admin_listen: SocketAddr::from(([127, 0, 0, 1], args.admin_port)),
        ..front::Config::default()
    };
    let mqtt = hub.mqtt_address();
    let upstream = upstream::Config {
        hubs: vec![HubConfig {
            address: Some(HubAddress {
                host: mqtt.ip().to_string(),
                port: Some(mqtt.port()),
            }),
            ca_file: Some(folder.file(CERTIFICATE_PEM)),
            ..HubConfig::new(hub_name.clone())
        }],
        devices: vec![DeviceConfig::new(
            args.device.clone(),
            KeySource::Text(hub.device_key(&args.device).to_base64().into()),
        )],
        method_timeout: TIME_FOR_PEOPLE,
        ..upstream::Config::default()
    };
    let store = store::memory::Config {
        registry_file: Some(folder.file("tokens.json")),
        ..store::memory::Config::default()
    };
    Ok(Config {
        front,
        upstream,
        store,
        disk: Some(store::embedded::Config::new(folder.file(STORE))),
        admin: Admin {
            token_file: folder.file(ADMIN_TOKEN),
        },
        log: logs::Config::default(),
    })
}

/// Lets the sample device in with the token that the data folder keeps for it.
async fn admit(store: &Store, identity: Identity, token: &SecretString) -> Result<()> {
    use secrecy::ExposeSecret as _;
    let id = TokenId("dev".to_owned());
    let hash = TokenHash::of(token.expose_secret());
    let known = store.registry.token(&hash).await?;
    if known.is_some_and(|known| known.identity == identity) {
        return Ok(());
    }
    let record = TokenRecord {
        id,
        identity,
        hash,
        created_at: SystemTime::now().into(),
        expires_at: None,
        scopes: Scopes::ALL,
        origin: TokenOrigin::Operator,
    };
    Ok(store.registry.put_token(record).await?)
}

/// What is printed when everything runs.
struct Welcome<'a> {
    gateway_url: &'a str,
    gateway: &'a Gateway,
    hub: &'a LocalHub,
    device: &'a DeviceId,
    host: Option<&'a DnsName<'static>>,
    folder: &'a DataFolder,
    ca: &'a DevelopmentCa,
    times: &'a Times,
    lines: Lines,
}

impl Welcome<'_> {
    fn print(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{self}")?;
        if let Some(host) = self.host {
            let port = self.gateway_url.rsplit(':').next().unwrap_or_default();
            writeln!(
                out,
                "Devices in the local network reach the device API, and nothing else, as https://{}:{port}.\n{}\n",
                host.as_ref(),
                self.ca.instructions(self.folder)?
            )?;
        }
        writeln!(out, "Ctrl-C stops.")?;
        Ok(out.flush()?)
    }
}

impl Display for Welcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            gateway_url,
            device,
            times,
            lines,
            ..
        } = self;
        writeln!(
            f,
            "\
A gateway runs on this machine, and a local IoT Hub behind it.

  device API     {gateway_url}, for the device {device}
  admin API      http://{admin} (/healthz, /readyz, /metrics, and tombolo token)
  IoT Hub        {HUB_NAME}, MQTT over TLS on {mqtt}
  service API    {service}, of the hub
  data folder    {folder}, for certificates and secrets
",
            admin = self.gateway.front().admin_address(),
            mqtt = self.hub.mqtt_address(),
            service = self.hub.service_url(),
            folder = self.folder.path().display(),
        )?;
        match self.ca.origin() {
            development_ca::Origin::Kept | development_ca::Origin::Made => {}
            development_ca::Origin::Remade { because } => writeln!(
                f,
                "The development CA was made anew, because {because}: devices that trusted it must trust the new one.\n"
            )?,
        }
        writeln!(
            f,
            "First message: from {device} through the gateway to the hub, acknowledged after {} ms, read at the cloud side \
             after {} ms.\n\n\
             To try, line by line, in another terminal; behind each answer stands its status.\n",
            times.acknowledged.as_millis(),
            times.read.as_millis(),
        )?;
        write!(f, "{lines}")
    }
}

const LISTENERS: Listeners = Listeners {
    devices: listen::GATEWAY,
    admin: listen::ADMIN,
};
const ADMIN_TOKEN: &str = "admin.token";
/// The folder in the data folder for what must survive.
const STORE: &str = "store";
/// So that what was printed stays in sight.
const QUIET: &str = "warn";
/// Who answers direct methods by hand needs a while. It is as long as a caller can wait.
const TIME_FOR_PEOPLE: Duration = Duration::from_secs(300);
