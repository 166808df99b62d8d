//! That no two services of `tombolo emulator` have one name or one address. Left to the system, the second would find its
//! port "taken by another program", and of two with one name nobody could tell which a program finds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use iothub::HubName;

use super::provisioning;
use crate::cli::EmulatorArgs;
use crate::config::{Mistake, Mistakes, Origin};

struct Service<'a> {
    name: &'a HubName,
    named_by: &'static str,
    placed_by: &'static str,
    /// For MQTT, and for HTTPS.
    listens: [SocketAddr; 2],
}

/// Looks at what the flags say, before anything is started.
///
/// # Errors
///
/// Every name and every address that two have.
pub(super) fn check(args: &EmulatorArgs) -> Result<(), Mistakes> {
    let services = services(args);
    let mut mistakes = Vec::new();
    for (index, service) in services.iter().enumerate() {
        let before = services.iter().take(index);
        if before.clone().any(|other| other.name == service.name) {
            mistakes.push(at_flag(
                service.named_by,
                format!(
                    "two services are named {}: each wants a name of its own",
                    service.name
                ),
            ));
        }
        let taken = |address: &&SocketAddr| {
            let mut taken = before.clone().flat_map(|other| other.listens);
            // With port 0 the system gives each a port of its own.
            address.port() != 0 && taken.any(|other| other == **address)
        };
        if let Some(address) = service.listens.iter().find(taken) {
            mistakes.push(at_flag(
                service.placed_by,
                format!(
                    "{address} is where another service of this command listens: {} wants an address of its own",
                    service.name
                ),
            ));
        }
    }
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(Mistakes(mistakes))
    }
}

fn services(args: &EmulatorArgs) -> Vec<Service<'_>> {
    let (mqtt, https) = (args.ports.hub_mqtt_port, args.ports.hub_https_port);
    let at = |address: IpAddr, mqtt, https| {
        [
            SocketAddr::new(address, mqtt),
            SocketAddr::new(address, https),
        ]
    };
    let hub = |name, address| Service {
        name,
        named_by: "--hub",
        placed_by: "--hub",
        listens: at(address, mqtt, https),
    };
    let mut services: Vec<_> = match args.hub.as_slice() {
        [] => vec![hub(&args.hub_name, Ipv4Addr::LOCALHOST.into())],
        hubs => hubs.iter().map(|p| hub(&p.name, p.address)).collect(),
    };
    let dps = &args.provisioning;
    if !dps.no_dps {
        services.push(Service {
            name: &dps.dps_name,
            named_by: "--dps-name",
            placed_by: "--dps-address",
            listens: at(
                dps.dps_address.unwrap_or(provisioning::ADDRESS),
                dps.dps_mqtt_port.unwrap_or(mqtt),
                dps.dps_https_port.unwrap_or(https),
            ),
        });
    }
    services
}

fn at_flag(flag: &'static str, problem: String) -> Mistake {
    Mistake {
        origin: Some(Origin::Flag(flag)),
        key: String::new(),
        problem,
        example: None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn judged(flags: &str) -> String {
        let line = ["tombolo", "emulator"].into_iter();
        let cli = Cli::try_parse_from(line.chain(flags.split_whitespace())).unwrap();
        let Command::Emulator(args) = cli.command else {
            panic!("another command");
        };
        check(&args).map_or_else(|mistakes| mistakes.to_string(), |()| String::new())
    }

    #[test]
    fn services_that_keep_apart_are_left_alone() {
        for flags in [
            "",
            "--hub a.localhost@127.0.0.1 --hub b.localhost@127.0.0.3",
            "--hub a.localhost@127.0.0.2 --no-dps",
            "--dps-address 127.0.0.1 --dps-mqtt-port 8884 --dps-https-port 444",
            "--dps-address 127.0.0.1 --hub-mqtt-port 0 --hub-https-port 0",
        ] {
            assert_eq!(judged(flags), "", "{flags}");
        }
    }

    #[test]
    fn two_with_one_name_or_one_address_are_told_with_the_flag() {
        for (flags, said) in [
            (
                "--hub a.localhost@127.0.0.3 --hub a.localhost@127.0.0.4",
                "--hub: two services are named a.localhost",
            ),
            (
                "--hub a.localhost@127.0.0.3 --hub b.localhost@127.0.0.3",
                "--hub: 127.0.0.3:8883 is where another service",
            ),
            (
                "--hub a.localhost@127.0.0.2",
                "--dps-address: 127.0.0.2:8883 is where",
            ),
            (
                "--dps-address 127.0.0.1 --dps-mqtt-port 8884",
                "--dps-address: 127.0.0.1:443 is where",
            ),
            (
                "--dps-name tombolo-hub.localhost",
                "--dps-name: two services are named tombolo-hub.localhost",
            ),
        ] {
            let mistakes = judged(flags);
            assert!(mistakes.contains(said), "{flags}: {mistakes}");
        }
    }
}
