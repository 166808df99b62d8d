//! What a restart finds.

use std::{future::ready, pin::pin, sync::Arc, time::Duration};

use iothub::CloudMessage;
use tokio::{join, select};
use tombolo_store::{
    Answer, Arrival, ArrivalId, Clock as _, ConnectionEpoch, Done, Failure, KeyState, Lane,
    ReceiptState, SealedCredential, Settlement, StoreError, SubmissionId, SubmitError, Work,
    conformance::{Cut, Disk, ManualClock},
    embedded::Files as _,
};

use super::rig::{Rig, config, identity, small_segments, submission, until};

#[tokio::test]
async fn entries_come_back_in_order_and_with_their_receipts() {
    let dev1 = identity("dev1");
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    for id in 1..=5 {
        rig.submit("dev1", id, &format!("text {id}")).await.unwrap();
    }
    assert!(rig.acknowledge_one("dev1").await);
    drop(rig);

    let rig = Rig::open(&disk);
    assert_eq!(rig.recovery.entries, 4);
    assert_eq!(rig.recovery.receipts_and_keys, 5);
    assert_eq!(rig.recovery.oldest, Some(rig.clock.timestamp()));
    assert_eq!(rig.recovery.log.torn, None);
    let acknowledged = rig.submit("dev1", 1, "text 1").await.unwrap();
    assert_eq!(acknowledged.await, Ok(Ok(Done::Acknowledged)));
    let other = rig.submit("dev1", 1, "another").await;
    assert_eq!(other.err(), Some(SubmitError::KeyReused));
    let names: Vec<_> = rig
        .seen(&["dev1"])
        .await
        .into_iter()
        .map(|seen| seen.name)
        .collect();
    assert_eq!(names, [2, 3, 4, 5]);
    let receipt = rig.store.registry.receipt(&dev1, SubmissionId(2));
    let receipt = receipt.await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Stored);
    // A device whose entries wait wants a session.
    let node = tombolo_store::NodeId::new("a");
    let wanted = rig.store.signals.next_wanted(&node).await.unwrap();
    assert_eq!(wanted, identity("dev1"));
}

#[tokio::test]
async fn dead_letters_come_back_and_can_be_replayed() {
    let dev1 = identity("dev1");
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    rig.submit("dev1", 1, "poison").await.unwrap();
    let mut reader = rig.reader("dev1").await;
    let taken = reader.take(Lane::Telemetry, 1).await.unwrap();
    let failure = Failure::HubClosedOnPublish;
    reader
        .settle(taken[0].id, Err(failure.clone()))
        .await
        .unwrap();
    rig.arrive("dev1", 2, "message").await.unwrap();
    let (token, ..) = rig.offered("dev1").await.remove(0);
    assert!(rig.settle_message("dev1", &token, Settlement::Reject).await);
    drop((rig, reader));

    let rig = Rig::open(&disk);
    assert_eq!(rig.recovery.dead_letters, 2);
    let partition = tombolo_store::Partition::of(&dev1);
    let dead = rig
        .store
        .outbox
        .dead_letters(partition, None)
        .await
        .unwrap();
    assert_eq!(dead.items[0].failure, failure);
    let unsent = dead.items[0].id;
    assert_eq!(dead.items[0].attempts, None);
    let said = rig.store.outbox.dead_letter(&dev1, unsent).await.unwrap();
    let (_, said) = said.unwrap();
    assert!(matches!(said, Some(Work::Telemetry(said)) if said.payload == "poison"));
    rig.store.outbox.replay(&dev1, unsent).await.unwrap();
    let dead = rig.store.inbox.dead_letters(partition, None).await.unwrap();
    assert_eq!(dead.items[0].reason, "Rejected");
    let sequence = dead.items[0].sequence;
    rig.store.inbox.replay(&dev1, sequence).await.unwrap();
    drop(rig);

    let rig = Rig::open(&disk);
    assert_eq!(
        (
            rig.recovery.dead_letters,
            rig.recovery.entries,
            rig.recovery.messages
        ),
        (0, 1, 1)
    );
    let texts: Vec<_> = rig
        .seen(&["dev1"])
        .await
        .into_iter()
        .map(|seen| seen.text)
        .collect();
    assert_eq!(texts, ["poison", "message"]);
}

