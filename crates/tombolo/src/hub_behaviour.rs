//! How the local IoT Hub behaves, from the flags that say so.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context as _, Result};
use emulator::hub::{self, Capacity, FaultRule};
use emulator::{Authority, FaultFormat, parse_faults};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::cli::HubBehaviour;
use crate::config::{Mistake, Mistakes, Origin};
use crate::data_folder::DataFolder;

/// How the local IoT Hub behaves.
#[derive(Clone)]
pub(crate) struct Behaviour {
    capacity: Option<Capacity>,
    telemetry_records: NonZeroUsize,
    telemetry_bytes: NonZeroUsize,
    faults: Vec<FaultRule>,
    /// By the names that enrollments refer to them by.
    authorities: BTreeMap<String, CertificateDer<'static>>,
    seed: u64,
    keeps: bool,
}

impl Behaviour {
    /// Reads the files that they name and throws the dice for a seed, if need be.
    ///
    /// # Errors
    ///
    /// [`Mistakes`] with everything that is wrong with the flags and their files.
    pub(crate) fn from_flags(flags: &HubBehaviour) -> Result<Self> {
        let mut mistakes = Vec::new();
        let capacity = flags.tier.and_then(|tier| {
            Capacity::new(tier, flags.units)
                .map_err(|error| mistakes.push(at_flag("--units", error.to_string())))
                .ok()
        });
        let faults = flags.faults.as_deref().and_then(|path| {
            read_faults(path)
                .map_err(|mistake| mistakes.push(mistake))
                .ok()
        });
        let mut authorities = BTreeMap::new();
        for path in &flags.device_ca {
            match read_authority(path) {
                Ok((name, certificate)) => {
                    if authorities.insert(name.clone(), certificate).is_some() {
                        let problem = format!("two files are named {name}");
                        mistakes.push(at_flag(DEVICE_CA, problem));
                    }
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes).into());
        }
        Ok(Self {
            capacity,
            telemetry_records: flags.telemetry_records,
            telemetry_bytes: flags.telemetry_bytes,
            faults: faults.unwrap_or_default(),
            authorities,
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
            telemetry_records,
            telemetry_bytes,
            fault_seed,
            ..
        } = &mut config.hub;
        *capacity = self.capacity;
        *telemetry_records = self.telemetry_records.get();
        *telemetry_bytes = self.telemetry_bytes.get();
        *fault_seed = self.seed;
        config.faults = self.faults;
        config.authorities = self.authorities.into_values().collect();
        let file = || folder.file(&format!("{}.state", config.hub.name));
        config.state = self.keeps.then(file);
    }

    /// Whether what the hub knows is there again at the next start.
    pub(crate) const fn keeps(&self) -> bool {
        self.keeps
    }

    /// The certificate authorities of devices, by the names that enrollments refer to them by.
    pub(crate) const fn authorities(&self) -> &BTreeMap<String, CertificateDer<'static>> {
        &self.authorities
    }

    /// What decides the chances of faults.
    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }
}

fn read_faults(path: &Path) -> Result<Vec<FaultRule>, Mistake> {
    let text = fs::read_to_string(path).map_err(|error| unreadable("--faults", path, &error))?;
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let format = if is_json {
        FaultFormat::Json
    } else {
        FaultFormat::Toml
    };
    parse_faults(&text, format).map_err(|error| Mistake {
        origin: Some(Origin::File {
            path: path.to_owned(),
            line: error.line.unwrap_or(1),
        }),
        key: error.key,
        problem: error.problem,
        example: None,
    })
}

