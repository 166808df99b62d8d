//! Logs: what is logged, and in which form.
//!
//! They go to standard error, so that standard output belongs to what a command prints. Levels and fields follow one
//! rule: an operator can act on every line, and no line carries a credential, a payload or the value of a property.

use std::io::{self, IsTerminal as _};
use std::str::FromStr;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, filter::LevelFilter, filter::filter_fn, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// What is logged, and in which form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Levels, for all or by part: `info`, or `warn,tombolo_upstream=debug`. Default `info`. At `trace` there is a
    /// line for every request and packet.
    pub filter: Filter,
    /// `text` for people, `json` for machines. Default `text`.
    pub format: Format,
}

/// Which lines are logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter(String);

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// For people; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{problem}; a filter is a level (error, warn, info, debug, trace), or levels by part such as warn,tombolo_upstream=debug"
)]
pub struct InvalidFilter {
    problem: String,
}

/// Starts logging, for the whole process.
///
/// # Errors
///
/// When logging has been started before.
pub fn start(config: &Config) -> Result<()> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.filter.0))
        .with_writer(io::stderr);
    let started = match config.format {
        Format::Text => lines
            .with_ansi(io::stderr().is_terminal())
            .finish()
            .with(filter_fn(is_not_a_frame))
            .try_init(),
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .finish()
            .with(filter_fn(is_not_a_frame))
            .try_init(),
    };
    started.map_err(|error| anyhow!("could not start logging: {error}"))
}

/// At its most verbose the WebSocket library shows every frame, and the first one of a device has its token in it.
fn is_not_a_frame(metadata: &Metadata<'_>) -> bool {
    *metadata.level() != Level::TRACE || !metadata.target().starts_with("tungstenite")
}

impl Default for Filter {
    fn default() -> Self {
        Self("info".into())
    }
}

impl FromStr for Filter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        EnvFilter::builder()
            .parse(text)
            .map_err(|error| InvalidFilter {
                problem: error.to_string(),
            })?;
        // The library takes a word alone for a part of the program, all of whose lines are wanted: `inf` would silence all others.
        let words = text.split(',').filter(|_| !text.contains('['));
        let is_no_level = |word: &&str| !word.contains('=') && word.parse::<LevelFilter>().is_err();
        match words.map(str::trim).find(is_no_level) {
            None => Ok(Self(text.into())),
            Some(word) => Err(InvalidFilter {
                problem: format!("{word:?} is no level"),
            }),
        }
    }
}

impl TryFrom<String> for Filter {
    type Error = InvalidFilter;

    fn try_from(text: String) -> Result<Self, InvalidFilter> {
        text.parse()
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_when_it_is_read() {
        for good in [
            "info",
            "warn,tombolo_upstream=debug",
            "off",
            "[request]=debug",
        ] {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for bad in ["tombolo=loud", "inf", "warn,verbose"] {
            let refused = bad.parse::<Filter>().unwrap_err().to_string();
            assert!(refused.contains("error, warn, info"), "{refused}");
        }
    }
}
