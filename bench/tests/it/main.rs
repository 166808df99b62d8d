//! The bench itself, on its smallest scale: whether it measures, not how much.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

#[test]
#[ignore = "needs mosquitto: ./test conformance"]
fn a_short_run_brings_figures_and_leaves_nothing_behind() {
    let (folder, report) = measure(
        "--peers bare --only rate,start,cold,memory --rounds 1 --seconds 1 --devices 256 --connections 4 --sessions 100 \
         --quiet 1",
    );
    for figure in ["rate", "start", "cold", "warm", "session-memory"] {
        let tables = report["tables"].as_array().unwrap();
        let table = tables
            .iter()
            .find(|table| table["figure"] == figure)
            .unwrap();
        let measured = table["subjects"][0]["spread"]["median"].as_f64().unwrap();
        assert!(measured > 0.0, "{figure}: {table}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["result.json"]);
}

#[test]
#[ignore = "needs mosquitto, and the program itself in TOMBOLO: ./test conformance"]
fn the_emulator_is_measured_beside_another_hub() {
    let (_folder, report) = measure(&format!(
        "--only intake,hub-start,connections --rounds 1 --seconds 1 --connections 4 --sessions 100 --quiet 1 \
         --gateway-binary {}",
        program()
    ));
    for figure in ["intake", "hub-start", "connection-memory"] {
        let tables = report["tables"].as_array().unwrap();
        let table = tables
            .iter()
            .find(|table| table["figure"] == figure)
            .unwrap();
        let names = table["subjects"].as_array().unwrap().iter();
        let names: Vec<_> = names.map(|line| line["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["mosquitto", "tombolo emulator"], "{figure}");
        // So few connections may well fit into what the hub has freed before: their weight is no number to judge.
        let measured = table["subjects"][1]["spread"]["median"].as_f64().unwrap();
        assert!(
            measured > 0.0 || figure == "connection-memory",
            "{figure}: {table}"
        );
    }
}

#[test]
#[ignore = "needs mosquitto, and the program itself in TOMBOLO: ./test conformance"]
fn what_is_kept_on_a_disk_is_measured() {
    let (_folder, report) = measure(&format!(
        "--only writes,recovery --rounds 1 --seconds 1 --messages 2 --devices 256 --connections 4 --gateway-binary {}",
        program()
    ));
    let table = |figure: &str| {
        let mut tables = report["tables"].as_array().unwrap().iter();
        tables.find(|table| table["figure"] == figure).unwrap()
    };
    let subjects = table("written")["subjects"].as_array().unwrap();
    assert_eq!(subjects.len(), 4, "{subjects:?}");
    for line in subjects {
        assert!(line["spread"]["median"].as_f64().unwrap() > 0.0, "{line}");
    }
    for figure in ["recovery", "stored-on-disk"] {
        let measured = table(figure)["subjects"][0]["spread"]["median"].as_f64();
        assert!(measured.unwrap() > 0.0, "{figure}");
    }
}

#[test]
#[ignore = "needs mosquitto: ./test conformance"]
fn a_peer_that_does_not_start_is_told_with_its_own_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_tombolo-bench"))
        .args(
            "--peers gateway --gateway-binary /nonexistent/tombolo --only start --rounds 1"
                .split(' '),
        )
        .output()
        .unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("the start and cold trial of the gateway failed"),
        "{told}"
    );
    assert!(
        told.contains("could not start /nonexistent/tombolo"),
        "{told}"
    );
}

/// Runs the bench; gives the folder that it had for certificates, configurations and logs, and its report.
fn measure(arguments: &str) -> (TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("result.json");
    let output = Command::new(env!("CARGO_BIN_EXE_tombolo-bench"))
        .args(arguments.split_whitespace())
        .arg("--json")
        .arg(&json)
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    (folder, report)
}

fn program() -> String {
    std::env::var("TOMBOLO").expect("TOMBOLO names the program")
}
