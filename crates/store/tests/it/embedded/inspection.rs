//! What an operator reads in a folder, and mends.

use std::sync::Arc;

use tombolo_store::{
    Failure, Lane, Partition, Settlement, Work,
    conformance::{Disk, ManualClock},
    embedded::{self, Kept, Said},
    memory,
};

use super::rig::{Rig, identity};

/// Of each box one thing that waits and one dead letter.
async fn filled() -> Disk {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    for (name, text) in [(1, "poison"), (2, "waits")] {
        let (submitted, arrived) = (
            rig.submit("dev1", name, text).await,
            rig.arrive("dev1", 10 + name, text).await,
        );
        assert!(submitted.is_ok() && arrived.is_ok());
    }
    let mut reader = rig.reader("dev1").await;
    let taken = reader.take(Lane::Telemetry, 1).await;
    let taken = taken.expect("the lease stands");
    let failed = reader.settle(taken[0].id, Err(Failure::HubClosedOnPublish));
    failed.await.expect("the lease stands");
    let (token, ..) = rig.offered("dev1").await.remove(0);
    assert!(rig.settle_message("dev1", &token, Settlement::Reject).await);
    disk
}

#[tokio::test]
async fn everything_is_there_and_nothing_is_changed() {
    let disk = filled().await;
    let before = disk.operations();
    let found = embedded::inspect_files(Arc::new(disk.clone()), Arc::new(ManualClock::new()));
    let found = found.unwrap();
    assert_eq!(found.recovery().dead_letters, 2);
    let stocked = found.stocked();
    let (of, outbox, inbox) = &stocked[0];
    assert_eq!((stocked.len(), of), (1, &identity("dev1")));
    for stock in [outbox, inbox] {
        assert_eq!((stock.waiting, stock.dead_letters), (1, 1));
    }
    let shown: Vec<_> = found
        .held(of)
        .iter()
        .map(|held| {
            let kind = match &held.kept {
                Kept::Entry { .. } => "entry",
                Kept::Unsent(_) => "unsent",
                Kept::Message { .. } => "message",
                Kept::Unread(_) => "unread",
            };
            let text = match found.read(held).unwrap() {
                Some(Said::Work(Work::Telemetry(telemetry))) => telemetry.payload,
                Some(Said::Message(message)) => message.payload.clone(),
                other => panic!("nothing else was kept, not {other:?}"),
            };
            (kind, String::from_utf8(text.to_vec()).unwrap())
        })
        .collect();
    let expected = [
        ("entry", "waits"),
        ("unsent", "poison"),
        ("message", "waits"),
        ("unread", "poison"),
    ];
    assert_eq!(shown, expected.map(|(kind, text)| (kind, text.to_owned())));
    assert!(found.held(&identity("dev2")).is_empty());
    assert_eq!(disk.operations(), before);
}

#[tokio::test]
async fn what_is_damaged_later_is_not_said() {
    let disk = filled().await;
    let found = embedded::inspect_files(Arc::new(disk.clone()), Arc::new(ManualClock::new()));
    let found = found.unwrap();
    disk.damage("0000000001.log", |bytes| bytes.fill(0));
    for held in found.held(&identity("dev1")) {
        assert!(found.read(&held).unwrap().is_none(), "{held:?}");
    }
    assert!(embedded::inspect_files(Arc::new(disk), Arc::new(ManualClock::new())).is_err());
}

#[tokio::test]
async fn a_folder_is_mended_without_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = embedded::Config::new(folder.path().to_owned());
    let dev1 = identity("dev1");
    let partition = Partition::of(&dev1);
    {
        let bounds = memory::Config {
            outbox_entries: 1,
            ..memory::Config::default()
        };
        let opened = embedded::open(bounds, &config).unwrap();
        let submission = super::rig::submission("dev1", 1, "poison");
        opened.store.outbox.submit(submission).await.unwrap();
        let node = tombolo_store::NodeId::new("a");
        let lease = opened.store.leases.acquire(&node, partition).await.unwrap();
        let mut reader = opened.store.outbox.open(&lease, &dev1).await.unwrap();
        let taken = reader.take(Lane::Telemetry, 1).await.unwrap();
        let failed = reader.settle(taken[0].id, Err(Failure::DoesNotFit));
        failed.await.unwrap();
        let submission = super::rig::submission("dev1", 2, "waits");
        opened.store.outbox.submit(submission).await.unwrap();
    }
    {
        let opened = embedded::open_unbounded(folder.path()).unwrap();
        let outbox = &opened.store.outbox;
        let letters = outbox.dead_letters(partition, None).await.unwrap().items;
        outbox.replay(&dev1, letters[0].id).await.unwrap();
        opened.keeper.close();
        assert!(!opened.keeper.has_failed());
    }
    let found = embedded::inspect(folder.path()).unwrap();
    let recovery = found.recovery();
    assert_eq!((recovery.entries, recovery.dead_letters), (2, 0));
    assert!(matches!(
        embedded::inspect(folder.path()),
        Err(embedded::OpenError::InUse(_))
    ));
}