/// One certificate in PEM, and the file's name without what follows the dot.
fn read_authority(path: &Path) -> Result<(String, CertificateDer<'static>), Mistake> {
    let pem = fs::read(path).map_err(|error| unreadable(DEVICE_CA, path, &error))?;
    let wrong = |problem: &str| at_flag(DEVICE_CA, format!("{}: {problem}", path.display()));
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let Ok([certificate]) = certificates.as_deref() else {
        return Err(wrong("one certificate in PEM is wanted"));
    };
    Authority::read(certificate).map_err(|error| wrong(&error.to_string()))?;
    let name = path.file_stem().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| wrong("the file's name is no text"))?;
    Ok((name.to_owned(), certificate.clone()))
}

fn unreadable(flag: &'static str, path: &Path, error: &std::io::Error) -> Mistake {
    at_flag(flag, format!("could not read {}: {error}", path.display()))
}

fn at_flag(flag: &'static str, problem: String) -> Mistake {
    Mistake {
        origin: Some(Origin::Flag(flag)),
        key: String::new(),
        problem,
        example: None,
    }
}

const DEVICE_CA: &str = "--device-ca";

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
            telemetry_records: NonZeroUsize::MIN,
            telemetry_bytes: NonZeroUsize::MIN,
            faults: None,
            seed: None,
            device_ca: Vec::new(),
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
    fn the_bounds_of_what_is_kept_for_readers_reach_the_hub() {
        let folder = tempfile::tempdir().unwrap();
        let given = HubBehaviour {
            telemetry_records: NonZeroUsize::new(7).unwrap(),
            telemetry_bytes: NonZeroUsize::new(900).unwrap(),
            ..flags()
        };
        let behaviour = Behaviour::from_flags(&given).unwrap();
        let tls = emulator::Tls {
            certificates: Vec::new(),
            key: rcgen::KeyPair::generate().unwrap().into(),
        };
        let hub = hub::Config::new("hub.localhost".parse().unwrap(), Vec::new());
        let mut config = emulator::Config::new(hub, tls, "token".to_owned().into());
        behaviour.apply(&DataFolder::open(folder.path()).unwrap(), &mut config);
        let kept = (config.hub.telemetry_records, config.hub.telemetry_bytes);
        assert_eq!(kept, (7, 900));
    }

    #[test]
    fn a_mistake_names_file_line_and_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad-day.toml");
        fs::write(
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
        assert!(chain.contains("bad-day.toml:3: rules[0].times"), "{chain}");
        assert!(error.is::<Mistakes>());
    }

    /// A certificate that signs itself, in a file of this name.
    fn certificate(folder: &Path, name: &str, is_authority: bool) -> std::path::PathBuf {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        if is_authority {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let path = folder.join(name);
        fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        path
    }

    #[test]
    fn authorities_are_named_after_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let given = HubBehaviour {
            device_ca: ["east.pem", "west.pem"]
                .map(|name| certificate(folder.path(), name, true))
                .into(),
            ..flags()
        };
        let behaviour = Behaviour::from_flags(&given).unwrap();
        let names: Vec<_> = behaviour.authorities().keys().collect();
        assert_eq!(names, ["east", "west"]);
    }

    #[test]
    fn every_file_that_is_no_authoritys_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let two = folder.join("two.pem");
        let one = fs::read(certificate(folder, "root.pem", true)).unwrap();
        fs::write(&two, [&one[..], &one[..]].concat()).unwrap();
        fs::create_dir(folder.join("other")).unwrap();
        let again = certificate(folder, "other/root.pem", true);
        let bad = HubBehaviour {
            device_ca: vec![
                folder.join("root.pem"),
                again,
                two,
                certificate(folder, "device.pem", false),
                folder.join("missing.pem"),
            ],
            ..flags()
        };
        let error = Behaviour::from_flags(&bad).err().unwrap();
        let Mistakes(mistakes) = error.downcast_ref().unwrap();
        assert_eq!(mistakes.len(), 4, "{error}");
        for part in [
            "--device-ca: two files are named root",
            "two.pem: one certificate in PEM is wanted",
            "device.pem: the certificate is not that of a certificate authority",
            "--device-ca: could not read ",
        ] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }
}
