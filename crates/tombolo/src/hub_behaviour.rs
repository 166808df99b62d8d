//! How the local IoT Hub behaves, from the flags that say so.

use std::path::Path;

use anyhow::{Context as _, Result};
use emulator::hub::{self, Capacity, FaultRule};
use emulator::{FaultFormat, parse_faults};

use crate::cli::HubBehaviour;
use crate::data_folder::DataFolder;

/// How the local IoT Hub behaves.
#[derive(Clone)]
pub(crate) struct Behaviour {
    capacity: Option<Capacity>,
    faults: Vec<FaultRule>,
    seed: u64,
    keeps: bool,
}

impl Behaviour {
    /// Reads the file of faults and throws the dice for a seed, if need be.
    ///
    /// # Errors
    ///
    /// When the file can not be read, or the tier has not so many units.
    pub(crate) fn from_flags(flags: &HubBehaviour) -> Result<Self> {
        let capacity = flags.tier.map(|tier| Capacity::new(tier, flags.units));
        let faults = flags.faults.as_deref().map(read_faults);
        Ok(Self {
            capacity: capacity.transpose().context("--units")?,
            faults: faults.transpose()?.unwrap_or_default(),
            seed: match flags.seed {
                Some(seed) => seed,
                None => short_seed()?,
            },
            keeps: flags.keep,
        })
    }

    /// Says it to an emulator that is to be started.
    pub(crate) fn apply(self, folder: &DataFolder, config: &mut emulator::Config) {
        let hub::Config {
            capacity,
            fault_seed,
            ..
        } = &mut config.hub;
        *capacity = self.capacity;
        *fault_seed = self.seed;
        config.faults = self.faults;
        let file = || folder.file(&format!("{}.state", config.hub.name));
        config.state = self.keeps.then(file);
    }

    /// Whether what the hub knows is there again at the next start.
    pub(crate) const fn keeps(&self) -> bool {
        self.keeps
    }

    /// What decides the chances of faults.
    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }
}

fn read_faults(path: &Path) -> Result<Vec<FaultRule>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the faults in {}", path.display()))?;
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let format = if is_json {
        FaultFormat::Json
    } else {
        FaultFormat::Toml
    };
    parse_faults(&text, format)
        .with_context(|| format!("the faults in {} can not be used", path.display()))
}

/// Few enough digits to be typed again.
fn short_seed() -> Result<u64> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).context("the system gave no random bytes")?;
    Ok(u32::from_le_bytes(bytes).into())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn flags() -> HubBehaviour {
        HubBehaviour {
            tier: None,
            units: NonZeroU32::MIN,
            faults: None,
            seed: None,
            keep: false,
        }
    }

    #[test]
    fn a_seed_that_is_given_is_kept_and_another_is_made() {
        let given = HubBehaviour {
            seed: Some(7),
            ..flags()
        };
        assert_eq!(Behaviour::from_flags(&given).unwrap().seed(), 7);
        let made = || Behaviour::from_flags(&flags()).unwrap().seed();
        assert!((0..8).any(|_| made() != made()));
    }

    #[test]
    fn a_mistake_names_file_line_and_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad-day.toml");
        std::fs::write(
            &path,
            "[[rules]]\nfault = { kind = \"unreachable\" }\ntimes = 0\n",
        )
        .unwrap();
        let bad = HubBehaviour {
            faults: Some(path),
            ..flags()
        };
        let error = Behaviour::from_flags(&bad).err().unwrap();
        let chain = format!("{error:#}");
        assert!(chain.contains("bad-day.toml"), "{chain}");
        assert!(chain.contains("line 3: rules[0].times"), "{chain}");
    }
}