#[tokio::test]
async fn what_was_rejected_in_the_hubs_custody_is_kept() {
    let dev1 = identity("dev1");
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    let lease = rig.lease("dev1").await;
    for (number, text) in [(1, "rejected"), (2, "completed"), (3, "waits")] {
        let message = CloudMessage {
            payload: text.into(),
            ..CloudMessage::default()
        };
        let arrival = Arrival::Message {
            message: Arc::new(message),
            expires_at: None,
            is_tied: true,
        };
        let id = ArrivalId {
            connection: ConnectionEpoch(1),
            number,
        };
        let appended = rig.store.inbox.append(&lease, &dev1, id, arrival);
        appended.await.unwrap();
    }
    let offered = rig.offered("dev1").await;
    for (place, settlement) in [(0, Settlement::Reject), (1, Settlement::Complete)] {
        let token = &offered[place].0;
        assert!(rig.settle_message("dev1", token, settlement).await);
    }
    drop(rig);

    let rig = Rig::open(&disk);
    assert_eq!((rig.recovery.dead_letters, rig.recovery.messages), (1, 0));
    let inbox = &rig.store.inbox;
    let partition = tombolo_store::Partition::of(&dev1);
    let dead = inbox.dead_letters(partition, None).await.unwrap().items;
    inbox.replay(&dev1, dead[0].sequence).await.unwrap();
    drop(rig);

    let rig = Rig::open(&disk);
    let offered = rig.offered("dev1").await;
    let texts: Vec<_> = offered
        .iter()
        .map(|(_, _, text, _)| text.as_str())
        .collect();
    assert_eq!(texts, ["rejected"]);
    assert_eq!(rig.recovery.dead_letters, 0);
}

#[tokio::test]
async fn a_discarded_dead_letter_does_not_come_back() {
    let dev1 = identity("dev1");
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    for id in 1..=2 {
        rig.submit("dev1", id, "poison").await.unwrap();
        rig.arrive("dev1", 2 + id, "message").await.unwrap();
    }
    let mut reader = rig.reader("dev1").await;
    for entry in reader.take(Lane::Telemetry, 2).await.unwrap() {
        let failed = reader.settle(entry.id, Err(Failure::DoesNotFit));
        failed.await.unwrap();
    }
    for (token, ..) in rig.offered("dev1").await {
        assert!(rig.settle_message("dev1", &token, Settlement::Reject).await);
    }
    let partition = tombolo_store::Partition::of(&dev1);
    let (outbox, inbox) = (&rig.store.outbox, &rig.store.inbox);
    let unsent = outbox.dead_letters(partition, None).await.unwrap().items;
    let unread = inbox.dead_letters(partition, None).await.unwrap().items;
    assert!(outbox.discard(&dev1, unsent[0].id).await.unwrap());
    assert!(inbox.discard(&dev1, unread[0].sequence).await.unwrap());
    drop((rig, reader));

    // A second time: what the first start has written again is as discarded.
    for _ in 0..2 {
        let rig = Rig::open(&disk);
        assert_eq!(rig.recovery.dead_letters, 2);
        let left = rig
            .store
            .outbox
            .dead_letters(partition, None)
            .await
            .unwrap();
        assert_eq!(left.items[0].id, unsent[1].id);
        let left = rig.store.inbox.dead_letters(partition, None).await.unwrap();
        assert_eq!(left.items, unread[1..]);
        let stock = rig.store.outbox.stock_of(&dev1).await.unwrap();
        assert_eq!((stock.waiting, stock.dead_letters), (0, 1));
    }
}

