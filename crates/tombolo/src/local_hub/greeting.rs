//! What `tombolo emulator` says once it runs: where it listens, what to paste into a sample, how an SDK trusts it.
//!
//! # Keys on the screen
//!
//! A sample wants a connection string with a key in it, so a terminal shows them. They open nothing but a hub on
//! this machine, they were made for it, and who sees the screen is who started it. What is no terminal is kept and read by
//! others: a file, a pipe, the log of a CI run or of a container. There the text names the files that hold them, which only
//! their owner can read.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use iothub::{DeviceId, HubName};

use super::LocalHub;
use crate::curl::{Curl, in_shell};
use crate::data_folder::DataFolder;

/// What opens the hub, as Azure's samples take it.
pub(super) struct ConnectionStrings {
    service: String,
    devices: Vec<(DeviceId, String)>,
    service_file: PathBuf,
    devices_file: PathBuf,
}

impl ConnectionStrings {
    /// Writes them into the data folder.
    ///
    /// # Errors
    ///
    /// When the data folder can not be written.
    pub(super) fn write(hub: &LocalHub, folder: &DataFolder, devices: &[DeviceId]) -> Result<Self> {
        let service = hub
            .emulator
            .service_connection_string("iothubowner")
            .context("the hub has no policy iothubowner")?;
        let with_key = |id: &DeviceId| Ok((id.clone(), hub.emulator.device_connection_string(id)?));
        let strings = Self {
            service,
            devices: devices.iter().map(with_key).collect::<Result<_>>()?,
            service_file: folder.file(SERVICE_STRING),
            devices_file: folder.file(DEVICE_STRINGS),
        };
        let lines = |strings: &mut dyn Iterator<Item = &String>| {
            strings.map(|text| format!("{text}\n")).collect::<String>()
        };
        let of_devices = lines(&mut strings.devices.iter().map(|(_, text)| text));
        folder.write_private(SERVICE_STRING, format!("{}\n", strings.service).as_bytes())?;
        folder.write_private(DEVICE_STRINGS, of_devices.as_bytes())?;
        Ok(strings)
    }
}

/// The text; printed by its `Display`.
pub(super) struct Greeting<'a> {
    pub(super) name: &'a HubName,
    pub(super) mqtt: SocketAddr,
    pub(super) https: SocketAddr,
    /// The names, with their addresses, under which programs on this machine find nothing.
    pub(super) unknown: Vec<(&'a HubName, IpAddr)>,
    /// The certificate that an SDK has to trust.
    pub(super) ca: PathBuf,
    pub(super) strings: &'a ConnectionStrings,
    /// Whether the strings themselves are shown, or the files that hold them.
    pub(super) shows_keys: bool,
    pub(super) curl: &'a Curl,
    pub(super) service_url: &'a str,
    /// What repeats the chances of faults.
    pub(super) seed: u64,
    /// Whether what the hub knows is there again at the next start.
    pub(super) keeps: bool,
    /// The other hubs, if there are several.
    pub(super) others: &'a str,
    /// What is to be said of the provisioning service.
    pub(super) provisioning: &'a str,
}

impl fmt::Display for Greeting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, curl, url) = (self.name, self.curl, self.service_url);
        writeln!(
            f,
            "\
The local IoT Hub {name} runs.
{memory}

  MQTT over TLS                    {mqtt}
  HTTPS, and MQTT over WebSocket   {https}
  Chances of faults                --seed {seed} repeats them
",
            mqtt = self.mqtt,
            https = self.https,
            seed = self.seed,
            memory = if self.keeps {
                "What it knows is kept in the data folder (--keep)."
            } else {
                "What it knows is gone when it stops; its keys stay."
            },
        )?;
        self.places(f)?;
        self.strings(f)?;
        write!(f, "{}{}", self.others, self.provisioning)?;
        self.trust(f)?;
        writeln!(
            f,
            "\
List the devices
{curl} {url}/devices

Follow the telemetry
{curl} --no-buffer '{url}/emulator/telemetry?follow=true'

Ctrl-C stops."
        )
    }
}

