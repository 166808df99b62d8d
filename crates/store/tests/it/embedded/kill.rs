//! A process that is killed while it writes, on a real disk.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use fastrand::Rng;
use tokio::task::JoinSet;
use tombolo_store::{Lane, NodeId, Partition, embedded, memory};

use super::rig::{identity, is_long, submission};

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_promised() {
    let rounds = if is_long() { 1000 } else { 50 };
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng::with_seed(1);
    let mut promised = Vec::new();
    let (mut all_promised, mut all_found) = (0, 0);
    for round in 0..rounds {
        let lines = rng.usize(1..60);
        promised.extend(killed(folder.path(), round, lines));
        let opened = embedded::open(bounds(), &config(folder.path()));
        let opened = opened.unwrap_or_else(|error| panic!("round {round}: {error}"));
        let mut found = Vec::new();
        for device in 0..DEVICES {
            let identity = identity(&format!("dev{device}"));
            let leases = &opened.store.leases;
            let lease = leases
                .acquire(&NodeId::new("a"), Partition::of(&identity))
                .await
                .unwrap();
            let mut reader = opened.store.outbox.open(&lease, &identity).await.unwrap();
            for entry in reader.take(Lane::Telemetry, usize::MAX).await.unwrap() {
                let tombolo_store::Work::Telemetry(telemetry) = &*entry.work else {
                    panic!("nothing else was submitted");
                };
                let id: u64 = telemetry
                    .system
                    .message_id
                    .as_deref()
                    .unwrap()
                    .parse()
                    .unwrap();
                assert_eq!(telemetry.payload, text(id));
                let settled = reader.settle(entry.id, Ok(tombolo_store::Done::Acknowledged));
                settled.await.unwrap();
                found.push(id);
            }
        }
        all_promised += promised.len();
        all_found += found.len();
        for id in promised.drain(..) {
            assert!(found.contains(&id), "round {round}: {id} is lost");
        }
    }
    // What was being promised when the process was killed may be found, too.
    eprintln!("{rounds} rounds: {all_promised} promised, {all_found} found, 0 lost");
}

/// Starts a process that writes, waits until it has promised so many, kills it, and gives all that it promised.
fn killed(folder: &Path, round: u64, lines: usize) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().expect("a test has a program"))
        .args([
            "--exact",
            "embedded::kill::write_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut promised = Vec::new();
    for line in out.lines() {
        let line = line.expect("it is text");
        // A kill may cut the last line, and the test harness writes some of its own.
        if let Some(id) = line
            .strip_prefix("promised ")
            .and_then(|id| id.strip_suffix('.'))
        {
            promised.push(id.parse().expect("a number"));
        }
        if promised.len() == lines {
            child.kill().expect("it runs");
        }
    }
    child.wait().expect("it ran");
    assert!(promised.len() >= lines, "the process ended by itself");
    promised
}

/// The process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs until it is killed"]
async fn write_until_killed() {
    let folder = std::env::var(FOLDER).unwrap();
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let opened = embedded::open(bounds(), &config(Path::new(&folder))).unwrap();
    let mut tasks = JoinSet::new();
    for device in 0..DEVICES {
        let outbox = opened.store.outbox.clone();
        tasks.spawn(async move {
            for number in 0..1000 {
                let id = round * 1_000_000 + device * 10_000 + number;
                let submitted = submission(&format!("dev{device}"), id, &text(id));
                outbox.submit(submitted).await.unwrap();
                println!("promised {id}.");
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(60), tasks.join_all())
        .await
        .unwrap();
}

/// Every write of a thousand rounds has a key.
fn bounds() -> memory::Config {
    memory::Config {
        keys: 1_000_000,
        ..memory::Config::default()
    }
}

fn config(folder: &Path) -> embedded::Config {
    embedded::Config {
        segment_bytes: 64 * 1024,
        ..embedded::Config::new(folder.to_owned())
    }
}

fn text(id: u64) -> String {
    format!("{id} ").repeat(30)
}

const DEVICES: u64 = 4;
const FOLDER: &str = "TOMBOLO_TEST_STORE_FOLDER";
const ROUND: &str = "TOMBOLO_TEST_STORE_ROUND";