#[tokio::test]
async fn messages_come_back_with_their_tokens_and_counts() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    for name in 1..=3 {
        rig.arrive("dev1", name, "x").await.unwrap();
    }
    let before = rig.offered("dev1").await;
    assert!(
        rig.settle_message("dev1", &before[0].0, Settlement::Abandon)
            .await
    );
    assert!(
        rig.settle_message("dev1", &before[1].0, Settlement::Complete)
            .await
    );
    drop(rig);

    let rig = Rig::open(&disk);
    let after = rig.offered("dev1").await;
    assert_eq!(after.len(), 2);
    assert_eq!((&after[0].0, after[0].3), (&before[0].0, 1));
    assert_eq!(&after[1].0, &before[2].0);
    // The settlement is remembered, so a device whose answer was lost hears the same.
    assert!(
        rig.settle_message("dev1", &before[1].0, Settlement::Complete)
            .await
    );
    assert!(
        !rig.settle_message("dev1", &before[1].0, Settlement::Reject)
            .await
    );
}

/// One is being flushed when the others come, so these wait behind it, and another flush carries them all.
#[tokio::test]
async fn messages_that_come_together_are_flushed_together() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    let before = disk.flushes_of(".log");
    {
        let held = disk.hold_flushes();
        let mut one = pin!(rig.arrive("dev1", 1, "x"));
        select! {
            biased;
            _ = &mut one => panic!("it was answered before it was flushed"),
            () = until("one is being flushed", || held.count() == 1) => {}
        }
        let mut others = pin!(rig.arrive_together("dev1", 2..22));
        // The first poll leaves all of them to the log.
        select! {
            biased;
            () = &mut others => panic!("they were answered before they were flushed"),
            () = ready(()) => {}
        }
        drop(held);
        let (one, ()) = join!(one, others);
        one.unwrap();
    }
    assert_eq!(disk.flushes_of(".log") - before, 2);

    drop(rig);
    let names = Rig::open(&disk).offered("dev1").await.into_iter();
    let names: Vec<_> = names.map(|(_, name, ..)| name).collect();
    assert_eq!(names, (1..22).collect::<Vec<_>>());
}

/// A message that waits, one that was settled before the restart and one that is settled after it: none comes back.
#[tokio::test]
async fn what_the_hub_delivers_again_after_a_restart_is_known() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    for name in 1..=3 {
        rig.arrive("dev1", name, "x").await.unwrap();
    }
    let (token, ..) = rig.offered("dev1").await.remove(0);
    assert!(
        rig.settle_message("dev1", &token, Settlement::Complete)
            .await
    );
    drop(rig);

    let rig = Rig::open(&disk);
    let (token, ..) = rig.offered("dev1").await.remove(0);
    assert!(rig.settle_message("dev1", &token, Settlement::Reject).await);
    for name in 1..=3 {
        rig.arrive_on(2, "dev1", name, "x").await.unwrap();
    }
    let names = rig.offered("dev1").await.into_iter();
    assert_eq!(names.map(|(_, name, ..)| name).collect::<Vec<_>>(), [3]);
    rig.arrive_on(2, "dev1", 4, "x").await.unwrap();
    assert_eq!(rig.offered("dev1").await.len(), 2);
}

#[tokio::test]
async fn keys_come_back_with_their_answers() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    for id in 1..=5 {
        assert_eq!(rig.begin_key(id).await, Some(KeyState::Begun));
    }
    assert!(rig.answer_key(1, b"answer").await);
    assert!(rig.note_key(4, b"a third").await && rig.note_key(4, b"a half").await);
    assert!(rig.note_key(5, b"a half").await && rig.answer_key(5, b"answer").await);
    rig.store
        .registry
        .forget_key(&identity("keys"), tombolo_store::KeyId(2))
        .await
        .unwrap();
    drop(rig);

    let rig = Rig::open(&disk);
    let text = |text: &[u8]| Answer::new(text).unwrap();
    let answered = Some(KeyState::Answered(text(b"answer")));
    assert_eq!(rig.begin_key(1).await, answered);
    assert_eq!(rig.begin_key(2).await, Some(KeyState::Begun));
    assert_eq!(rig.begin_key(3).await, Some(KeyState::Open(None)));
    let noted = Some(KeyState::Open(Some(text(b"a half"))));
    assert_eq!(rig.begin_key(4).await, noted);
    assert_eq!(rig.begin_key(5).await, answered);
}

