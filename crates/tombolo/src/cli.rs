//! The command line: what can be asked of the program, and the help that teaches it.
//!
//! Every flag can be given as an environment variable too; a test holds them to it.

#[cfg(feature = "emulator")]
use std::net::IpAddr;
#[cfg(feature = "emulator")]
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use api::admin::Side;
use clap::builder::FalseyValueParser;
use clap::{ArgGroup, Args, Parser, Subcommand};
#[cfg(feature = "emulator")]
use emulator::hub::Tier;
#[cfg(feature = "emulator")]
use emulator::provisioning::service::IdScope;
use iothub::{DeviceId, HubName};
#[cfg(feature = "emulator")]
use rustls_pki_types::{DnsName, ServerName};

use crate::logs;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "tombolo",
    version,
    about = "An HTTPS gateway to Azure IoT Hub for devices that speak nothing else",
    long_about = "Tombolo holds a real MQTT session to Azure IoT Hub for every device that can only speak HTTPS (a watch, \
                  a web page, a box behind a strict proxy) and gives that device the whole IoT Hub device API over plain \
                  HTTPS: telemetry, cloud-to-device messages, device twin, direct methods.",
    after_help = "Start here:\n  \
                  tombolo dev          gateway and local IoT Hub on this machine, with lines to try\n  \
                  tombolo help dev     what it can do\n\n\
                  Every flag has an environment variable of its own, named in the command's --help.\n\
                  Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.",
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run gateway and local IoT Hub on this machine, ready to try
    #[cfg(feature = "emulator")]
    #[command(long_about = DEV)]
    Dev(DevArgs),
    /// Run the gateway
    #[command(long_about = SERVE)]
    Serve(ServeArgs),
    /// Run the local IoT Hub alone
    #[cfg(feature = "emulator")]
    #[command(long_about = EMULATOR)]
    Emulator(EmulatorArgs),
    /// Make, list and revoke the tokens with which devices speak to the gateway
    #[command(long_about = TOKEN)]
    Token(TokenArgs),
    /// Look after the folder in which a gateway keeps what must survive
    #[command(long_about = STORE)]
    Store(StoreArgs),
}

/// `tombolo dev`
#[cfg(feature = "emulator")]
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  tombolo dev\n  \
                  tombolo dev --host my-mac.local         for a watch or a phone in the same network\n  \
                  tombolo dev --gateway-port 18443        if port 8443 is taken\n  \
                  tombolo dev --log info                  to see what happens")]
pub struct DevArgs {
    /// Folder for certificates and secrets; made if it is not there
    #[arg(long, env = "TOMBOLO_DATA", value_name = "DIR", default_value = DATA)]
    pub data: PathBuf,
    /// Name under which devices in the local network reach this machine, for example my-mac.local
    #[arg(long, env = "TOMBOLO_HOST", value_name = "NAME", value_parser = host)]
    pub host: Option<DnsName<'static>>,
    /// The sample device
    #[arg(
        long,
        env = "TOMBOLO_DEVICE",
        value_name = "ID",
        default_value = "watch-1"
    )]
    pub device: DeviceId,
    /// Port of the gateway's device API
    #[arg(
        long,
        env = "TOMBOLO_GATEWAY_PORT",
        value_name = "PORT",
        default_value_t = 8443
    )]
    pub gateway_port: u16,
    /// Port of the gateway's admin API and metrics
    #[arg(
        long,
        env = "TOMBOLO_ADMIN_PORT",
        value_name = "PORT",
        default_value_t = 8444
    )]
    pub admin_port: u16,
    /// Where the local IoT Hub listens.
    #[command(flatten)]
    pub hub: HubPorts,
    /// How the local IoT Hub behaves.
    #[command(flatten)]
    pub behaviour: HubBehaviour,
    /// What is logged.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// `tombolo emulator`
