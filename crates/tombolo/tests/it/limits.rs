//! `docs/limits.md` says what the program does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{errors_of, printed_by, run};

/// A row of a table: the limit's name, its number, what is beyond it, and its setting.
struct Row {
    name: String,
    number: String,
    beyond: String,
    setting: String,
}

#[test]
fn every_setting_that_limits_something_is_in_the_table_with_its_default() {
    let defaults = defaults();
    let mut settings = BTreeMap::new();
    for row in rows() {
        if let Some(setting) = code(&row.setting) {
            let before = settings.insert(setting.to_owned(), first_word(&row.number));
            assert_eq!(before, None, "{setting} stands twice");
        }
    }
    assert_eq!(settings, defaults);
}

#[test]
fn what_has_no_setting_has_the_number_of_the_code() {
    let token_lifetimes = [
        api::limits::TOKEN_LIFETIME_LEAST,
        api::limits::TOKEN_LIFETIME_MOST,
    ];
    let keys = api::limits::IDEMPOTENCY_KEY_LENGTH;
    let locks = api::limits::LOCK_SECONDS;
    let one = |number: usize| vec![number.to_string()];
    let range =
        |least: &dyn ToString, most: &dyn ToString| vec![least.to_string(), most.to_string()];
    let expected = BTreeMap::from([
        (
            "telemetry message, with properties",
            one(iothub::limits::TELEMETRY_BYTES),
        ),
        (
            "properties of a message, as an MQTT topic",
            one(iothub::limits::TOPIC_BYTES),
        ),
        ("message id", one(iothub::limits::MESSAGE_ID_LENGTH)),
        ("id of a device or module", one(iothub::limits::ID_LENGTH)),
        (
            "batch in IoT Hub's form",
            one(iothub::limits::TELEMETRY_BYTES),
        ),
        (
            "batch with a result per message",
            one(api::limits::BATCH_BYTES),
        ),
        (
            "messages of a batch with a result per message",
            one(api::limits::BATCH_MESSAGES),
        ),
        (
            "payload of a method's answer",
            one(iothub::limits::METHOD_PAYLOAD_BYTES),
        ),
        ("settlements of one request", one(api::limits::SETTLEMENTS)),
        ("sync", one(api::limits::BATCH_BYTES)),
        ("messages of a sync", one(api::limits::BATCH_MESSAGES)),
        (
            "answers to methods in a sync",
            one(api::limits::SYNC_ANSWERS),
        ),
        ("own name of a sync", one(api::limits::SYNC_NAME_LENGTH)),
        (
            "`max_bytes` of a sync, at least",
            vec![api::limits::SYNC_BYTES_LEAST.to_string()],
        ),
        (
            "`max_bytes` of a sync, if it does not say",
            vec![api::limits::SYNC_BYTES.to_string()],
        ),
        (
            "results of what a sync sent up, all at their limits",
            one(api::limits::SYNC_RESULTS_BYTES),
        ),
        (
            "sync, in seconds, if it does not say",
            vec![api::limits::SYNC_WAIT.as_secs().to_string()],
        ),
        (
            "`Prefer: wait` of a sync, in seconds",
            vec![api::limits::SYNC_WAIT_MOST.as_secs().to_string()],
        ),
        ("idempotency key", range(keys.start(), keys.end())),
        (
            "lifetime of a bought token, in seconds",
            token_lifetimes
                .map(|time| time.as_secs().to_string())
                .into(),
        ),
        (
            "lock of a message, in seconds",
            range(locks.start(), locks.end()),
        ),
    ]);
    let table = rows();
    let fixed = table.iter().filter(|row| code(&row.setting).is_none());
    let fixed: BTreeMap<_, _> = fixed
        .map(|row| (row.name.as_str(), numbers(&row.number)))
        .collect();
    assert_eq!(fixed, expected);
}

#[test]
fn every_code_has_a_page() {
    let pages = docs().join("errors");
    for row in rows() {
        // "429 `throttled`": a word in quotes behind a status is a code.
        for (before, word) in row
            .beyond
            .split('`')
            .collect::<Vec<_>>()
            .chunks(2)
            .filter_map(|pair| {
                let [before, word] = pair else { return None };
                Some((before, word))
            })
        {
            let status = before.trim().rsplit(' ').next().unwrap();
            assert!(status.parse::<u16>().is_ok(), "{}: {before}", row.name);
            let page = fs::read_to_string(pages.join(format!("{word}.md"))).unwrap();
            assert!(
                page.starts_with(&format!("# `{word}` ({status})")),
                "{page}"
            );
        }
    }
}

/// Every setting with a number or a time, from a configuration that sets nothing.
fn defaults() -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tombolo.toml");
    fs::write(&config, "[[upstream.hubs]]\nname = \"hub.example\"\n").unwrap();
    let config = config.to_str().unwrap();
    let dumped = run(["serve", "--config", config, "--dump-config"]);
    assert!(dumped.status.success(), "{}", errors_of(&dumped));
    let dumped: toml::Table = printed_by(&dumped).parse().unwrap();
    let table = |path: &[&str]| {
        let value = path
            .iter()
            .fold(toml::Value::Table(dumped.clone()), |value, key| {
                value[*key].clone()
            });
        // Of several hubs the first is as good as any.
        let first = value.as_array().and_then(|tables| tables.first());
        first.unwrap_or(&value).clone()
    };
    let mut defaults = BTreeMap::new();
    for path in [
        &["front", "limits"][..],
        &["front", "waits"],
        &["store"],
        &["upstream"],
        &["upstream", "hubs"],
    ] {
        for (key, value) in table(path).as_table().unwrap() {
            let is_time = |text: &str| text.starts_with(|first: char| first.is_ascii_digit());
            let number = value.as_integer().map(|number| number.to_string());
            let time = value.as_str().filter(|text| is_time(text));
            let Some(text) = number.or_else(|| time.map(str::to_owned)) else {
                continue;
            };
            if key != "mqtt_port" {
                defaults.insert(format!("{}.{key}", path.join(".")), text);
            }
        }
    }
    defaults
}

fn rows() -> Vec<Row> {
    let page = fs::read_to_string(docs().join("limits.md")).unwrap();
    let lines = page.lines().filter(|line| line.starts_with('|'));
    let rows = lines.map(|line| {
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        let [_, name, number, beyond, setting, _] = cells.try_into().unwrap();
        Row {
            name,
            number,
            beyond,
            setting,
        }
    });
    let rows: Vec<_> = rows
        .filter(|row| row.name != "limit" && row.name != "---")
        .collect();
    assert!(rows.len() > 40, "{} rows", rows.len());
    rows
}

/// What stands between quotes.
fn code(cell: &str) -> Option<&str> {
    cell.split('`').nth(1)
}

fn first_word(cell: &str) -> String {
    cell.split(' ').next().unwrap().replace(',', "")
}

/// The numbers of a cell, whatever else it says.
fn numbers(cell: &str) -> Vec<String> {
    let words = cell.split(' ').map(|word| word.replace(',', ""));
    words.filter(|word| word.parse::<u64>().is_ok()).collect()
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}
