//! A gateway that must not start, and what its operator then does.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::program::{errors_of, printed_by, tombolo};
use crate::served::{Setup, find};

/// A start that is refused, and what was said of it.
fn refused(setup: &Setup) -> String {
    let output: Output = setup.serve().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", errors_of(&output));
    errors_of(&output)
}

fn flip_a_bit(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_folder_is_refused_and_what_is_saved_of_it_is_delivered() {
    let setup = Setup::new("sensor-1");
    setup.configure("store", false);
    let gateway = setup.start();
    let token = setup.token(&gateway);
    let bodies = [
        "reading one",
        "reading two",
        "reading three",
        "reading four",
    ];
    let mut receipts = Vec::new();
    for body in bodies {
        receipts.push(setup.store(&gateway, &token, body).await);
    }
    gateway.running.kill();
    let file = setup.path("store").join("0000000001.log");
    flip_a_bit(&file, find(&file, b"reading two"));

    let said = refused(&setup);
    let folder = setup.path("store");
    for part in [
        "the store is damaged in 2 places, the first is 0000000001.log: ",
        &format!("tombolo store verify --folder {}", folder.display()),
        &format!(
            "tombolo store salvage --folder {} --to DIR",
            folder.display()
        ),
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }

    let salvaged = tombolo(["store", "salvage", "--folder"])
        .arg(&folder)
        .arg("--to")
        .arg(setup.path("saved"))
        .output()
        .unwrap();
    assert!(salvaged.status.success(), "{}", errors_of(&salvaged));
    assert!(printed_by(&salvaged).starts_with("0000000001.log: "));
    assert!(errors_of(&salvaged).contains("disk.folder"));

    setup.configure("saved", true);
    let gateway = setup.start();
    let delivered = setup.telemetry(3).await;
    assert_eq!(delivered, ["reading one", "reading three", "reading four"]);
    // The device knows of all, and its token is what it was.
    let mut states = Vec::new();
    for receipt in &receipts {
        states.push(setup.state_of(&gateway, &token, receipt).await);
    }
    let [one, two, rest @ ..] = states.as_slice() else {
        panic!("four were asked for");
    };
    assert_eq!((one.as_str(), two.as_str()), ("acknowledged", "unknown"));
    assert!(rest.iter().all(|state| state != "unknown"), "{states:?}");
    assert!(gateway.running.terminate().status.success());
}

#[test]
fn of_two_gateways_one_has_a_folder() {
    let setup = Setup::new("sensor-1");
    setup.configure("store", true);
    let first = setup.start();
    let said = refused(&setup);
    for part in ["another process has the store's folder", "disk.folder"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    for command in ["look", "count", "export", "verify"] {
        let tool = tombolo(["store", command, "--folder"])
            .arg(setup.path("store"))
            .output()
            .unwrap();
        assert_eq!(tool.status.code(), Some(1), "{command}");
        let said = errors_of(&tool);
        assert!(said.contains("stop the gateway first"), "{said}");
    }
    // The first one has noticed nothing.
    assert!(first.running.terminate().status.success());
}

#[test]
fn a_folder_of_a_later_version_is_refused_and_left_as_it_is() {
    let setup = Setup::new("sensor-1");
    setup.configure("store", true);
    assert!(setup.start().running.terminate().status.success());
    let file = setup.path("store").join("0000000001.log");
    let mut bytes = fs::read(&file).unwrap();
    // The version is behind the eight bytes that say what the file is. The version alone would be a flipped byte, so the
    // rest of the head is of another form, too.
    bytes[8] = 200;
    bytes[16..64].fill(200);
    fs::write(&file, &bytes).unwrap();
    let said = refused(&setup);
    for part in [
        "0000000001.log",
        "version 200",
        "start the program that wrote it",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(fs::read(&file).unwrap(), bytes);
}