#[cfg(feature = "emulator")]
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  \
                  tombolo emulator\n  \
                  tombolo emulator --device sensor-1 --device sensor-2\n  \
                  tombolo emulator --hub-https-port 9443   without a right to port 443, for MQTT and curl\n  \
                  tombolo emulator --tier S1               with its throttles and quota\n  \
                  tombolo emulator --hub east.localhost@127.0.0.1 --hub west.localhost@127.0.0.3\n  \
                  tombolo emulator --faults bad-day.toml --seed 7",
    // Azure's SDKs know no other.
    mut_arg("hub_https_port", |port| port.default_value("443"))
)]
pub struct EmulatorArgs {
    /// Folder for certificates and secrets; made if it is not there
    #[arg(long, env = "TOMBOLO_DATA", value_name = "DIR", default_value = DATA)]
    pub data: PathBuf,
    /// Host name of the hub; names below .localhost and .local need no trust of their own
    #[arg(long, env = "TOMBOLO_HUB_NAME", value_name = "NAME", default_value = HUB_NAME)]
    pub hub_name: HubName,
    /// In place of --hub-name: several hubs, each on a loopback address of its own; devices begin at the first one
    #[arg(
        long,
        env = "TOMBOLO_HUB",
        value_name = "NAME@ADDRESS",
        value_delimiter = ',',
        value_parser = place,
        conflicts_with = "hub_name"
    )]
    pub hub: Vec<Place>,
    /// Another loopback address of the hub, where the fault "fail-over" moves it; until then nobody listens there
    #[arg(
        long,
        env = "TOMBOLO_FAILOVER_ADDRESS",
        value_name = "ADDRESS",
        value_parser = loopback,
        conflicts_with = "hub"
    )]
    pub failover_address: Option<IpAddr>,
    /// A device to begin with; may be given several times (in the variable: with commas between)
    #[arg(
        long,
        env = "TOMBOLO_DEVICE",
        value_name = "ID",
        value_delimiter = ',',
        default_value = "watch-1"
    )]
    pub device: Vec<DeviceId>,
    /// Where the local IoT Hub listens.
    #[command(flatten)]
    pub ports: HubPorts,
    /// The provisioning service beside the hubs.
    #[command(flatten)]
    pub provisioning: ProvisioningArgs,
    /// How the local IoT Hub behaves.
    #[command(flatten)]
    pub behaviour: HubBehaviour,
    /// What is logged.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// Where the local IoT Hub listens.
#[cfg(feature = "emulator")]
#[derive(Debug, Args)]
pub struct HubPorts {
    /// Port of the local IoT Hub for devices (MQTT over TLS)
    #[arg(
        long,
        env = "TOMBOLO_HUB_MQTT_PORT",
        value_name = "PORT",
        default_value_t = 8883
    )]
    pub hub_mqtt_port: u16,
    /// Port of the local IoT Hub for HTTPS (service and device API) and MQTT over WebSocket
    #[arg(
        long,
        env = "TOMBOLO_HUB_HTTPS_PORT",
        value_name = "PORT",
        default_value_t = 9443
    )]
    pub hub_https_port: u16,
}

/// A hub's name and the loopback address where it listens.
#[cfg(feature = "emulator")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: HubName,
    /// Its address.
    pub address: IpAddr,
}

/// The provisioning service beside the hubs.
#[cfg(feature = "emulator")]
#[derive(Debug, Args)]
pub struct ProvisioningArgs {
    /// Run no provisioning service (DPS)
    #[arg(long, env = "TOMBOLO_NO_DPS", value_parser = FalseyValueParser::new())]
    pub no_dps: bool,
    /// Host name of the provisioning service
    #[arg(long, env = "TOMBOLO_DPS_NAME", value_name = "NAME", default_value = DPS_NAME)]
    pub dps_name: HubName,
    /// Its loopback address, other than a hub's, for SDKs know one port only [default: 127.0.0.2, if there is one]
    #[arg(long, env = "TOMBOLO_DPS_ADDRESS", value_name = "ADDRESS", value_parser = loopback)]
    pub dps_address: Option<IpAddr>,
    /// Its port for devices (MQTT over TLS) [default: the hub's]
    #[arg(long, env = "TOMBOLO_DPS_MQTT_PORT", value_name = "PORT")]
    pub dps_mqtt_port: Option<u16>,
    /// Its port for HTTPS and MQTT over WebSocket [default: the hub's]
    #[arg(long, env = "TOMBOLO_DPS_HTTPS_PORT", value_name = "PORT")]
    pub dps_https_port: Option<u16>,
    /// Its id scope; one that stays the same in the data folder if not given
    #[arg(long, env = "TOMBOLO_DPS_ID_SCOPE", value_name = "SCOPE")]
    pub dps_id_scope: Option<IdScope>,
}

