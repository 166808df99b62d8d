//! The configuration of the gateway: what each part of it can be told, in one file.

mod layers;
mod mistakes;
mod rest;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Table;

pub use layers::Layers;
pub use mistakes::{Mistake, Mistakes, Origin};

use crate::logs;

/// Everything that a gateway can be told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What devices touch: listeners, names, limits.
    pub front: front::Config,
    /// What the hub touches: hubs, devices with their keys, sessions.
    pub upstream: upstream::Config,
    /// What crosses between the two.
    pub store: store::memory::Config,
    /// Where the store keeps what must survive. Without it nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<store::embedded::Config>,
    /// What operators touch.
    pub admin: Admin,
    /// What is logged.
    pub log: logs::Config,
}

/// What operators touch. Where it listens is `front.admin_listen`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// File with the token of the admin API; made at the first start, for its owner alone, if it is not there. Default
    /// `admin.token`.
    pub token_file: PathBuf,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            token_file: "admin.token".into(),
        }
    }
}

impl Config {
    /// Reads the file, lays the environment and the settings of the command line over it, and judges the whole.
    ///
    /// # Errors
    ///
    /// With every mistake.
    pub fn load(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        settings: &[String],
    ) -> Result<Self, Mistakes> {
        let mut layers = Layers::default();
        layers.file(file);
        layers.environment(environment);
        for setting in settings {
            layers.setting(setting, "--set");
        }
        layers.resolve(&example(), Self::broken_rules)
    }

    /// The configuration as TOML, secrets masked.
    ///
    /// # Errors
    ///
    /// A value has no form in TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    fn broken_rules(&self) -> Vec<(String, String)> {
        let Self {
            front,
            upstream,
            disk,
            ..
        } = self;
        let mut broken = Vec::new();
        let mut note = |key: &str, problem: &str| broken.push((key.to_owned(), problem.to_owned()));
        if front.listen.is_empty() {
            note("front.listen", "name at least one address");
        }
        if front.names.is_empty() {
            note(
                "front.names",
                "name at least one host: every request would be refused",
            );
        }
        if !front.admin_listen.ip().is_loopback() {
            note(
                "front.admin_listen",
                "the admin API listens on loopback only: 127.0.0.1 or [::1]",
            );
        }
        let without_disk = upstream.mistakes_without_disk();
        let without_disk = without_disk.filter(|_| disk.is_none());
        for mistake in upstream.mistakes().into_iter().chain(without_disk) {
            note(&in_upstream(&mistake.key), &mistake.problem);
        }
        broken
    }
}

impl From<upstream::Mistakes> for Mistakes {
    fn from(upstream::Mistakes(mistakes): upstream::Mistakes) -> Self {
        let mistakes = mistakes.into_iter().map(|mistake| Mistake {
            origin: None,
            key: in_upstream(&mistake.key),
            problem: mistake.problem,
            example: None,
        });
        Self(mistakes.collect())
    }
}

fn in_upstream(key: &str) -> String {
    format!("upstream.{key}")
}

/// The example with every setting in force, which mistakes are explained by.
fn example() -> Table {
    toml::from_str(&uncommented(EXAMPLE)).expect("a test reads the example")
}

/// In the example, `# ` begins a remark, and `#` right before a key takes a setting out that has a default.
fn uncommented(example: &str) -> String {
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|first: char| !first.is_whitespace()) => setting,
        Some(_) | None => line,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

const EXAMPLE: &str = include_str!("../../../docs/tombolo.example.toml");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use toml::Value;

    use super::*;

    fn load(text: &str) -> Result<Config, Mistakes> {
        let (_folder, file) = written(text);
        Config::load(&file, [], &[])
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tombolo.toml");
        std::fs::write(&file, text).unwrap();
        (folder, file)
    }

    /// Values by key; elements of an array are all taken for the first.
    fn leaves(value: &Value, prefix: &str, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    leaves(value, &format!("{prefix}/{key}"), into);
                }
            }
            Value::Array(array) if array.iter().all(Value::is_table) => {
                array.iter().for_each(|value| leaves(value, prefix, into));
            }
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => {
                into.insert(prefix.to_owned(), value.clone());
            }
        }
    }

    fn leaves_of(value: impl Serialize) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        leaves(&Value::try_from(value).unwrap(), "", &mut found);
        found
    }

    #[test]
    fn the_example_has_every_key() {
        load(EXAMPLE).unwrap();
        let config = load(&uncommented(EXAMPLE)).unwrap();
        let shown = leaves_of(example());
        let missing = leaves_of(config)
            .into_keys()
            .filter(|key| !shown.contains_key(key));
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<String>::new());
    }

    #[test]
    fn what_the_example_takes_out_is_the_default() {
        let defaults = leaves_of(Config::default());
        let in_force = leaves_of(toml::from_str::<Table>(EXAMPLE).unwrap());
        for (key, value) in leaves_of(example()) {
            if let Some(default) = defaults.get(&key)
                && !in_force.contains_key(&key)
            {
                assert_eq!(value, *default, "{key}");
            }
        }
    }

    #[test]
    fn what_is_dumped_can_be_loaded_and_shows_no_key() {
        let secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let text = format!(
            "upstream.hubs = [{{ name = \"a.example\" }}]\nupstream.devices = [{{ id = \"d\", key.text = \"{secret}\" }}]"
        );
        let dump = load(&text).unwrap().to_toml().unwrap();
        assert!(!dump.contains(secret), "{dump}");
        assert_eq!(load(&dump).unwrap().to_toml().unwrap(), dump);
    }

    #[test]
    fn rules_of_the_whole_are_reported_at_once_with_their_lines() {
        let refused = load(
            "[front]\nlisten = []\nadmin_listen = \"0.0.0.0:1\"\n[[upstream.hubs]]\nname = \"a.example\"\n[[upstream.devices]]\nid = \"d\"\nhub = \"b.example\"\nkey.env = \"K\"",
        );
        let refused = refused.unwrap_err().to_string();
        for part in [
            "tombolo.toml:2: front.listen: name at least one address",
            "tombolo.toml:3: front.admin_listen: the admin API listens on loopback only",
            "tombolo.toml:8: upstream.devices[0].hub: b.example is not among the hubs",
        ] {
            assert!(refused.contains(part), "{part} is not in {refused}");
        }
    }
}