/// A restart has the wall clock alone to tell how old a record is.
#[tokio::test]
async fn a_key_has_the_age_that_the_wall_clock_gives_it() {
    const DAY: u64 = 24 * 3600;
    let disk = Disk::default();
    let clock = ManualClock::new();
    let open = |clock: &ManualClock| Rig::open_at(clock.clone(), &disk, config()).unwrap();
    let rig = open(&clock);
    rig.begin_key(1).await.unwrap();
    assert!(rig.answer_key(1, b"answer").await);
    let is_answered =
        async |rig: &Rig| matches!(rig.begin_key(1).await, Some(KeyState::Answered(_)));
    drop(rig);

    // Set back between two runs: what is of the future is as if it were of now.
    clock.move_wall_clock(-9 * DAY as i64);
    let rig = open(&clock);
    clock.advance(Duration::from_secs(7 * DAY));
    rig.begin_key(2).await.unwrap();
    assert!(is_answered(&rig).await);
    drop(rig);

    clock.move_wall_clock(9 * DAY as i64);
    let rig = open(&clock);
    assert!(is_answered(&rig).await, "it is seven days old");
    clock.advance(Duration::from_secs(DAY));
    drop(rig);
    let rig = open(&clock);
    assert_eq!(rig.begin_key(1).await, Some(KeyState::Begun));
}

/// A write under a key that must not be stored leaves its outcome all the same, so that its copies have no further effect.
#[tokio::test]
async fn the_outcome_of_a_key_comes_back_also_if_its_entry_was_ephemeral() {
    let dev1 = identity("dev1");
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    let ephemeral = |rig: &Rig, id, text| {
        let mut submission = submission("dev1", id, text);
        submission.survival = tombolo_store::Survival::Ephemeral {
            deadline: rig.clock.instant() + Duration::from_secs(5),
        };
        submission
    };
    let outbox = rig.store.outbox.clone();
    let done = outbox.submit(ephemeral(&rig, 1, "done")).await.unwrap();
    assert!(rig.acknowledge_one("dev1").await);
    assert_eq!(done.await, Ok(Ok(Done::Acknowledged)));
    // Nobody took it, so the key is as good as before, now and after a restart.
    let taken_back = outbox.submit(ephemeral(&rig, 2, "taken back")).await;
    assert_eq!(outbox.take_back(&dev1, SubmissionId(2)).await, Ok(true));
    assert_eq!(taken_back.unwrap().await, Ok(Err(Failure::NoSession)));
    drop((rig, outbox));

    let rig = Rig::open(&disk);
    let outbox = rig.store.outbox.clone();
    let again = outbox.submit(ephemeral(&rig, 1, "done")).await.unwrap();
    assert_eq!(again.await, Ok(Ok(Done::Acknowledged)));
    let other = outbox.submit(ephemeral(&rig, 1, "another")).await;
    assert_eq!(other.err(), Some(SubmitError::KeyReused));
    outbox.submit(ephemeral(&rig, 2, "another")).await.unwrap();
    let waiting: Vec<_> = rig.seen(&["dev1"]).await;
    let waiting: Vec<_> = waiting.iter().map(|seen| seen.text.as_str()).collect();
    assert_eq!(waiting, ["another"]);
}

