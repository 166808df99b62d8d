//! From a file, the environment and flags to one typed value, or to a list of everything that is wrong.
//!
//! Serde stops at the first mistake; whoever writes a config file wants all of them. So a mistake is noted with its key and
//! the layer it came from, the value is taken out as if it had not been written, and the rest is tried again. Every round
//! takes something out, so this ends. Two required keys missing in the same table are the one case where the second
//! shows only after the first is mended.
//!
//! The accepted form of a value is shown by the example file, which is known to be right: a test reads all of it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::mistakes::{Mistake, Mistakes, Origin};
use super::rest::{Rest, joined};

/// Values from several places, the later ones over the earlier ones.
#[derive(Debug, Default)]
pub struct Layers {
    values: Table,
    origins: BTreeMap<String, Origin>,
    mistakes: Vec<Mistake>,
}

impl Layers {
    /// Lays a TOML file over what is there.
    pub fn file(&mut self, path: &Path) {
        let origin = |line| Origin::File {
            path: path.to_owned(),
            line,
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.mistake(origin(1), format!("could not be read: {error}")),
        };
        let ends: Vec<usize> = text.match_indices('\n').map(|(end, _)| end).collect();
        let line_of = |offset: usize| 1 + ends.partition_point(|end| *end < offset);
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let line = line_of(error.span().map_or(0, |span| span.start));
            self.mistake(origin(line), error.message().to_owned());
        }
        let Ok(values) = toml::from_str::<Table>(&text) else {
            return;
        };
        visit(table.get_ref(), "", &mut |key, offset| {
            self.origins.insert(key, origin(line_of(offset)));
        });
        merge(&mut self.values, values);
    }

    /// Lays environment variables over what is there: `TOMBOLO__FRONT__LISTEN` is `front.listen`. A value is read as
    /// TOML if it is TOML, and as text otherwise.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, text) in variables {
            let Some(key) = name.strip_prefix(VARIABLE_PREFIX) else {
                continue;
            };
            let key = key.to_lowercase().replace("__", ".");
            self.set(&key, &text, Origin::Variable(name));
        }
    }

    /// Lays one setting, `KEY=VALUE`, over what is there. The value is read as [`environment`](Self::environment)
    /// reads it.
    pub fn setting(&mut self, setting: &str, flag: &'static str) {
        match setting.split_once('=') {
            Some((key, text)) => self.set(key.trim(), text.trim(), Origin::Flag(flag)),
            None => self.mistake(Origin::Flag(flag), format!("{setting} is not KEY=VALUE")),
        }
    }

    /// Makes the typed value of all layers. `check` names the keys that break a rule of the whole, and says which.
    ///
    /// # Errors
    ///
    /// With every mistake, if there is one. `example` is a configuration that is right.
    pub fn resolve<T: DeserializeOwned>(
        self,
        example: &Table,
        check: impl FnOnce(&T) -> Vec<(String, String)>,
    ) -> Result<T, Mistakes> {
        let Self {
            values,
            origins,
            mut mistakes,
        } = self;
        let mut rest = Rest::new(values);
        let resolved: Option<T> = loop {
            let error = match serde_path_to_error::deserialize(rest.values.clone()) {
                Ok(value) => break Some(value),
                Err(error) => error,
            };
            let problem = error.inner().message().to_owned();
            let (place, key) = rest.locate(error.path(), &problem);
            if !rest.is_consequence(&key, &problem) {
                mistakes.push(Mistake {
                    origin: origin_of(&origins, &key),
                    example: example_of(example, &key),
                    key: key.clone(),
                    problem,
                });
            }
            if !rest.remove(&place, key) {
                break None;
            }
        };
        // What is left once mistakes were taken out is not what was meant, so its rules are not judged.
        if let Some(value) = &resolved
            && mistakes.is_empty()
        {
            mistakes.extend(check(value).into_iter().map(|(key, problem)| Mistake {
                origin: origin_of(&origins, &key),
                example: None,
                key,
                problem,
            }));
        }
        match resolved {
            Some(value) if mistakes.is_empty() => Ok(value),
            Some(_) | None => Err(Mistakes(mistakes)),
        }
    }

    fn set(&mut self, key: &str, text: &str, origin: Origin) {
        let Some(parts) = parts_of(key) else {
            return self.mistake(origin, format!("{key} is not a key, such as front.listen"));
        };
        let mut path = String::new();
        for part in &parts {
            path = joined(&path, part);
            self.origins
                .entry(path.clone())
                .or_insert_with(|| origin.clone());
        }
        self.origins.insert(path, origin);
        let value = text.parse::<Value>();
        let value = value.unwrap_or_else(|_| Value::String(text.to_owned()));
        let nested = parts.into_iter().rev().fold(value, |value, part| {
            Value::Table(Table::from_iter([(part, value)]))
        });
        if let Value::Table(table) = nested {
            merge(&mut self.values, table);
        }
    }

    fn mistake(&mut self, origin: Origin, problem: String) {
        self.mistakes.push(Mistake {
            origin: Some(origin),
            key: String::new(),
            problem,
            example: None,
        });
    }
}