impl Greeting<'_> {
    /// What keeps an SDK from finding the hub.
    fn places(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (self.mqtt.port(), self.https.port()) != (SDK_MQTT_PORT, SDK_HTTPS_PORT) {
            writeln!(
                f,
                "\
Azure's SDKs know the ports {SDK_MQTT_PORT} and {SDK_HTTPS_PORT} only:
  --hub-mqtt-port {SDK_MQTT_PORT} --hub-https-port {SDK_HTTPS_PORT}
"
            )?;
        }
        if !self.unknown.is_empty() {
            writeln!(f, "This machine does not know these names yet")?;
            for (name, address) in &self.unknown {
                writeln!(f, "  echo '{address} {name}' | sudo tee -a /etc/hosts")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn strings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnectionStrings {
            service,
            devices,
            service_file,
            devices_file,
        } = self.strings;
        let (service_file, devices_file) = (service_file.display(), devices_file.display());
        if !self.shows_keys {
            return writeln!(
                f,
                "\
Connection strings
  devices  {devices_file}
  service  {service_file}
"
            );
        }
        for (id, text) in devices.iter().take(SHOWN_DEVICES) {
            writeln!(f, "Connection string of the device {id}\n{text}\n")?;
        }
        if devices.len() > SHOWN_DEVICES {
            writeln!(
                f,
                "Connection strings of all {} devices\n{devices_file}\n",
                devices.len()
            )?;
        }
        writeln!(f, "Connection string of the service\n{service}\n")
    }

    /// For each language the shortest way that needs no right and changes nothing but the program that is started so.
    fn trust(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\
Let an SDK trust it (docs/emulator.md has more)
  CA={ca}
  Python, device   server_verification_cert=open(CA).read()
  Python, service  export REQUESTS_CA_BUNDLE=$CA
  Node             export NODE_EXTRA_CA_CERTS=$CA
  C#, Go           export SSL_CERT_FILE=$CA              (on Linux)
  Java             keytool -importcert -noprompt -alias tombolo -file $CA \\
                     -keystore tombolo.p12 -storepass tombolo
                   java -Djavax.net.ssl.trustStore=tombolo.p12 ...
  C                IoTHubDeviceClient_LL_SetOption(client, OPTION_TRUSTED_CERT,
                     the text of $CA)
",
            ca = in_shell(&self.ca),
        )
    }
}

/// The ports that Azure's SDKs connect to, whatever a connection string says ("Communicate with your IoT hub using the
/// MQTT protocol"; no connection string has a place for another).
const SDK_MQTT_PORT: u16 = 8883;
const SDK_HTTPS_PORT: u16 = 443;
/// So many fit on a screen; the file has all.
const SHOWN_DEVICES: usize = 3;
const SERVICE_STRING: &str = "hub-service.connection-string";
const DEVICE_STRINGS: &str = "hub-devices.connection-strings";

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said with so many devices.
    fn said(devices: usize, change: impl FnOnce(&mut Greeting<'_>)) -> String {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(parent.path()).unwrap();
        let curl = Curl::new(&folder, "as-cloud", &"secret".into()).unwrap();
        let device = |number| {
            let id: DeviceId = format!("d{number}").parse().unwrap();
            let text = format!("HostName=h;DeviceId={id};SharedAccessKey=a2V5");
            (id, text)
        };
        let strings = ConnectionStrings {
            service: "HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey=a2V5".into(),
            devices: (1..=devices).map(device).collect(),
            service_file: "/d/service".into(),
            devices_file: "/d/devices".into(),
        };
        let mut greeting = Greeting {
            name: &"tombolo-hub.localhost".parse().unwrap(),
            mqtt: SocketAddr::from(([127, 0, 0, 1], 8883)),
            https: SocketAddr::from(([127, 0, 0, 1], 443)),
            unknown: Vec::new(),
            ca: "/d/ca.pem".into(),
            strings: &strings,
            shows_keys: true,
            curl: &curl,
            service_url: "https://localhost:443",
            seed: 7,
            keeps: false,
            others: "",
            provisioning: "",
        };
        change(&mut greeting);
        greeting.to_string()
    }

    #[test]
    fn a_terminal_shows_strings_to_paste() {
        let text = said(2, |_| {});
        for line in [
            "HostName=h;DeviceId=d2;SharedAccessKey=a2V5",
            "HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey=a2V5",
        ] {
            assert!(text.lines().any(|said| said == line), "{text}");
        }
        assert!(
            !text.contains("/etc/hosts") && !text.contains("--hub-"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_terminal_gets_no_key() {
        let text = said(2, |greeting| greeting.shows_keys = false);
        assert!(!text.contains("SharedAccessKey"), "{text}");
        assert!(
            text.contains("/d/service") && text.contains("/d/devices"),
            "{text}"
        );
    }

    #[test]
    fn a_screen_holds_three_devices() {
        let text = said(3, |_| {});
        assert!(
            text.contains("DeviceId=d3;") && !text.contains("of all"),
            "{text}"
        );
        let text = said(4, |_| {});
        assert!(
            !text.contains("DeviceId=d4;") && text.contains("of all 4 devices"),
            "{text}"
        );
    }

    #[test]
    fn what_keeps_an_sdk_away_is_said() {
        let text = said(1, |greeting| {
            greeting.unknown = vec![(greeting.name, greeting.mqtt.ip())];
            greeting.https.set_port(9443);
        });
        assert!(
            text.contains("echo '127.0.0.1 tombolo-hub.localhost' |"),
            "{text}"
        );
        assert!(text.contains("--hub-https-port 443"), "{text}");
    }

    #[test]
    fn all_but_paths_and_strings_fits_into_80_columns() {
        let text = said(4, |greeting| {
            greeting.unknown = vec![(greeting.name, greeting.mqtt.ip())];
            greeting.https.set_port(9443);
        });
        let is_to_copy = |line: &str| line.starts_with("HostName=") || line.starts_with("curl ");
        for line in text.lines().filter(|line| !is_to_copy(line)) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
