//! Reads the files in `tests/golden`.

use std::{fs, path::PathBuf};

use serde::de::DeserializeOwned;

pub(crate) fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The lines of a table whose columns stand between ` | `, without its first line.
pub(crate) fn table<const COLUMNS: usize>(name: &str) -> Vec<[String; COLUMNS]> {
    let row = |line: &str| {
        let columns: Vec<String> = line.split(" | ").map(str::to_owned).collect();
        columns
            .try_into()
            .unwrap_or_else(|_| panic!("{name}: {line}"))
    };
    text(name).lines().skip(1).map(row).collect()
}

fn text(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
