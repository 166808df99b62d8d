//! A disk that fails, is full, or forgets.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use fastrand::Rng;
use iothub::twin::ReportedPatch;
use tombolo_store::{
    Clock as _, Done, Failure, KeyState, Lane, Settlement, StoreError, Submission, SubmitError,
    Survival, Work,
    conformance::{Cut, Disk},
    embedded::{self, Files as _, OpenError},
};

use super::{
    checker::Seen,
    rig::{Rig, config, identity, is_long, small_segments, submission, until},
};

// 200 flushes, each in the life of an engine of its own, which is as long as the number: in four parts of about a length.

#[tokio::test]
async fn after_a_failed_flush_nothing_is_promised_and_nothing_lost_1() {
    fail_each(1..=140, ONCE).await;
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_promised_and_nothing_lost_2() {
    fail_each(141..=200, ONCE).await;
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_promised_and_nothing_lost_3() {
    fail_each(1..=140, FOR_EVER).await;
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_promised_and_nothing_lost_4() {
    fail_each(141..=200, FOR_EVER).await;
}

/// Lets each of these flushes fail, and as many in all as `lasting` says.
#[expect(clippy::print_stderr, reason = "says what it has looked for")]
async fn fail_each(numbers: RangeInclusive<u64>, lasting: u64) {
    let mut kept = 0;
    for n in numbers.clone() {
        let disk = Disk::default();
        let rig = Rig::try_open(&disk, one_segment()).expect("it is empty");
        let first = disk.flushes() + n - 1;
        disk.fail_flushes(first, lasting);
        let mut promised = Vec::new();
        let mut refused = None;
        for id in 1..=n + 2 {
            match rig.submit("dev1", id, "x").await {
                Ok(_) => promised.push(id),
                Err(error) => {
                    refused.get_or_insert((id, error));
                }
            }
        }
        let (at, error) = refused.expect("a flush has failed");
        assert_eq!(error, StoreError::UnknownOutcome.into(), "flush {n}");
        assert!(
            promised.iter().all(|id| *id < at),
            "flush {n}: {promised:?}"
        );
        until("the engine says that it has failed", || {
            rig.keeper.has_failed()
        })
        .await;
        rig.keeper.failed().await;
        let later = rig.submit("dev1", 1000, "x").await.err();
        assert_eq!(later, Some(StoreError::Unavailable.into()));
        drop(rig);

        disk.fail_flushes(0, 0);
        for cut in [Cut::Drop, Cut::Keep] {
            let image = disk.image(disk.operations(), cut);
            let rig = Rig::try_open(&image, one_segment()).expect("it is whole");
            let found: Vec<_> = rig
                .seen(&["dev1"])
                .await
                .iter()
                .map(|seen| seen.name)
                .collect();
            assert!(found.starts_with(&promised), "flush {n}: {found:?}");
            kept += promised.len();
        }
    }
    eprintln!("flushes {numbers:?} failed, {lasting} in all: {kept} promises looked for, 0 lost");
}

const ONCE: u64 = 1;
const FOR_EVER: u64 = u64::MAX;

/// Large enough for all that a test writes, and no larger: what is reserved in it is copied with every image.
fn one_segment() -> embedded::Config {
    embedded::Config {
        segment_bytes: 128 * 1024,
        ..config()
    }
}

/// After a restart the stored patch would be sent again, over the newer one.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_patch_is_not_acknowledged_before_the_end_of_a_stored_one_is_flushed() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    let patch = |id: u64, survival| Submission {
        work: Arc::new(Work::ReportedPatch(
            ReportedPatch::parse(b"{\"a\":1}").unwrap(),
        )),
        survival,
        fingerprint: None,
        ..submission("dev1", id, "")
    };
    let deadline = rig.clock.instant() + Duration::from_secs(5);
    let newer = Survival::Ephemeral { deadline };
    let submit = |submission| rig.store.outbox.submit(submission);
    submit(patch(1, Survival::Durable)).await.unwrap();
    submit(patch(2, newer)).await.unwrap();
    let mut reader = rig.reader("dev1").await;
    let taken = reader.take(Lane::Twin, 2).await.unwrap();
    let done = Ok(Done::ReportedPatched { version: None });

    disk.fail_flushes(disk.flushes(), 1);
    reader.settle(taken[0].id, done.clone()).await.unwrap();
    let settled = reader.settle(taken[1].id, done).await;
    assert!(settled.is_err(), "the end of the first is not flushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_was_not_flushed_is_not_promised_when_it_is_repeated() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    rig.arrive("dev1", 1, "text").await.unwrap();
    let (token, ..) = rig.offered("dev1").await.remove(0);
    disk.fail_flushes(disk.flushes(), 1);
    for _ in 0..3 {
        assert!(
            !rig.settle_message("dev1", &token, Settlement::Complete)
                .await
        );
    }
    disk.fail_flushes(0, 0);
    let rig = Rig::open(&disk.image(disk.operations(), Cut::Drop));
    assert_eq!(rig.offered("dev1").await.len(), 1);
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let mut refused = 0;
    for room in (0..2600).step_by(if is_long() { 1 } else { 53 }) {
        let disk = Disk::default();
        let rig = Rig::try_open(&disk, small_segments()).unwrap();
        rig.submit("dev1", 1, "before").await.unwrap();
        disk.set_room(Some(room));
        let mut promised = vec![1];
        for id in 2..=12 {
            match rig.submit("dev1", id, &"x".repeat(100)).await {
                Ok(_) => promised.push(id),
                Err(error) => {
                    assert_eq!(error, StoreError::StorageFull.into());
                    refused += 1;
                }
            }
        }
        assert!(!rig.keeper.has_failed(), "a full disk is no failed one");
        // What has happened is noted when there is room; until then nothing is lost by it.
        assert!(rig.acknowledge_one("dev1").await);
        disk.set_room(None);
        rig.submit("dev1", 99, "after").await.unwrap();
        promised.push(99);
        drop(rig);
        let rig = Rig::try_open(&disk, small_segments()).unwrap();
        let found: Vec<_> = rig
            .seen(&["dev1"])
            .await
            .iter()
            .map(|seen| seen.name)
            .collect();
        assert_eq!(found, promised[1..], "room for {room}");
    }
    assert!(refused > 50, "{refused}");
}

#[tokio::test]
async fn the_bytes_on_the_disk_are_bounded() {
    let disk = Disk::default();
    let bounded = embedded::Config {
        bytes: 8192,
        ..small_segments()
    };
    let rig = Rig::try_open(&disk, bounded).unwrap();
    let mut refused = None;
    for id in 1..=100 {
        match rig.submit("dev1", id, &"x".repeat(200)).await {
            Ok(_) => assert!(refused.is_none(), "what lives does not go away"),
            Err(error) => refused = Some(error),
        }
    }
    assert_eq!(refused, Some(SubmitError::Store(StoreError::StorageFull)));
    assert!(rig.keeper.bytes() <= 8192 + 1024, "{}", rig.keeper.bytes());
}

/// However much is stored, there is room in memory for what is not stored yet.
#[tokio::test]
async fn what_is_stored_leaves_its_room_in_memory_to_others() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    let in_all = crate::conformance::config().outbox_bytes_in_all as u64;
    let text = "x".repeat(1000);
    let mut stored = Vec::new();
    for id in 1..=2 * in_all / 1000 {
        let mut submission = submission("dev1", id, &text);
        submission.survival = Survival::Ephemeral {
            deadline: rig.clock.instant() + Duration::from_secs(60),
        };
        let name = submission.id;
        rig.store.outbox.submit(submission).await.unwrap();
        let outbox = &rig.store.outbox;
        outbox.persist(&identity("dev1"), name).await.unwrap();
        stored.push(id);
    }
    let seen = rig.seen(&["dev1"]).await;
    let names: Vec<_> = seen.iter().map(|seen| seen.name).collect();
    assert_eq!(names, stored);
    assert!(seen.iter().all(|seen| seen.text == text));
}

/// Damage at the start: every flip and cut is named, or was in what nobody was told of. Nothing wrong is served.
#[tokio::test]
async fn damage_is_found_and_never_served() {
    let disk = Disk::default();
    let rig = Rig::try_open(&disk, small_segments()).unwrap();
    for id in 1..=40 {
        let text = format!("{id} ").repeat(20);
        rig.submit("dev1", id, &text).await.unwrap();
    }
    let honest = rig.seen(&["dev1"]).await;
    drop(rig);
    let (flips, cuts) = if is_long() { (1000, 200) } else { (170, 30) };
    let mut rng = Rng::with_seed(1);
    let (mut found, mut harmless) = (0, 0);
    for number in 0..flips + cuts {
        let image = disk.image(disk.operations(), Cut::Keep);
        let (name, at) = image.locate(rng.usize(..image.bytes())).unwrap();
        image.damage(&name, |bytes| {
            if number < flips {
                bytes[at] ^= 1 << rng.u8(..8);
            } else {
                bytes.truncate(at);
            }
        });
        match Rig::try_open(&image, small_segments()) {
            Err(OpenError::Damaged(damage)) => {
                assert!(!damage.is_empty());
                found += 1;
                salvages(&image, &honest).await;
            }
            Err(other) => panic!("{name} at {at}: {other}"),
            Ok(rig) => {
                // Only the second record of how far the log goes can be hurt without harm.
                assert_eq!(name, "mark", "damage at {at} was not found");
                assert_eq!(rig.seen(&["dev1"]).await, honest);
                harmless += 1;
            }
        }
    }
    eprintln!("{found} found, {harmless} harmless");
    assert!(found > harmless);
}

/// What is salvaged of a damaged log is honest, and most of it.
async fn salvages(damaged: &Disk, honest: &[Seen]) {
    let target = Disk::default();
    let salvaged =
        embedded::salvage_files(damaged, Arc::new(target.clone())).expect("the target is empty");
    assert!(salvaged.records > 0);
    let rig = Rig::open(&target);
    let seen = rig.seen(&["dev1"]).await;
    assert!(seen.iter().all(|seen| honest.contains(seen)));
}

/// A record that goes bad while the engine runs is a dead letter; the others go on.
#[tokio::test]
async fn a_record_that_goes_bad_later_is_a_dead_letter() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    for id in 1..=3 {
        rig.submit("dev1", id, &format!("text {id}")).await.unwrap();
    }
    drop(rig);
    let rig = Rig::open(&disk);
    let name = disk.names().unwrap();
    let name = name.iter().find(|name| name.ends_with("1.log")).unwrap();
    disk.damage(name, |bytes| {
        let at = bytes
            .windows(6)
            .position(|window| window == b"text 2")
            .unwrap();
        bytes[at] ^= 1;
    });
    let texts: Vec<_> = rig
        .seen(&["dev1"])
        .await
        .into_iter()
        .map(|seen| seen.text)
        .collect();
    assert_eq!(texts, ["text 1", "text 3"]);
    let partition = tombolo_store::Partition::of(&identity("dev1"));
    let dead = rig
        .store
        .outbox
        .dead_letters(partition, None)
        .await
        .unwrap();
    assert_eq!(dead.items[0].failure, Failure::Damaged);
}