/// What was persisted while a session had it, and is sent again after a crash, is the same message.
#[tokio::test]
async fn what_is_sent_again_after_a_crash_has_its_message_id() {
    let dev1 = identity("dev1");
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    let mut ephemeral = submission("dev1", 7, "in flight");
    ephemeral.fingerprint = None;
    ephemeral.survival = tombolo_store::Survival::Ephemeral {
        deadline: rig.clock.instant() + Duration::from_secs(5),
    };
    rig.store.outbox.submit(ephemeral).await.unwrap();
    let mut reader = rig.reader("dev1").await;
    let sent = reader.take(Lane::Telemetry, 1).await.unwrap();
    let persisted = rig.store.outbox.persist(&dev1, SubmissionId(7));
    persisted.await.unwrap();
    drop((rig, reader));

    let rig = Rig::open(&disk);
    let again = rig.waiting("dev1").await;
    let (Work::Telemetry(sent), Work::Telemetry(again)) = (&*sent[0].work, &*again[0].work) else {
        panic!("they are telemetry");
    };
    assert_eq!(sent, again);
    assert_eq!(again.system.message_id.as_deref(), Some("7"));
}

#[tokio::test]
async fn a_persisted_entry_comes_back() {
    let dev1 = identity("dev1");
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    let mut ephemeral = submission("dev1", 1, "kept");
    ephemeral.fingerprint = None;
    ephemeral.survival = tombolo_store::Survival::Ephemeral {
        deadline: rig.clock.instant() + Duration::from_secs(5),
    };
    let mut forgotten = ephemeral.clone();
    forgotten.id = SubmissionId(2);
    rig.store.outbox.submit(ephemeral).await.unwrap();
    rig.store.outbox.submit(forgotten).await.unwrap();
    let persisted = rig.store.outbox.persist(&dev1, SubmissionId(1));
    persisted.await.unwrap();
    drop(rig);

    let rig = Rig::open(&disk);
    let texts: Vec<_> = rig
        .seen(&["dev1"])
        .await
        .into_iter()
        .map(|seen| seen.text)
        .collect();
    assert_eq!(texts, ["kept"]);
}

#[tokio::test]
async fn room_is_made_and_nothing_that_lives_goes() {
    let disk = Disk::default();
    let rig = Rig::try_open(&disk, small_segments()).unwrap();
    for id in 1..=5 {
        rig.submit("kept", id, &"k".repeat(100)).await.unwrap();
        rig.arrive("kept", 1000 + id, "message").await.unwrap();
    }
    rig.begin_key(1).await.unwrap();
    assert!(rig.answer_key(1, b"answer").await);
    for id in 0..400 {
        let mut short_lived = submission("busy", 10_000 + id, &"b".repeat(200));
        short_lived.fingerprint = None;
        rig.store.outbox.submit(short_lived).await.unwrap();
        assert!(rig.acknowledge_one("busy").await);
    }
    // Receipts live on; they are shorter than what they are about.
    until("the log is cleaned", || !disk_has(&disk, "0000000001.log")).await;
    let before = rig.seen(&["kept"]).await;
    assert_eq!(before.len(), 10);
    drop(rig);

    let rig = Rig::try_open(&disk, small_segments()).unwrap();
    assert_eq!(rig.seen(&["kept"]).await, before);
    assert_eq!(rig.seen(&["busy"]).await, []);
    assert!(matches!(
        rig.begin_key(1).await,
        Some(KeyState::Answered(_))
    ));
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused() {
    let rig = Rig::open(&Disk::default());
    let mut read = submission("dev1", 1, "");
    read.work = Arc::new(Work::TwinRead);
    let refused = rig.store.outbox.submit(read).await.err();
    assert_eq!(refused, Some(StoreError::Volatile.into()));
}

fn disk_has(disk: &Disk, name: &str) -> bool {
    use tombolo_store::embedded::Files as _;
    disk.names()
        .expect("it has names")
        .iter()
        .any(|other| other == name)
}

/// The newest one that has not ended, also after its first segment is gone.
#[tokio::test]
async fn a_sealed_credential_survives_restarts_and_the_making_of_room() {
    let disk = Disk::default();
    let rig = Rig::try_open(&disk, small_segments()).unwrap();
    let clock = rig.clock.clone();
    let now = clock.timestamp();
    let end = now.saturating_add(Duration::from_secs(3600));
    let soon = now.saturating_add(Duration::from_secs(60));
    let sealed = |text: &'static str, end| SealedCredential::new(text.into(), end).unwrap();
    for (device, text, end) in [
        ("dev1", "old", end),
        ("dev1", "new", end),
        ("dev2", "brief", soon),
    ] {
        let registry = &rig.store.registry;
        let (device, sealed) = (identity(device), sealed(text, end));
        registry.put_credential(&device, sealed).await.unwrap();
    }
    let until_then = tokio::time::Instant::now() + Duration::from_secs(20);
    for id in 100.. {
        rig.submit("dev3", id, &"x".repeat(200)).await.unwrap();
        assert!(rig.acknowledge_one("dev3").await);
        let names = disk.names().unwrap();
        if !names.iter().any(|name| name == "0000000001.log") {
            break;
        }
        assert!(tokio::time::Instant::now() < until_then, "{names:?}");
    }
    drop(rig);

    clock.advance(Duration::from_secs(60));
    let rig = Rig::open_at(clock, &disk, small_segments()).unwrap();
    let credential = async |device| rig.store.registry.credential(&identity(device)).await;
    assert_eq!(credential("dev1").await, Ok(Some(sealed("new", end))));
    assert_eq!(credential("dev2").await, Ok(None));
}

/// What could not be flushed is not there, and the disk has what was there before.
#[tokio::test]
async fn a_credential_that_is_not_flushed_is_not_kept() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    let end = rig
        .clock
        .timestamp()
        .saturating_add(Duration::from_secs(3600));
    let sealed = |text: &'static str| SealedCredential::new(text.into(), end).unwrap();
    let dev1 = identity("dev1");
    let registry = &rig.store.registry;
    registry.put_credential(&dev1, sealed("old")).await.unwrap();
    disk.fail_flushes(disk.flushes(), u64::MAX);
    let put = registry.put_credential(&dev1, sealed("new")).await;
    assert_eq!(put, Err(StoreError::UnknownOutcome));
    assert_eq!(registry.credential(&dev1).await, Ok(Some(sealed("old"))));
    drop(rig);
    let rig = Rig::open(&disk.image(disk.operations(), Cut::Drop));
    let credential = rig.store.registry.credential(&dev1).await;
    assert_eq!(credential, Ok(Some(sealed("old"))));
}