fn merge(into: &mut Table, over: Table) {
    for (key, value) in over {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(over)) => merge(into, over),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The parts of a key. It is read as TOML, so that a part of it may be quoted.
fn parts_of(key: &str) -> Option<Vec<String>> {
    let mut table = toml::from_str::<Table>(&format!("{key} = 0")).ok()?;
    let mut parts = Vec::new();
    loop {
        let (part, next) = table.into_iter().next()?;
        parts.push(part);
        let Value::Table(next) = next else {
            return Some(parts);
        };
        table = next;
    }
}

/// Tells the key of everything in a table, with its place in the text.
fn visit(table: &DeTable<'_>, prefix: &str, tell: &mut impl FnMut(String, usize)) {
    for (part, value) in table {
        let key = joined(prefix, part.get_ref());
        tell(key.clone(), part.span().start);
        visit_value(value.get_ref(), &key, tell);
    }
}

fn visit_value(value: &DeValue<'_>, key: &str, tell: &mut impl FnMut(String, usize)) {
    if let Some(table) = value.as_table() {
        visit(table, key, tell);
    }
    for (index, element) in value.as_array().into_iter().flatten().enumerate() {
        let key = format!("{key}[{index}]");
        tell(key.clone(), element.span().start);
        visit_value(element.get_ref(), &key, tell);
    }
}

/// The origin of a key, or of the nearest table or array around it.
fn origin_of(origins: &BTreeMap<String, Origin>, key: &str) -> Option<Origin> {
    let mut key = key;
    loop {
        if let Some(origin) = origins.get(key) {
            return Some(origin.clone());
        }
        key = &key[..key.rfind(['.', '['])?];
    }
}

/// The line of the example that sets a key; array elements are all like the first.
fn example_of(example: &Table, key: &str) -> Option<String> {
    let mut parts = key.split('.');
    let last = parts.next_back()?;
    let mut table = example;
    for part in parts {
        let (name, is_element) = match part.split_once('[') {
            Some((name, _)) => (name, true),
            None => (part, false),
        };
        let value = table.get(name)?;
        let value = if is_element { value.get(0)? } else { value };
        table = value.as_table()?;
    }
    let value = table.get(last)?;
    let is_line = !value.is_table() && !value.is_array();
    is_line.then(|| format!("{last} = {value}"))
}

const VARIABLE_PREFIX: &str = "TOMBOLO__";

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        front: Front,
        hubs: Vec<Hub>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Front {
        listen: SocketAddr,
        title: String,
        polls: u8,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Hub {
        name: String,
        #[serde(default)]
        window: u8,
    }

    impl Default for Front {
        fn default() -> Self {
            let listen = "127.0.0.1:8443".parse().unwrap();
            Self {
                listen,
                title: "x".into(),
                polls: 9,
            }
        }
    }

    fn example() -> Table {
        toml::from_str(
            "[front]\nlisten = \"0.0.0.0:443\"\npolls = 3\n[[hubs]]\nname = \"hub\"\nwindow = 16",
        )
        .unwrap()
    }

    fn of_file(text: &str) -> Layers {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        let mut layers = Layers::default();
        layers.file(&path);
        layers
    }

    /// What is reported, without the folder of the file.
    fn mistakes(layers: Layers) -> Vec<String> {
        let Mistakes(mistakes) = layers
            .resolve::<Sample>(&example(), |_| Vec::new())
            .unwrap_err();
        let texts = mistakes.iter().map(ToString::to_string);
        texts
            .map(|text| match text.split_once("t.toml") {
                Some((_, rest)) => format!("t.toml{rest}"),
                None => text,
            })
            .collect()
    }

    #[test]
    fn later_layers_win_key_by_key() {
        let mut layers = of_file("[front]\npolls = 1\ntitle = \"file\"\n[[hubs]]\nname = \"a\"");
        layers.environment([
            ("TOMBOLO__FRONT__POLLS".into(), "2".into()),
            ("TOMBOLO__FRONT__TITLE".into(), "plain text".into()),
            ("TOMBOLO_FRONT".into(), "another kind of variable".into()),
        ]);
        layers.setting("front.polls = 3", "--set");
        let sample: Sample = layers.resolve(&example(), |_| Vec::new()).unwrap();
        assert_eq!(sample.front.polls, 3);
        assert_eq!(sample.front.title, "plain text");
        assert_eq!(sample.front.listen, Front::default().listen);
        assert_eq!(sample.hubs[0].name, "a");
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mut layers = of_file(
            "[front]\nlisten = \"here\"\npols = 1\n\n[[hubs]]\nname = 5\n[[hubs]]\nwindow = 1\n[[hubs]]\nname = \"c\"\nwindow = 300\n",
        );
        layers.environment([("TOMBOLO__FRONT__POLLS".into(), "many".into())]);
        layers.setting("front.title", "--set");
        layers.setting("back.listen=1", "--set");
        let mut found = mistakes(layers);
        found.sort();
        assert_eq!(
            found,
            [
                "--set: back: unknown field `back`, expected `front` or `hubs`",
                "--set: front.title is not KEY=VALUE",
                "TOMBOLO__FRONT__POLLS: front.polls: invalid type: string \"many\", expected u8 (for example: polls = 3)",
                "t.toml:11: hubs[2].window: invalid value: integer `300`, expected u8 (for example: window = 16)",
                "t.toml:2: front.listen: invalid socket address syntax (for example: listen = \"0.0.0.0:443\")",
                "t.toml:3: front.pols: unknown field `pols`, expected one of `listen`, `title`, `polls`",
                "t.toml:6: hubs[0].name: invalid type: integer `5`, expected a string (for example: name = \"hub\")",
                "t.toml:7: hubs[1]: missing field `name`",
            ]
        );
    }

    #[test]
    fn a_rule_of_the_whole_names_where_its_key_was_written() {
        let rule = |sample: &Sample| match sample.front.polls {
            1 => vec![("front.polls".to_owned(), "one is none".to_owned())],
            _ => Vec::new(),
        };
        let layers = of_file("[front]\npolls = 1");
        let refused = layers.resolve(&example(), rule).unwrap_err().to_string();
        assert!(
            refused.ends_with("t.toml:2: front.polls: one is none"),
            "{refused}"
        );
        assert!(
            Layers::default()
                .resolve::<Sample>(&example(), rule)
                .is_ok()
        );
    }

    #[test]
    fn a_file_that_is_no_toml_names_its_lines() {
        let found = mistakes(of_file("[front]\npolls = \n\ntitle = 'x"));
        assert!(found[0].starts_with("t.toml:2: "), "{found:?}");
        assert!(found[1].starts_with("t.toml:4: "), "{found:?}");
        let mut layers = Layers::default();
        layers.file(Path::new("/nowhere/t.toml"));
        let found = mistakes(layers);
        assert!(found[0].contains("could not be read"), "{found:?}");
    }

    #[test]
    fn a_key_may_be_quoted() {
        #[derive(Deserialize)]
        struct Devices {
            devices: BTreeMap<String, u8>,
        }
        let mut layers = Layers::default();
        layers.setting("devices.\"a.b\" = 7", "--set");
        let Devices { devices } = layers.resolve(&Table::new(), |_| Vec::new()).unwrap();
        assert_eq!(devices["a.b"], 7);
    }
}
