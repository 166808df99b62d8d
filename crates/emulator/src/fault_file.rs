//! Faults from a file: the rules that `/emulator/faults` takes one by one, all at once and at the start.
//!
//! ```toml
//! [[rules]]
//! device = "dev1"
//! after_millis = 5000
//! fault = { kind = "drop-connection" }
//! ```

use std::fmt;

use serde::Deserialize;

use crate::hub::FaultRule;

/// How a file of faults is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultFormat {
    /// `[[rules]]`, one table each.
    Toml,
    /// `{"rules": [...]}`
    Json,
}

/// A file of faults that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FaultFileError {
    /// Where it stands, from 1, if a line can be named.
    pub line: Option<usize>,
    /// For example `rules[1].times`; empty if no key can be named.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for FaultFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(self.problem.trim_end())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rules: Vec<FaultRule>,
}

/// Reads a file of faults.
///
/// # Errors
///
/// What cannot be read, with its line and key.
pub fn parse_faults(text: &str, format: FaultFormat) -> Result<Vec<FaultRule>, FaultFileError> {
    let file: File = match format {
        FaultFormat::Toml => {
            let document = toml::Deserializer::parse(text).map_err(|e| in_toml(text, "", &e))?;
            serde_path_to_error::deserialize(document)
                .map_err(|error| in_toml(text, &key(error.path()), error.inner()))?
        }
        FaultFormat::Json => {
            let document = &mut serde_json::Deserializer::from_str(text);
            let file = serde_path_to_error::deserialize(&mut *document)
                .map_err(|error| in_json(&key(error.path()), error.inner()))?;
            document.end().map_err(|error| in_json("", &error))?;
            file
        }
    };
    Ok(file.rules)
}

fn in_toml(text: &str, key: &str, error: &toml::de::Error) -> FaultFileError {
    let before = error.span().and_then(|span| text.get(..span.start));
    FaultFileError {
        line: before.map(|before| before.matches('\n').count() + 1),
        key: key.to_owned(),
        problem: error.message().to_owned(),
    }
}

fn in_json(key: &str, error: &serde_json::Error) -> FaultFileError {
    let problem = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    FaultFileError {
        line: (error.line() > 0).then(|| error.line()),
        key: key.to_owned(),
        problem: problem.replace(&place, ""),
    }
}

/// The library writes `.` for the document itself.
fn key(path: &serde_path_to_error::Path) -> String {
    let path = path.to_string();
    if path == "." { String::new() } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rules_are_read_from_toml_and_json() {
        let toml = r#"
            [[rules]]
            device = "dev1"
            after_millis = 5000
            fault = { kind = "drop-connection" }

            [[rules]]
            probability = 0.5
            fault = { kind = "delay-puback", millis = 100 }
        "#;
        let json = r#"{"rules": [
            {"device": "dev1", "after_millis": 5000, "fault": {"kind": "drop-connection"}},
            {"probability": 0.5, "fault": {"kind": "delay-puback", "millis": 100}}
        ]}"#;
        let rules = parse_faults(toml, FaultFormat::Toml).unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules, parse_faults(json, FaultFormat::Json).unwrap());
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_key() {
        for (format, text, expected) in [
            (
                FaultFormat::Toml,
                "[[rules]]\nfault = { kind = \"unreachable\" }\n\n[[rules]]\ntimes = 0\nfault = { kind = \"unreachable\" }\n",
                "line 5: rules[1].times: invalid value: integer `0`, expected a nonzero u32",
            ),
            (
                FaultFormat::Toml,
                "[[rules]]\nfault = { kind = \"swallow-puback\", milis = 3 }\n",
                "line 2: rules[0].fault: unknown field `milis`, there are no fields",
            ),
            (
                FaultFormat::Toml,
                "rules = 3\n",
                "line 1: rules: invalid type",
            ),
            (FaultFormat::Toml, "[[rules]\n", "line 1: "),
            (
                FaultFormat::Json,
                "{\"rules\": [\n{\"often\": 3}]}",
                "line 2: rules[0].often: unknown field `often`",
            ),
            (
                FaultFormat::Json,
                "{\"rules\": []} x",
                "line 1: trailing characters",
            ),
        ] {
            let error = parse_faults(text, format).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