/// The one before stands where there is no room for a newer one, and what is forgotten does not come back.
#[tokio::test]
async fn a_credential_stands_until_a_newer_one_is_on_the_disk() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    let end = rig
        .clock
        .timestamp()
        .saturating_add(Duration::from_secs(3600));
    let sealed = |text: &'static str| SealedCredential::new(text.into(), end).unwrap();
    let dev1 = identity("dev1");
    let registry = Arc::clone(&rig.store.registry);
    registry.put_credential(&dev1, sealed("old")).await.unwrap();
    disk.set_room(Some(0));
    // What is reserved already is room.
    for _ in 0..10_000 {
        match registry.put_credential(&dev1, sealed("old")).await {
            Ok(()) => {}
            Err(refused) => {
                assert_eq!(refused, StoreError::StorageFull);
                break;
            }
        }
    }
    let put = registry.put_credential(&dev1, sealed("new")).await;
    assert_eq!(put, Err(StoreError::StorageFull));
    assert_eq!(registry.credential(&dev1).await, Ok(Some(sealed("old"))));
    disk.set_room(None);
    for text in ["new", "old"] {
        assert_eq!(registry.credential(&dev1).await, Ok(Some(sealed("old"))));
        let sealed = sealed(text);
        registry.forget_credential(&dev1, &sealed).await.unwrap();
    }
    // Flushed behind it.
    rig.submit("dev1", 1, "x").await.unwrap();
    drop((registry, rig));
    let rig = Rig::open(&disk);
    assert_eq!(rig.store.registry.credential(&dev1).await, Ok(None));
    let put = rig.store.registry.put_credential(&dev1, sealed("newest"));
    put.await.unwrap();
    drop(rig);
    let rig = Rig::open(&disk);
    let credential = rig.store.registry.credential(&dev1).await;
    assert_eq!(credential, Ok(Some(sealed("newest"))));
}
