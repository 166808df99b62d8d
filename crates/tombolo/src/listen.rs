//! What to say when an address can not be listened on: which one, and what changes it.

use std::io;
use std::net::SocketAddr;

use anyhow::anyhow;

/// An address that the program was told to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// What listens there, for example "the gateway's device API".
    pub what: &'static str,
    /// What changes it, for example "--gateway-port PORT (TOMBOLO_GATEWAY_PORT)".
    pub changed_by: &'static str,
}

/// The gateway's device API of `dev`.
pub const GATEWAY: Listener = Listener {
    what: "the gateway's device API",
    changed_by: "--gateway-port PORT (TOMBOLO_GATEWAY_PORT)",
};
/// The gateway's admin API of `dev`.
pub const ADMIN: Listener = Listener {
    what: "the gateway's admin API",
    changed_by: "--admin-port PORT (TOMBOLO_ADMIN_PORT)",
};
/// The local IoT Hub for devices.
pub const HUB_MQTT: Listener = Listener {
    what: "the local IoT Hub (MQTT)",
    changed_by: "--hub-mqtt-port PORT (TOMBOLO_HUB_MQTT_PORT)",
};
/// The local IoT Hub over HTTPS.
pub const HUB_HTTPS: Listener = Listener {
    what: "the local IoT Hub (HTTPS)",
    changed_by: "--hub-https-port PORT (TOMBOLO_HUB_HTTPS_PORT)",
};
/// The local provisioning service for devices.
pub const DPS_MQTT: Listener = Listener {
    what: "the local provisioning service (MQTT)",
    changed_by: "--dps-mqtt-port PORT (TOMBOLO_DPS_MQTT_PORT), --dps-address, or have none with --no-dps",
};
/// The local provisioning service over HTTPS.
pub const DPS_HTTPS: Listener = Listener {
    what: "the local provisioning service (HTTPS)",
    changed_by: "--dps-https-port PORT (TOMBOLO_DPS_HTTPS_PORT), --dps-address, or have none with --no-dps",
};

impl Listener {
    /// Why the program can not listen there, and what to do.
    #[must_use]
    pub fn refused(self, address: SocketAddr, error: &io::Error) -> anyhow::Error {
        let Self { what, changed_by } = self;
        let port = address.port();
        let kind = error.kind();
        if kind == io::ErrorKind::AddrInUse {
            anyhow!(
                "port {port} for {what} is taken by another program: stop that one, or choose another port with \
                 {changed_by}"
            )
        } else if kind == io::ErrorKind::PermissionDenied {
            anyhow!(
                "port {port} for {what} is kept for privileged programs:{ways} choose one from 1024 up with {changed_by}",
                ways = ways_to_listen(port),
            )
        } else if kind == io::ErrorKind::AddrNotAvailable {
            anyhow!(
                "{what} can not listen on {address}, which is no address of this machine: choose another with \
                 {changed_by}"
            )
        } else {
            anyhow!("{what} can not listen on {address}: {error}; {changed_by} changes it")
        }
    }
}

/// How a program of an ordinary user comes to listen on a port below 1024, where the system has ways.
#[cfg(target_os = "linux")]
fn ways_to_listen(port: u16) -> String {
    let program = std::env::current_exe().map_or_else(
        |_| "the program".to_owned(),
        |path| path.display().to_string(),
    );
    format!(
        "\n  \
           let every program have it until the next boot: sudo sysctl net.ipv4.ip_unprivileged_port_start={port}\n  \
           let this program have it: sudo setcap cap_net_bind_service=+ep {program}\n  \
           or"
    )
}

/// Elsewhere there is none that is worth its trouble.
#[cfg(not(target_os = "linux"))]
fn ways_to_listen(_port: u16) -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_privileged_port_is_named_with_the_ways_to_it() {
        let address = SocketAddr::from(([127, 0, 0, 1], 443));
        let denied = io::ErrorKind::PermissionDenied.into();
        let text = HUB_HTTPS.refused(address, &denied).to_string();
        for way in [
            "sudo sysctl net.ipv4.ip_unprivileged_port_start=443",
            "sudo setcap cap_net_bind_service=+ep ",
            "or choose one from 1024 up with --hub-https-port",
        ] {
            assert!(text.contains(way), "{text}");
        }
    }

    #[test]
    fn a_taken_port_is_named_with_what_changes_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = TcpListener::bind(address).unwrap_err();
        let text = GATEWAY.refused(address, &error).to_string();
        assert!(text.contains(&format!("port {}", address.port())), "{text}");
        assert!(
            text.contains("--gateway-port") && text.contains("TOMBOLO_GATEWAY_PORT"),
            "{text}"
        );
    }
}