/// How the local IoT Hub behaves.
#[cfg(feature = "emulator")]
#[derive(Debug, Args)]
pub struct HubBehaviour {
    /// Throttles and daily quota of a tier: F1, S1, S2 or S3; none if not given
    #[arg(long, env = "TOMBOLO_TIER", value_name = "TIER")]
    pub tier: Option<Tier>,
    /// Units of the tier
    #[arg(
        long,
        env = "TOMBOLO_UNITS",
        value_name = "NUMBER",
        default_value = "1",
        requires = "tier"
    )]
    pub units: NonZeroU32,
    /// Messages of devices that are kept for readers of /emulator/telemetry; the oldest go first
    #[arg(
        long,
        env = "TOMBOLO_TELEMETRY_RECORDS",
        value_name = "NUMBER",
        default_value = "10000"
    )]
    pub telemetry_records: NonZeroUsize,
    /// Bytes of the messages that are kept for readers; the oldest go first
    #[arg(
        long,
        env = "TOMBOLO_TELEMETRY_BYTES",
        value_name = "BYTES",
        default_value = "67108864"
    )]
    pub telemetry_bytes: NonZeroUsize,
    /// File of faults to begin with (TOML, or JSON if its name ends so); the rules are those of /emulator/faults
    #[arg(long, env = "TOMBOLO_FAULTS", value_name = "FILE")]
    pub faults: Option<PathBuf>,
    /// Decides the chances of faults with a probability, so that a run repeats; a random one if not given
    #[arg(long, env = "TOMBOLO_SEED", value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Certificate (PEM) of an authority that devices of the type certificateAuthority may have theirs from; may be given
    /// several times (in the variable: with commas between). Enrollments refer to it by the file's name without .pem
    #[arg(
        long,
        env = "TOMBOLO_DEVICE_CA",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub device_ca: Vec<PathBuf>,
    /// Keep devices, twins, sessions, queued messages and enrollments in the data folder from one start to the next
    #[arg(long, env = "TOMBOLO_KEEP", value_parser = FalseyValueParser::new())]
    pub keep: bool,
}

/// `tombolo serve`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  tombolo serve --config tombolo.toml --check-config      is it right?\n  \
                  tombolo serve --config tombolo.toml --dump-config       what will be in force?\n  \
                  tombolo serve --config tombolo.toml")]
pub struct ServeArgs {
    /// The configuration file (TOML)
    #[arg(long, env = "TOMBOLO_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Lay a value over the file; may be given several times (in the environment: TOMBOLO__FRONT__LISTEN=...)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Read the configuration, name every mistake, and stop
    #[arg(long, env = "TOMBOLO_CHECK_CONFIG", value_parser = FalseyValueParser::new())]
    pub check_config: bool,
    /// Print the configuration as it would be in force, secrets masked, and stop
    #[arg(long, env = "TOMBOLO_DUMP_CONFIG", value_parser = FalseyValueParser::new())]
    pub dump_config: bool,
    /// What is logged.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// What is logged.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, or by part: warn,tombolo_upstream=debug
    #[arg(long, env = "TOMBOLO_LOG", value_name = "FILTER")]
    pub log: Option<logs::Filter>,
    /// Form of the log lines
    #[arg(long, env = "TOMBOLO_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<logs::Format>,
}

