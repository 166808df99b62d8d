//! The format, byte by byte. A change of it is another version; this one stays readable.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use iothub::CloudMessage;
use tombolo_store::{
    Answer, Arrival, ArrivalId, ConnectionEpoch, EntryId, Failure, KeyId, KeyState, Lane,
    Partition, Settlement,
    conformance::Disk,
    embedded::{Files as _, OpenError},
};

use super::rig::{Rig, config, identity, small_segments, submission};

/// `golden/v2` was written by version 2 and is never written again. No release wrote version 1.
#[tokio::test]
async fn version_2_is_read() {
    let rig = Rig::open(&golden("v2"));
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

/// `golden/v2-dead` is as old, and has what the other has not: dead letters that wait, were cleaned and were discarded, a
/// message that was abandoned and one that was settled, a key that was forgotten and one that has a note.
#[tokio::test]
async fn dead_letters_of_version_2_are_read() {
    let dev1 = identity("dev1");
    let rig = Rig::open(&golden("v2-dead"));
    let partition = Partition::of(&dev1);
    let (outbox, inbox) = (&rig.store.outbox, &rig.store.inbox);
    let unsent = outbox.dead_letters(partition, None).await.unwrap().items;
    let unsent: Vec<_> = unsent
        .iter()
        .map(|dead| (dead.id.0, &dead.failure))
        .collect();
    let closed = Failure::HubClosedOnPublish;
    assert_eq!(unsent, [(1, &closed), (3, &closed)]);
    let unread = inbox.dead_letters(partition, None).await.unwrap().items;
    let unread: Vec<_> = unread
        .iter()
        .map(|dead| (dead.sequence, dead.reason))
        .collect();
    assert_eq!(unread, [(1, "Rejected"), (5, "Rejected")]);
    let offered = rig.offered("dev1").await.into_iter();
    let offered: Vec<_> = offered.map(|(_, name, _, count)| (name, count)).collect();
    assert_eq!(offered, [(3, 1)]);
    let note = Answer::new(b"note").unwrap();
    assert_eq!(rig.begin_key(1).await, Some(KeyState::Open(Some(note))));
    assert_eq!(rig.begin_key(2).await, Some(KeyState::Begun));

    // What they say is there, too.
    outbox.replay(&dev1, EntryId(1)).await.unwrap();
    for sequence in [1, 5] {
        inbox.replay(&dev1, sequence).await.unwrap();
    }
    let texts = rig.seen(&["dev1"]).await.into_iter();
    let texts: Vec<_> = texts.map(|seen| seen.text).collect();
    assert_eq!(
        texts,
        ["poison 1", "abandoned", "rejected 1", "rejected at the hub"]
    );
}

/// Writes golden files of the present version; run it by hand once, when a version is new.
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
    write(&disk, "v2");
}

#[tokio::test]
#[ignore = "writes golden files"]
async fn write_the_golden_files_of_dead_letters() {
    let dev1 = identity("dev1");
    let disk = Disk::default();
    let rig = Rig::try_open(&disk, small_segments()).unwrap();
    for id in 1..=3 {
        rig.submit("dev1", id, &format!("poison {id}"))
            .await
            .unwrap();
    }
    let mut reader = rig.reader("dev1").await;
    for entry in reader.take(Lane::Telemetry, 3).await.unwrap() {
        let failed = reader.settle(entry.id, Err(Failure::HubClosedOnPublish));
        failed.await.unwrap();
    }
    drop(reader);
    for (name, text) in [
        (1, "rejected 1"),
        (2, "rejected 2"),
        (3, "abandoned"),
        (4, "done"),
    ] {
        rig.arrive("dev1", name, text).await.unwrap();
    }
    arrive_tied(&rig, 5, "rejected at the hub").await;
    let settlements = [
        Settlement::Reject,
        Settlement::Reject,
        Settlement::Abandon,
        Settlement::Complete,
        Settlement::Reject,
    ];
    for ((token, ..), settlement) in rig.offered("dev1").await.iter().zip(settlements) {
        assert!(rig.settle_message("dev1", token, settlement).await);
    }
    // What lives on is written again, in another segment.
    for id in 0.. {
        if !disk.names().unwrap().contains(&"0000000001.log".to_owned()) {
            break;
        }
        assert!(id < 1000, "the first segment is not cleaned");
        let mut short_lived = submission("busy", 1000 + id, &"b".repeat(500));
        short_lived.fingerprint = None;
        rig.store.outbox.submit(short_lived).await.unwrap();
        assert!(rig.acknowledge_one("busy").await);
    }
    assert!(rig.store.outbox.discard(&dev1, EntryId(2)).await.unwrap());
    assert!(rig.store.inbox.discard(&dev1, 2).await.unwrap());
    rig.begin_key(1).await.unwrap();
    assert!(rig.note_key(1, b"note").await);
    rig.begin_key(2).await.unwrap();
    let keys = identity("keys");
    let forgotten = rig.store.registry.forget_key(&keys, KeyId(2));
    forgotten.await.unwrap();
    drop(rig);
    write(&disk, "v2-dead");
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

/// A message that is held at the hub until the device has settled it.
async fn arrive_tied(rig: &Rig, number: u64, text: &'static str) {
    let message = CloudMessage {
        payload: text.into(),
        ..CloudMessage::default()
    };
    let id = ArrivalId {
        connection: ConnectionEpoch(1),
        number,
    };
    let arrival = Arrival::Message {
        message: Arc::new(message),
        expires_at: None,
        is_tied: true,
    };
    let (lease, dev1) = (rig.lease("dev1").await, identity("dev1"));
    let appended = rig.store.inbox.append(&lease, &dev1, id, arrival);
    appended.await.expect("there is room");
}

/// A disk with these golden files.
fn golden(name: &str) -> Disk {
    let disk = Disk::default();
    for file in fs::read_dir(folder(name)).expect("the folder is there") {
        let file = file.expect("the folder can be read");
        let name = file.file_name().into_string().expect("it is a number");
        let bytes = fs::read(file.path()).expect("it can be read");
        let appender = disk.appender(&name);
        let appended = appender.and_then(|mut file| file.append(&bytes));
        appended.expect("there is room");
    }
    disk
}

fn write(disk: &Disk, name: &str) {
    let folder = folder(name);
    fs::create_dir_all(&folder).expect("a folder can be made");
    for name in disk.names().expect("it has names") {
        let bytes = disk.read(&name).expect("it is there");
        fs::write(folder.join(&name), bytes).expect("there is room");
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}
