//! The format, byte by byte. A change of it is another version; this one stays readable.

use std::{fs, path::Path};

use tombolo_store::{
    KeyState,
    conformance::Disk,
    embedded::{Files as _, OpenError},
};

use super::rig::{Rig, config};

/// `golden/v2` was written by version 2 and is never written again. No release wrote version 1.
#[tokio::test]
async fn version_2_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v2");
    let disk = Disk::default();
    for name in ["0000000001.log", "mark"] {
        let bytes = fs::read(folder.join(name)).unwrap();
        disk.appender(name).unwrap().append(&bytes).unwrap();
    }
    let rig = Rig::open(&disk);
    let texts: Vec<_> = rig
        .seen(&["dev1"])
        .await
        .into_iter()
        .map(|seen| seen.text)
        .collect();
    assert_eq!(texts, ["waits", "message"]);
    let receipt = rig.submit("dev1", 1, "acknowledged").await.unwrap();
    assert!(receipt.await.unwrap().is_ok());
    let answered = rig.begin_key(1).await;
    assert!(matches!(answered, Some(KeyState::Answered(answer)) if answer.as_bytes() == b"answer"));
}

/// Writes the golden files of the present version; run it by hand once, when a version is new.
#[tokio::test]
#[ignore = "writes golden files"]
async fn write_the_golden_files() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    rig.submit("dev1", 1, "acknowledged").await.unwrap();
    assert!(rig.acknowledge_one("dev1").await);
    rig.submit("dev1", 2, "waits").await.unwrap();
    rig.arrive("dev1", 3, "message").await.unwrap();
    rig.begin_key(1).await.unwrap();
    assert!(rig.answer_key(1, b"answer").await);
    drop(rig);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v2");
    fs::create_dir_all(&folder).unwrap();
    for name in disk.names().unwrap() {
        fs::write(folder.join(&name), disk.read(&name).unwrap()).unwrap();
    }
}

#[test]
fn another_version_is_refused_by_name() {
    for other in [1, 3] {
        let disk = Disk::default();
        drop(Rig::open(&disk));
        disk.damage("0000000001.log", |bytes| {
            bytes.truncate(8);
            bytes.extend([other, 0, 0, 0]);
            bytes.extend([7; 100]);
        });
        let refused = Rig::try_open(&disk, config()).err();
        assert!(
            matches!(refused, Some(OpenError::Version { version, .. }) if version == u32::from(other)),
            "{refused:?}"
        );
    }
}