/// `tombolo token`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  tombolo token create --device watch-1\n  \
                  tombolo token list --device watch-1\n  \
                  tombolo token revoke --device watch-1 3f9a1c")]
pub struct TokenArgs {
    /// What to do with tokens.
    #[command(subcommand)]
    pub command: TokenCommand,
    /// Which gateway is asked.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// `tombolo store`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  tombolo store count --folder /var/lib/tombolo/store\n  \
                  tombolo store look --folder /var/lib/tombolo/store --device watch-1\n  \
                  tombolo store export --folder /var/lib/tombolo/store --to dead-letters.ndjson\n  \
                  tombolo store replay --folder /var/lib/tombolo/store --device watch-1\n  \
                  tombolo store verify --folder /var/lib/tombolo/store\n  \
                  tombolo store salvage --folder /var/lib/tombolo/store --to /var/lib/tombolo/saved")]
pub struct StoreArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What can be done with a store's folder.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Show what waits and what was given up, a line each; changes nothing
    Look {
        /// Where.
        #[command(flatten)]
        folder: FolderArgs,
        /// Of what.
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Count what there is; changes nothing
    Count {
        /// Where.
        #[command(flatten)]
        folder: FolderArgs,
        /// Count of each device, too
        #[arg(long, env = "TOMBOLO_BY_DEVICE", value_parser = FalseyValueParser::new())]
        by_device: bool,
    },
    /// Write dead letters and what they say as JSON, a line each; changes nothing
    Export {
        /// Where.
        #[command(flatten)]
        folder: FolderArgs,
        /// Of what.
        #[command(flatten)]
        which: WhichArgs,
        /// What waits as well
        #[arg(long, env = "TOMBOLO_ALL", value_parser = FalseyValueParser::new())]
        all: bool,
        /// A new file for the lines, readable for its owner alone; standard output if not given
        #[arg(long, env = "TOMBOLO_TO", value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Put dead letters back, so that the next start sends them on their way again
    #[command(group(ArgGroup::new("whose").args(["device", "all"]).required(true)))]
    Replay {
        /// Where.
        #[command(flatten)]
        folder: FolderArgs,
        /// Of what.
        #[command(flatten)]
        which: WhichArgs,
        /// Of all devices
        #[arg(long, env = "TOMBOLO_ALL", value_parser = FalseyValueParser::new())]
        all: bool,
    },
    /// Read all of it and say whether it is whole; changes nothing
    Verify {
        /// Where.
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Copy what can be read of a damaged one into an empty folder, and list the rest
    Salvage {
        /// The damaged folder; it is left as it is
        #[arg(long, env = "TOMBOLO_FOLDER", value_name = "DIR")]
        folder: PathBuf,
        /// The folder that takes the copy
        #[arg(long, env = "TOMBOLO_TO", value_name = "DIR")]
        to: PathBuf,
    },
}

/// Which folder.
#[derive(Debug, Args)]
pub struct FolderArgs {
    /// The folder, disk.folder in the configuration
    #[arg(long, env = "TOMBOLO_FOLDER", value_name = "DIR")]
    pub folder: PathBuf,
}

/// Which of the things that are kept.
#[derive(Debug, Clone, Args)]
pub struct WhichArgs {
    /// Of this device and its modules alone
    #[arg(long, env = "TOMBOLO_DEVICE", value_name = "ID")]
    pub device: Option<DeviceId>,
    /// Of one box alone: outbox (towards the hub) or inbox (towards devices)
    #[arg(long = "box", env = "TOMBOLO_BOX", value_name = "BOX", value_parser = side)]
    pub side: Option<Side>,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it
    Create {
        /// Whom it speaks for.
        #[command(flatten)]
        device: DeviceArgs,
        /// Days until it ends; for ever if not given
        #[arg(long, env = "TOMBOLO_TOKEN_DAYS", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
    },
    /// List the tokens of a device; the tokens themselves are not kept
    List {
        /// Whose.
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Revoke a token at once
    Revoke {
        /// Whose.
        #[command(flatten)]
        device: DeviceArgs,
        /// The token's id, as create and list print it
        #[arg(env = "TOMBOLO_TOKEN_ID", value_name = "TOKEN-ID")]
        id: String,
    },
}

/// Which device.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// The device
    #[arg(long, env = "TOMBOLO_DEVICE", value_name = "ID")]
    pub device: DeviceId,
    /// Its hub, if the gateway serves several
    #[arg(long, env = "TOMBOLO_HUB", value_name = "NAME")]
    pub hub: Option<HubName>,
}

/// How to reach the admin API of a gateway that runs.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// Address of the gateway's admin API
    #[arg(
        long,
        env = "TOMBOLO_ADMIN",
        value_name = "URL",
        default_value = "http://127.0.0.1:8444",
        global = true
    )]
    pub admin: String,
    /// File with the token of the admin API
    #[arg(
        long,
        env = "TOMBOLO_ADMIN_TOKEN_FILE",
        value_name = "FILE",
        default_value = "./tombolo-data/admin.token",
        global = true
    )]
    pub admin_token_file: PathBuf,
}