/// A segment that goes bad while the engine runs is set aside with what nobody can read of it; everything else moves on.
#[tokio::test]
async fn a_segment_that_goes_bad_later_does_not_stop_the_making_of_room() {
    let disk = Disk::default();
    let rig = Rig::try_open(&disk, small_segments()).unwrap();
    for id in 1..=3 {
        rig.submit("dev1", id, &format!("text {id}")).await.unwrap();
    }
    rig.arrive("dev1", 4, "message").await.unwrap();
    assert_eq!(rig.begin_key(1).await, Some(KeyState::Begun));
    drop(rig);
    let rig = Rig::try_open(&disk, small_segments()).unwrap();
    disk.damage("0000000001.log", |bytes| {
        let at = |text: &[u8]| bytes.windows(text.len()).position(|window| window == text);
        // The record of an entry, that of the message, and the head of a group whose records are whole.
        let hit = [
            at(b"text 2"),
            at(b"message"),
            at(b"text 3").map(|at| at - 150),
        ];
        for at in hit {
            bytes[at.unwrap()] ^= 1;
        }
    });
    let until_then = tokio::time::Instant::now() + Duration::from_secs(20);
    for id in 100.. {
        rig.submit("dev2", id, &"x".repeat(200)).await.unwrap();
        assert!(rig.acknowledge_one("dev2").await);
        let names = disk.names().unwrap();
        if names.iter().any(|name| name == "0000000001.log.damaged") {
            break;
        }
        assert!(tokio::time::Instant::now() < until_then, "{names:?}");
    }
    let texts = |seen: Vec<Seen>| Vec::from_iter(seen.into_iter().map(|seen| seen.text));
    let whole = ["text 1", "text 3", "message"];
    assert_eq!(texts(rig.seen(&["dev1"]).await), whole);
    let partition = tombolo_store::Partition::of(&identity("dev1"));
    let dead = rig.store.outbox.dead_letters(partition, None);
    assert_eq!(dead.await.unwrap().items[0].failure, Failure::Damaged);
    drop(rig);

    let rig = Rig::try_open(&disk, small_segments()).unwrap();
    assert_eq!(texts(rig.seen(&["dev1"]).await), whole);
    assert_eq!(rig.recovery.dead_letters, 1);
    assert_eq!(rig.begin_key(1).await, Some(KeyState::Open(None)));
}

#[tokio::test]
async fn verifying_changes_nothing() {
    let disk = Disk::default();
    let rig = Rig::open(&disk);
    rig.submit("dev1", 1, "x").await.unwrap();
    drop(rig);
    let operations = disk.operations();
    let verified = embedded::verify_files(&disk).unwrap();
    assert_eq!(verified.groups, 1);
    disk.damage("0000000001.log", |bytes| bytes[80] ^= 1);
    assert!(matches!(
        embedded::verify_files(&disk),
        Err(OpenError::Damaged(_))
    ));
    assert_eq!(disk.operations(), operations);
    assert!(Rig::try_open(&disk, config()).is_err());
}
