//! The devices that take part.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use iothub::sas::Key;
use serde::{Deserialize, Serialize};

/// One device, as all processes know it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Device {
    /// The name at the hub.
    pub(crate) id: String,
    /// The key at the hub, base64.
    pub(crate) key: String,
    /// What the device shows to the peer.
    pub(crate) token: String,
}

/// All devices of a trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fleet {
    pub(crate) devices: Vec<Device>,
}

impl Fleet {
    /// A fleet of that size, the same in every run.
    ///
    /// The tokens look like the gateway's and are as long, so that every peer reads as many bytes; a peer that checks
    /// them hands out its own.
    pub(crate) fn new(count: usize) -> anyhow::Result<Self> {
        let devices = (0..count).map(|index| {
            let mut bytes = [0x5a; 32];
            bytes[..8].copy_from_slice(&index.to_be_bytes());
            let key = Key::from_bytes(bytes.to_vec()).context("a device key has 32 bytes")?;
            bytes.reverse();
            Ok(Device {
                id: format!("bench-{index:05}"),
                key: key.to_base64(),
                token: format!("tmb_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)),
            })
        });
        Ok(Self {
            devices: devices.collect::<anyhow::Result<_>>()?,
        })
    }

    /// Reads what [`Fleet::write`] wrote.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::open(path).with_context(|| format!("could not open {}", path.display()))?;
        serde_json::from_reader(BufReader::new(file))
            .with_context(|| format!("could not read {}", path.display()))
    }

    /// Writes the fleet down for the other processes.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let file =
            File::create(path).with_context(|| format!("could not create {}", path.display()))?;
        serde_json::to_writer(BufWriter::new(file), self)
            .with_context(|| format!("could not write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.json");
        let fleet = Fleet::new(3).unwrap();
        fleet.write(&path).unwrap();
        let read = Fleet::read(&path).unwrap();
        assert_eq!(read.devices.len(), 3);
        assert_eq!(read.devices[2].id, "bench-00002");
        assert_eq!(read.devices[2].key, fleet.devices[2].key);
        assert_ne!(read.devices[1].token, read.devices[2].token);
    }
}