impl LogArgs {
    /// The configuration of logs with the flags laid over it.
    #[must_use]
    pub fn over(self, config: logs::Config) -> logs::Config {
        logs::Config {
            filter: self.log.unwrap_or(config.filter),
            format: self.log_format.unwrap_or(config.format),
        }
    }
}

fn side(text: &str) -> Result<Side, &'static str> {
    Side::named(text).ok_or("outbox or inbox is wanted")
}

/// App Transport Security covers addresses too since watchOS 10, so a device would refuse one.
#[cfg(feature = "emulator")]
fn host(text: &str) -> Result<DnsName<'static>, &'static str> {
    match ServerName::try_from(text.to_owned()) {
        Ok(ServerName::DnsName(name)) => Ok(name.to_lowercase_owned()),
        Ok(_) => Err(
            "an address will not do: watches and phones take a name only, for example my-mac.local",
        ),
        Err(_) => Err("a name is wanted, without scheme and port, for example my-mac.local"),
    }
}

/// Nothing of the emulator is for other machines: its keys lie in the data folder of whoever started it.
#[cfg(feature = "emulator")]
fn loopback(text: &str) -> Result<IpAddr, &'static str> {
    let address = text.parse().ok().filter(IpAddr::is_loopback);
    address.ok_or("a loopback address is wanted, for example 127.0.0.2")
}

#[cfg(feature = "emulator")]
fn place(text: &str) -> Result<Place, String> {
    let (name, address) = text
        .split_once('@')
        .ok_or("a name and an address are wanted, for example east.localhost@127.0.0.3")?;
    Ok(Place {
        name: name.parse().map_err(|error| format!("{error}"))?,
        address: loopback(address)?,
    })
}

#[cfg(feature = "emulator")]
const DEV: &str = "Runs the gateway and a local IoT Hub in one process, needs nothing else, and sends a first message \
    through both. Then it prints curl lines, each of which works as printed.\n\n\
    Certificates and random secrets are made once and kept in the data folder. Everything listens on \
    loopback; with --host, the gateway's device API alone listens on the local network too, under that name.";

const SERVE: &str = "Runs the gateway. What it listens on, which hub and which devices it serves come from the configuration \
    file; docs/tombolo.example.toml explains every key.\n\n\
    A value can be laid over the file: TOMBOLO__FRONT__LISTEN=... in the environment, or --set front.listen=... \
    on the command line, which wins. Values are written as in TOML; plain text needs no quotes.";

#[cfg(feature = "emulator")]
const EMULATOR: &str = "Runs the local IoT Hub alone, for the tests of a back end or for Azure's own SDKs: the real hub's rules, \
    no cloud. It listens on loopback. Certificates and keys stay in the data folder; devices, twins and \
    messages are in memory only, or stay as well with --keep.";

