//! `tombolo store`: what an operator is told of a folder.

use std::fs;

use iothub::Identity;
use store::{Fingerprint, KeyId, embedded, memory};

use crate::program::{errors_of, printed_by, tombolo};

#[tokio::test]
async fn a_folder_is_verified_and_salvaged() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, saved) = (folder.path().join("kept"), folder.path().join("saved"));
    let config = embedded::Config::new(kept.clone());
    let opened = embedded::open(memory::Config::default(), &config).unwrap();
    let device = Identity::device("hub.example".parse().unwrap(), "dev1".parse().unwrap());
    let registry = &opened.store.registry;
    let begun = registry.begin_key(&device, KeyId(1), Fingerprint::of(&[b"x"]));
    begun.await.unwrap();
    let verify = |path| {
        let mut command = tombolo(["store", "verify", "--folder"]);
        command.arg(path).output().unwrap()
    };
    let used = verify(&kept);
    assert!(errors_of(&used).contains("another process"), "{used:?}");
    drop(opened);
    let whole = verify(&kept);
    assert!(whole.status.success(), "{}", errors_of(&whole));
    assert!(printed_by(&whole).contains("is whole"), "{whole:?}");

    let file = kept.join("0000000001.log");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let damaged = verify(&kept);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(
        printed_by(&damaged).contains("0000000001.log"),
        "{damaged:?}"
    );
    let salvaged = tombolo(["store", "salvage", "--folder"])
        .arg(&kept)
        .arg("--to")
        .arg(&saved)
        .output()
        .unwrap();
    assert!(salvaged.status.success(), "{}", errors_of(&salvaged));
    assert!(verify(&saved).status.success());
    assert_eq!(fs::read(&file).unwrap(), bytes, "it is left as it is");
    let mistyped = verify(&folder.path().join("nowhere"));
    assert_eq!(mistyped.status.code(), Some(1));
}