const STORE: &str = "Looks after the folder in which a gateway keeps what must survive (disk.folder in its configuration). The \
    gateway must not run meanwhile; one that runs tells the same over its admin API (docs/admin.md).\n\n\
    A dead letter is what was given up: a message that the hub never takes, or one that a device has rejected or let lapse. It \
    can be replayed; what waits needs no help, the next start goes on with it.\n\n\
    A gateway does not start on a damaged folder: it would forget promises without a \
    word. What salvage copies is in order and whole; an outcome that could not be read means that its message is sent once \
    more, under the same id.";

const TOKEN: &str = "Makes, lists and revokes the tokens with which devices speak to the gateway. It asks the admin API of a \
    gateway that runs; a token is shown once, when it is made.";

#[cfg(feature = "emulator")]
const DATA: &str = "./tombolo-data";
/// Below `.localhost`, so that it is on this machine wherever it is resolved (RFC 6761, 6.3), and no name of the gateway.
#[cfg(feature = "emulator")]
pub const HUB_NAME: &str = "tombolo-hub.localhost";

#[cfg(feature = "emulator")]
const DPS_NAME: &str = "tombolo-dps.localhost";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable_of_the_same_name() {
        fn visit(command: &clap::Command) {
            for argument in command.get_arguments() {
                let Some(flag) = argument.get_long() else {
                    continue;
                };
                // Of `--set`, the counterpart is one variable for each key.
                if ["help", "version", "set", "days"].contains(&flag) {
                    continue;
                }
                let expected = format!("TOMBOLO_{}", flag.to_uppercase().replace('-', "_"));
                assert_eq!(argument.get_env().unwrap(), expected.as_str(), "--{flag}");
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&Cli::command());
    }

    #[cfg(feature = "emulator")]
    #[test]
    fn a_host_is_a_name() {
        assert_eq!(host("My-Mac.local").unwrap().as_ref(), "my-mac.local");
        assert!(host("192.168.1.5").unwrap_err().contains("address"));
        for bad in ["https://my-mac.local", "my-mac.local:8443", "", "*.local"] {
            assert!(host(bad).unwrap_err().contains("without scheme"), "{bad}");
        }
    }

    #[cfg(feature = "emulator")]
    #[test]
    fn the_hub_alone_listens_where_sdks_look_for_it() {
        let Command::Emulator(alone) = Cli::parse_from(["tombolo", "emulator"]).command else {
            panic!("another command");
        };
        let Command::Dev(dev) = Cli::parse_from(["tombolo", "dev"]).command else {
            panic!("another command");
        };
        assert_eq!(
            (alone.ports.hub_mqtt_port, alone.ports.hub_https_port),
            (8883, 443)
        );
        assert_eq!(
            (dev.hub.hub_mqtt_port, dev.hub.hub_https_port),
            (8883, 9443)
        );
    }

    #[cfg(feature = "emulator")]
    #[test]
    fn a_hub_has_a_place_on_loopback() {
        let place = place("East.localhost@127.0.0.3").unwrap();
        assert_eq!(place.name.as_str(), "east.localhost");
        assert_eq!(place.address, IpAddr::from([127, 0, 0, 3]));
        for bad in ["east.localhost", "east@10.0.0.1", "@127.0.0.1", "a@b"] {
            let refused = Cli::try_parse_from(["tombolo", "emulator", "--hub", bad]);
            assert_eq!(refused.unwrap_err().exit_code(), 2, "{bad}");
        }
        let both = [
            "tombolo",
            "emulator",
            "--hub",
            "a@127.0.0.1",
            "--hub-name",
            "b",
        ];
        assert!(Cli::try_parse_from(both).is_err());
    }

    #[cfg(feature = "emulator")]
    #[test]
    fn a_wrong_value_names_its_flag() {
        let refused = Cli::try_parse_from(["tombolo", "dev", "--device", "a/b"]).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("--device <ID>"), "{refused}");
    }
}
