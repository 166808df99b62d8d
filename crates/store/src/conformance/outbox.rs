//! Rules of the outbox.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{
    Engine,
    rig::{
        self, Owned, PATIENCE, all_pages, answer, assert_waits, identity, node, outcome, patch,
        soon, sure, telemetry, texts,
    },
};
use crate::{
    Clock as _, Done, Failure, Fingerprint, GivenUp, KeyError, KeyId, KeyState, Lane,
    OutboxDeadLetter, OutboxReader, Partition, PersistError, Receipt, ReceiptState, ReplayError,
    SessionState, Status, Stock, StoreError, SubmissionId, SubmitError, Work,
};

/// Inside one lane of a device, entries are taken in the order of submission, and their ids grow.
pub async fn entries_of_a_lane_come_in_the_order_of_submission(engine: Engine) {
    let device = engine.owned("dev1").await;
    for number in 0..engine.bounds.outbox_entries {
        device
            .submit(number as u128, telemetry(&number.to_string()))
            .await;
    }
    let mut reader = device.open().await;
    let mut entries = Vec::new();
    loop {
        let more = reader
            .take(Lane::Telemetry, 3)
            .await
            .expect("the lease stands");
        if more.is_empty() {
            break;
        }
        entries.extend(more);
    }
    let numbers = 0..engine.bounds.outbox_entries;
    let submitted: Vec<_> = numbers.map(|number| number.to_string()).collect();
    assert_eq!(texts(&entries), submitted);
    assert!(entries.is_sorted_by(|a, b| a.id < b.id));
}

/// A take gives no more than it is asked for, and the rest later.
pub async fn a_take_gives_no_more_than_it_is_asked_for(engine: Engine) {
    let device = engine.owned("dev1").await;
    for (id, text) in (1..).zip(["one", "two", "three"]) {
        device.submit(id, telemetry(text)).await;
    }
    let mut reader = device.open().await;
    assert_eq!(take(&mut reader, Lane::Telemetry, 0).await, [""; 0]);
    assert_eq!(take(&mut reader, Lane::Telemetry, 2).await, ["one", "two"]);
    assert_eq!(take(&mut reader, Lane::Telemetry, 2).await, ["three"]);
    assert_eq!(take(&mut reader, Lane::Telemetry, 2).await, [""; 0]);
}

/// A backlog of one lane does not delay the others.
pub async fn lanes_do_not_delay_each_other(engine: Engine) {
    let device = engine.owned("dev1").await;
    device.submit(1, telemetry("one")).await;
    device.submit(2, telemetry("two")).await;
    device.submit(3, patch()).await;
    device.submit(4, Work::TwinRead).await;
    device.submit(5, answer()).await;

    let mut reader = device.open().await;
    assert_eq!(take(&mut reader, Lane::Answers, 9).await, ["Answers"]);
    let twin = reader.take(Lane::Twin, 9).await.expect("the lease stands");
    assert!(matches!(*twin[0].work, Work::ReportedPatch(_)));
    assert!(matches!(*twin[1].work, Work::TwinRead));
    assert_eq!(take(&mut reader, Lane::Telemetry, 1).await, ["one"]);
    device.submit(6, answer()).await;
    assert_eq!(take(&mut reader, Lane::Answers, 9).await, ["Answers"]);
}

/// The same submission id names different submissions at different devices.
pub async fn devices_do_not_see_each_other(engine: Engine) {
    let (one, two) = (engine.owned("dev1").await, engine.owned("dev2").await);
    one.submit(1, telemetry("of one")).await;
    two.submit(1, telemetry("of two")).await;
    assert_eq!(
        take(&mut one.open().await, Lane::Telemetry, 9).await,
        ["of one"]
    );
    assert_eq!(
        take(&mut two.open().await, Lane::Telemetry, 9).await,
        ["of two"]
    );
}

/// Submitting the same id again adds nothing, whatever state the entry is in, and gives its outcome.
pub async fn submitting_again_gives_a_ticket_of_the_same_entry(engine: Engine) {
    let device = engine.owned("dev1").await;
    let mut reader = device.open().await;
    let first = device.submit(1, telemetry("once")).await;
    let waiting = device.submit(1, telemetry("once")).await;
    let entries = reader
        .take(Lane::Telemetry, 9)
        .await
        .expect("the lease stands");
    assert_eq!(texts(&entries), ["once"]);
    let taken = device.submit(1, telemetry("once")).await;
    settle(&mut reader, &entries[0], Ok(Done::Acknowledged)).await;
    let settled = device.submit(1, telemetry("once")).await;
    assert_eq!(take(&mut reader, Lane::Telemetry, 9).await, [""; 0]);
    for ticket in [first, waiting, taken, settled] {
        assert_eq!(outcome(ticket).await, Ok(Done::Acknowledged));
    }
}

/// Settling twice is harmless; the first outcome stands.
pub async fn the_first_outcome_stands(engine: Engine) {
    let device = engine.owned("dev1").await;
    let ticket = device.submit(1, telemetry("x")).await;
    let mut reader = device.open().await;
    let entries = reader
        .take(Lane::Telemetry, 1)
        .await
        .expect("the lease stands");
    settle(&mut reader, &entries[0], Err(Failure::DoesNotFit)).await;
    settle(&mut reader, &entries[0], Ok(Done::Acknowledged)).await;
    assert_eq!(outcome(ticket).await, Err(Failure::DoesNotFit));
    let again = device.submit(1, telemetry("x")).await;
    assert_eq!(outcome(again).await, Err(Failure::DoesNotFit));
}

/// A submitter that goes away takes nothing with it.
pub async fn dropping_a_ticket_changes_nothing_about_the_entry(engine: Engine) {
    let device = engine.owned("dev1").await;
    drop(device.submit(1, telemetry("x")).await);
    let mut reader = device.open().await;
    let entries = reader
        .take(Lane::Telemetry, 1)
        .await
        .expect("the lease stands");
    assert_eq!(texts(&entries), ["x"]);
    settle(&mut reader, &entries[0], Ok(Done::Acknowledged)).await;
    let again = device.submit(1, telemetry("x")).await;
    assert_eq!(outcome(again).await, Ok(Done::Acknowledged));
}

/// A reader that is dropped puts back what was taken and not settled, before what it did not take.
pub async fn a_dropped_reader_puts_back_in_order(engine: Engine) {
    let device = engine.owned("dev1").await;
    for (id, text) in (1..).zip(["one", "two", "three", "four", "five"]) {
        device.submit(id, telemetry(text)).await;
    }
    device.submit(9, patch()).await;
    let mut reader = device.open().await;
    let entries = reader
        .take(Lane::Telemetry, 3)
        .await
        .expect("the lease stands");
    assert_eq!(take(&mut reader, Lane::Twin, 1).await, ["Twin"]);
    settle(&mut reader, &entries[1], Ok(Done::Acknowledged)).await;
    drop(reader);

    let mut reader = device.open().await;
    let back = take(&mut reader, Lane::Telemetry, 9).await;
    assert_eq!(back, ["one", "three", "four", "five"]);
    assert_eq!(take(&mut reader, Lane::Twin, 9).await, ["Twin"]);
}

/// Of two readers the older one is out: its calls fail, and its end does not touch what the newer one took.
pub async fn opening_again_ends_the_older_reader(engine: Engine) {
    let device = engine.owned("dev1").await;
    device.submit(1, telemetry("one")).await;
    let ticket = device.submit(2, telemetry("two")).await;
    let mut older = device.open().await;
    let taken = older
        .take(Lane::Telemetry, 2)
        .await
        .expect("the lease stands");

    let mut newer = device.open().await;
    assert_eq!(take(&mut newer, Lane::Telemetry, 9).await, ["one", "two"]);
    let refused = older.take(Lane::Telemetry, 1).await;
    assert_eq!(refused.map(|entries| entries.len()), Err(StoreError::Stale));
    let refused = rig::settle(&mut older, taken[1].id, Ok(Done::Acknowledged)).await;
    assert_eq!(refused, Err(StoreError::Stale));
    soon(older.ready()).await;
    drop(older);
    assert_eq!(take(&mut newer, Lane::Telemetry, 9).await, [""; 0]);
    assert_waits(ticket).await;
}

/// An entry whose deadline is over is settled with a timeout, and no session gets it.
pub async fn an_overdue_entry_is_not_given(engine: Engine) {
    let device = engine.owned("dev1").await;
    let overdue = device.submit(1, telemetry("overdue")).await;
    engine.clock.advance(PATIENCE - Duration::from_millis(1));
    let in_time = device.submit(2, telemetry("in time")).await;
    let mut reader = device.open().await;
    assert_eq!(take(&mut reader, Lane::Telemetry, 1).await, ["overdue"]);
    drop(reader);

    engine.clock.advance(Duration::from_millis(1));
    let mut reader = device.open().await;
    assert_eq!(take(&mut reader, Lane::Telemetry, 9).await, ["in time"]);
    assert_eq!(outcome(overdue).await, Err(Failure::HubTimeout));
    assert_waits(in_time).await;
    // It may come again under its id.
    assert_waits(device.submit(1, telemetry("overdue")).await).await;
}

/// An entry that no session had before its deadline is settled with the certainty that nothing was sent.
pub async fn what_no_session_took_in_time_was_not_sent(engine: Engine) {
    let device = engine.owned("dev1").await;
    let overdue = device.submit(1, telemetry("overdue")).await;
    engine.clock.advance(PATIENCE);
    let mut reader = device.open().await;
    assert_eq!(take(&mut reader, Lane::Telemetry, 9).await, [""; 0]);
    assert_eq!(outcome(overdue).await, Err(Failure::NoSession));
    assert!(take_back(&device, 1).await, "it is as if taken back");
}

/// An entry that waits is taken back, once and for all, and leaves its room to others.
pub async fn what_no_session_has_taken_can_be_taken_back(engine: Engine) {
    let device = engine.owned("dev1").await;
    let bound = engine.bounds.outbox_entries;
    let mut tickets = Vec::new();
    for id in 0..bound {
        let ticket = device.submit(id as u128, telemetry(&id.to_string()));
        tickets.push(ticket.await);
    }
    assert!(device.try_submit(9999, telemetry("")).await.is_err());
    assert!(take_back(&device, 1).await);
    assert!(take_back(&device, 1).await, "it is the same");
    device.submit(9999, telemetry("more")).await;
    assert!(!take_back(&device, 12_345).await, "nobody knows it");

    let mut reader = device.open().await;
    let given = take(&mut reader, Lane::Telemetry, bound + 1).await;
    assert_eq!(given.len(), bound);
    assert!(!given.contains(&"1".to_owned()));
    for (id, ticket) in tickets.into_iter().enumerate() {
        if id == 1 {
            assert_eq!(outcome(ticket).await, Err(Failure::NoSession));
        } else {
            assert_waits(ticket).await;
        }
    }
}

/// What a session has, or had before it went, may have been sent.
pub async fn what_a_session_has_had_cannot_be_taken_back(engine: Engine) {
    let device = engine.owned("dev1").await;
    let ticket = device.submit(1, telemetry("x")).await;
    let mut reader = device.open().await;
    assert_eq!(take(&mut reader, Lane::Telemetry, 1).await, ["x"]);
    assert!(!take_back(&device, 1).await);
    drop(reader);
    assert!(!take_back(&device, 1).await);

    let mut reader = device.open().await;
    let entries = reader
        .take(Lane::Telemetry, 1)
        .await
        .expect("the lease stands");
    settle(&mut reader, &entries[0], Ok(Done::Acknowledged)).await;
    assert!(!take_back(&device, 1).await);
    assert_eq!(outcome(ticket).await, Ok(Done::Acknowledged));
}

/// The deadline is about waiting: what a session has taken, it settles as it went.
pub async fn what_is_taken_may_be_settled_after_its_deadline(engine: Engine) {
    let device = engine.owned("dev1").await;
    let ticket = device.submit(1, telemetry("x")).await;
    let mut reader = device.open().await;
    let entries = reader
        .take(Lane::Telemetry, 1)
        .await
        .expect("the lease stands");
    engine.clock.advance(PATIENCE * 2);
    assert_eq!(take(&mut reader, Lane::Telemetry, 1).await, [""; 0]);
    settle(&mut reader, &entries[0], Ok(Done::Acknowledged)).await;
    assert_eq!(outcome(ticket).await, Ok(Done::Acknowledged));
}

/// One more entry than the bound is refused, and leaves nothing behind; a settled one makes room.
pub async fn the_entries_of_a_device_are_bounded(engine: Engine) {
    let device = engine.owned("dev1").await;
    let bound = engine.bounds.outbox_entries;
    for id in 0..bound {
        device.submit(id as u128, telemetry("")).await;
    }
    let one_more = device.try_submit(9999, telemetry("")).await.err();
    let bytes = telemetry("").size() * bound;
    let entries = bound;
    assert_eq!(one_more, Some(SubmitError::DeviceFull { entries, bytes }));
    device.submit(0, telemetry("")).await; // known, so no more

    let mut reader = device.open().await;
    let taken = reader
        .take(Lane::Telemetry, 1)
        .await
        .expect("the lease stands");
    let one_more = device.try_submit(9999, telemetry("")).await;
    assert!(one_more.is_err(), "what is taken still has its place");
    settle(&mut reader, &taken[0], Ok(Done::Acknowledged)).await;
    device.submit(9999, telemetry("")).await;
    let one_more = device.try_submit(10_000, telemetry("")).await;
    assert!(one_more.is_err());

    engine.clock.advance(PATIENCE);
    device.submit(10_001, telemetry("")).await; // what was overdue made room
}

/// Answers to direct methods are taken from a device whose outbox is full, and take no place of other entries.
pub async fn answers_are_outside_the_bounds_of_a_device(engine: Engine) {
    let entries = engine.bounds.outbox_entries;
    let by_entries = engine.owned("dev1").await;
    for id in 0..entries - 1 {
        by_entries.submit(id as u128, telemetry("")).await;
    }
    let by_bytes = engine.owned("dev2").await;
    let small = telemetry("").size();
    let rest = "x".repeat(engine.bounds.outbox_bytes - 2 * small);
    by_bytes.submit(0, telemetry(&rest)).await;
    for device in [by_entries, by_bytes] {
        // One place is left, before as after.
        device.submit(1000, answer()).await;
        device.submit(1001, telemetry("")).await;
        assert!(device.try_submit(1002, telemetry("")).await.is_err());
        let late = device.submit(1003, answer()).await;

        let mut reader = device.open().await;
        let lease = "the lease stands";
        for entry in reader.take(Lane::Answers, 9).await.expect(lease) {
            settle(&mut reader, &entry, Ok(Done::Acknowledged)).await;
        }
        assert_eq!(outcome(late).await, Ok(Done::Acknowledged));
        assert!(device.try_submit(1002, telemetry("")).await.is_err());
        for entry in reader.take(Lane::Telemetry, 1).await.expect(lease) {
            settle(&mut reader, &entry, Ok(Done::Acknowledged)).await;
        }
        device.submit(1002, telemetry("")).await;
    }
}

/// One more byte than the bound is refused.
pub async fn the_bytes_of_a_device_are_bounded(engine: Engine) {
    let bound = engine.bounds.outbox_bytes;
    let small = telemetry("").size();
    for (size, fits) in [(bound - 1, true), (bound, true), (bound + 1, false)] {
        let device = engine.owned(&format!("dev{size}")).await;
        device.submit(1, telemetry("")).await;
        let rest = "x".repeat(size - 2 * small);
        let submitted = device.try_submit(2, telemetry(&rest)).await;
        let refused = SubmitError::DeviceFull {
            entries: 1,
            bytes: small,
        };
        assert_eq!(submitted.err(), (!fits).then_some(refused));
        // The bound of all devices is another rule.
        let mut reader = device.open().await;
        for entry in reader
            .take(Lane::Telemetry, 9)
            .await
            .expect("the lease stands")
        {
            settle(&mut reader, &entry, Ok(Done::Acknowledged)).await;
        }
    }
}

/// One more byte than the bound of all devices is refused at each of them.
pub async fn the_bytes_of_all_devices_are_bounded(engine: Engine) {
    let bound = engine.bounds.outbox_bytes_in_all;
    let share = engine.bounds.outbox_bytes;
    let fill = "x".repeat(share - telemetry("").size());
    let full_devices = bound / share - 1;
    for number in 0..full_devices {
        let device = engine.owned(&format!("full{number}")).await;
        device.submit(1, telemetry(&fill)).await;
    }
    let last = bound - full_devices * share;
    let halves = [last / 2, last - last / 2];
    let (one, two) = (engine.owned("dev1").await, engine.owned("dev2").await);
    let of_size = |size: usize| telemetry(&"x".repeat(size - telemetry("").size()));
    one.submit(1, of_size(halves[0])).await;
    let too_large = two.try_submit(1, of_size(halves[1] + 1)).await.err();
    assert_eq!(too_large, Some(SubmitError::Full));
    two.submit(1, of_size(halves[1])).await;
    let one_more = engine
        .owned("dev3")
        .await
        .try_submit(1, telemetry(""))
        .await;
    assert_eq!(one_more.err(), Some(SubmitError::Full));

    let mut reader = one.open().await;
    let taken = reader
        .take(Lane::Telemetry, 1)
        .await
        .expect("the lease stands");
    settle(&mut reader, &taken[0], Ok(Done::Acknowledged)).await;
    one.submit(2, of_size(halves[0])).await;
}

/// A reader that waits is woken for everything that comes, however it falls between looking and waiting.
pub async fn a_waiting_reader_misses_nothing(engine: Engine) {
    let device = engine.owned("dev1").await;
    let mut reader = device.open().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for id in 0..ROUNDS {
            let ticket = device.submit(id, telemetry("x")).await;
            assert_eq!(outcome(ticket).await, Ok(Done::Acknowledged));
        }
    });
    let mut settled = 0;
    while settled < ROUNDS {
        soon(reader.ready()).await;
        for entry in reader
            .take(Lane::Telemetry, 4)
            .await
            .expect("the lease stands")
        {
            settle(&mut reader, &entry, Ok(Done::Acknowledged)).await;
            settled += 1;
        }
    }
    soon(tasks.join_all()).await;
}

/// While one lane's reader has no room, entries of another lane still end its wait.
pub async fn a_full_lane_keeps_no_other_waiting(engine: Engine) {
    let device = engine.owned("dev1").await;
    for id in 1..=4 {
        device.submit(id, telemetry("x")).await;
    }
    let mut reader = device.open().await;
    assert_eq!(take(&mut reader, Lane::Telemetry, 2).await.len(), 2);
    assert_eq!(take(&mut reader, Lane::Twin, 2).await.len(), 0);
    device.submit(5, Work::TwinRead).await;
    soon(reader.ready()).await;
    assert_eq!(take(&mut reader, Lane::Twin, 2).await, ["Twin"]);
}

/// A lane whose reader had no room is ready again when it has settled one.
pub async fn a_settled_entry_makes_a_full_lane_ready(engine: Engine) {
    let device = engine.owned("dev1").await;
    for id in 1..=4 {
        device.submit(id, telemetry("x")).await;
    }
    let mut reader = device.open().await;
    let taken = reader
        .take(Lane::Telemetry, 2)
        .await
        .expect("the lease stands");
    settle(&mut reader, &taken[0], Ok(Done::Acknowledged)).await;
    soon(reader.ready()).await;
    assert_eq!(take(&mut reader, Lane::Telemetry, 1).await, ["x"]);
}

/// The backlog of a partition names the devices whose entries wait, and no others.
pub async fn the_backlog_lists_devices_whose_entries_wait(engine: Engine) {
    let (one, idle) = (engine.owned("dev1").await, engine.owned("dev2").await);
    let partition = Partition::of(&one.identity);
    let outbox = &engine.store.outbox;
    let backlog = async |partition| {
        all_pages(async |after| outbox.backlog(partition, after.as_deref()).await).await
    };
    assert_eq!(backlog(partition).await, []);
    one.submit(1, telemetry("x")).await;
    assert_eq!(backlog(partition).await, [identity("dev1")]);
    let elsewhere = Partition::of(&idle.identity);
    assert_ne!(partition, elsewhere, "the names are chosen for that");
    assert_eq!(backlog(elsewhere).await, []);

    let mut reader = one.open().await;
    assert_eq!(take(&mut reader, Lane::Telemetry, 1).await, ["x"]);
    assert_eq!(backlog(partition).await, [], "it is taken");
    drop(reader);
    assert_eq!(
        backlog(partition).await,
        [identity("dev1")],
        "it is put back"
    );

    let mut reader = one.open().await;
    let again = reader.take(Lane::Telemetry, 1).await;
    let again = again.expect("the lease stands");
    settle(&mut reader, &again[0], Ok(Done::Acknowledged)).await;
    drop(reader);
    assert_eq!(backlog(partition).await, []);
}

/// An engine says whether it can keep an entry, and one that can survives the loss of its session.
pub async fn a_durable_entry_is_kept_or_refused(engine: Engine) {
    let device = engine.owned("dev1").await;
    if device.submit_durable(1, telemetry("kept")).await {
        engine.clock.advance(engine.bounds.session_lease * 100);
        let owner = device.taken_over(&node("b")).await;
        let kept = take(&mut owner.open().await, Lane::Telemetry, 9).await;
        assert_eq!(kept, ["kept"]);
    }
}

/// An entry that was persisted has no deadline, whether a session has it meanwhile or not.
pub async fn a_persisted_entry_has_no_deadline(engine: Engine) {
    let device = engine.owned("dev1").await;
    let waiting = device.submit(1, telemetry("one")).await;
    device.submit(2, telemetry("two")).await;
    let outbox = &engine.store.outbox;
    for id in [1, 1, 2].map(SubmissionId) {
        let persisted = sure(|| outbox.persist(&device.identity, id)).await;
        if outbox.is_durable() {
            assert_eq!(persisted, Ok(()));
        } else {
            assert_eq!(persisted, Err(StoreError::Volatile.into()));
            return;
        }
    }
    let unknown = sure(|| outbox.persist(&device.identity, SubmissionId(9))).await;
    assert_eq!(unknown, Err(PersistError::Unknown));

    engine.clock.advance(PATIENCE * 2);
    let mut reader = device.open().await;
    let entries = reader.take(Lane::Telemetry, 9).await;
    let entries = entries.expect("the lease stands");
    assert_eq!(texts(&entries), ["one", "two"]);
    settle(&mut reader, &entries[0], Ok(Done::Acknowledged)).await;
    assert_eq!(outcome(waiting).await, Ok(Done::Acknowledged));
    let again = sure(|| outbox.persist(&device.identity, SubmissionId(1))).await;
    assert_eq!(again, Ok(()), "it is settled");
}

/// A reader that gives an entry up keeps it if it has become durable since it was taken; otherwise it is settled.
pub async fn what_is_durable_is_not_given_up(engine: Engine) {
    let device = engine.owned("dev1").await;
    let kept = device.submit(1, telemetry("one")).await;
    let given_up = device.submit(2, telemetry("two")).await;
    let mut reader = device.open().await;
    let entries = reader.take(Lane::Telemetry, 9).await;
    let entries = entries.expect("the lease stands");
    let outbox = &engine.store.outbox;
    let persisted = sure(|| outbox.persist(&device.identity, SubmissionId(1))).await;
    let expected = match persisted {
        Ok(()) => GivenUp::Kept,
        Err(_) => GivenUp::Settled,
    };
    for (entry, expected) in entries.iter().zip([expected, GivenUp::Settled]) {
        // Twice is harmless.
        for _ in 0..2 {
            let given_up = give_up(&mut reader, entry, Failure::HubTimeout).await;
            assert_eq!(given_up, expected);
        }
    }
    assert_eq!(outcome(given_up).await, Err(Failure::HubTimeout));
    if expected == GivenUp::Kept {
        let none = reader.take(Lane::Telemetry, 9).await;
        assert_eq!(
            none.expect("the lease stands").len(),
            0,
            "it is still taken"
        );
        settle(&mut reader, &entries[0], Ok(Done::Acknowledged)).await;
        assert_eq!(outcome(kept).await, Ok(Done::Acknowledged));
    }
}

/// A failure that may pass puts a durable entry back, before what came after it.
pub async fn a_failure_that_may_pass_puts_a_durable_entry_back(engine: Engine) {
    let device = engine.owned("dev1").await;
    for (id, text) in (1..).zip(["one", "two", "three"]) {
        if !device.submit_durable(id, telemetry(text)).await {
            return;
        }
    }
    let mut reader = device.open().await;
    let lease = "the lease stands";
    let first = reader.take(Lane::Telemetry, 2).await.expect(lease);
    assert_eq!(first.iter().map(|entry| entry.attempts).max(), Some(0));
    settle(&mut reader, &first[0], Err(Failure::HubUnavailable)).await;
    settle(&mut reader, &first[0], Ok(Done::Acknowledged)).await; // it is not taken
    soon(reader.ready()).await;
    let again = reader.take(Lane::Telemetry, 9).await.expect(lease);
    assert_eq!(texts(&again), ["one", "three"]);
    assert_eq!((again[0].attempts, again[1].attempts), (1, 0));
    assert_eq!(again[0].id, first[0].id);
    for entry in [&first[1], &again[0], &again[1]] {
        settle(&mut reader, entry, Ok(Done::Acknowledged)).await;
    }
    assert_eq!(take(&mut reader, Lane::Telemetry, 9).await, [""; 0]);
    drop(reader);
    let reopened = take(&mut device.open().await, Lane::Telemetry, 9).await;
    assert_eq!(reopened, [""; 0]);
}

/// A durable entry that has failed for good is a dead letter, which says what it was and can be replayed once.
pub async fn a_durable_entry_that_fails_for_good_is_a_dead_letter(engine: Engine) {
    let device = engine.owned("dev1").await;
    if !device.submit_durable(1, telemetry("poison")).await {
        assert_eq!(device.unsent().await, []);
        return;
    }
    let mut reader = device.open().await;
    let lease = "the lease stands";
    let taken = reader.take(Lane::Telemetry, 9).await.expect(lease);
    let failure = Failure::HubClosedOnPublish;
    settle(&mut reader, &taken[0], Err(failure.clone())).await;
    let at = engine.clock.timestamp();
    let refused = ReceiptState::Refused {
        failure: failure.clone(),
        at,
    };
    assert_eq!(device.receipt(1).await, Some(refused));
    let letter = OutboxDeadLetter {
        identity: device.identity.clone(),
        id: taken[0].id,
        submission: SubmissionId(1),
        lane: Lane::Telemetry,
        bytes: telemetry("poison").size(),
        accepted_at: taken[0].accepted_at,
        attempts: Some(1),
        failure,
        at,
    };
    assert_eq!(device.unsent().await, std::slice::from_ref(&letter));

    let outbox = &engine.store.outbox;
    let said = sure(|| outbox.dead_letter(&device.identity, taken[0].id)).await;
    let (read, said) = said
        .expect("the engine is there")
        .expect("it has failed for good");
    assert_eq!(read, letter);
    assert!(matches!(said, Some(Work::Telemetry(said)) if said.payload == "poison"));
    let replayed = outbox.replay(&device.identity, taken[0].id).await;
    assert_eq!(replayed, Ok(()));
    let replayed = outbox.replay(&device.identity, taken[0].id).await;
    assert_eq!(replayed, Err(ReplayError::Unknown));
    assert_eq!(device.unsent().await, []);
    assert_eq!(device.receipt(1).await, Some(ReceiptState::Stored));
    let again = reader.take(Lane::Telemetry, 9).await.expect(lease);
    assert_eq!(texts(&again), ["poison"]);
    settle(&mut reader, &again[0], Ok(Done::Acknowledged)).await;
    let acknowledged = ReceiptState::Acknowledged { at };
    assert_eq!(device.receipt(1).await, Some(acknowledged));
}

/// A dead letter that is discarded is gone, and its receipt stays what it was.
pub async fn a_discarded_dead_letter_is_gone(engine: Engine) {
    let device = engine.owned("dev1").await;
    if !device.submit_durable(1, telemetry("poison")).await {
        return;
    }
    let mut reader = device.open().await;
    let taken = reader.take(Lane::Telemetry, 9).await;
    let taken = taken.expect("the lease stands");
    let failure = Failure::HubClosedOnPublish;
    settle(&mut reader, &taken[0], Err(failure.clone())).await;
    let refused = device.receipt(1).await;

    let outbox = &engine.store.outbox;
    let discard = async || {
        let discarded = sure(|| outbox.discard(&device.identity, taken[0].id)).await;
        discarded.expect("the engine is there")
    };
    discard().await;
    assert!(!discard().await);
    assert_eq!(device.unsent().await, []);
    let said = sure(|| outbox.dead_letter(&device.identity, taken[0].id)).await;
    assert!(matches!(said, Ok(None)));
    let replayed = outbox.replay(&device.identity, taken[0].id).await;
    assert_eq!(replayed, Err(ReplayError::Unknown));
    assert_eq!(device.receipt(1).await, refused);
}

/// The stock is what waits and what is a dead letter, of a device and of all devices of a partition.
pub async fn the_stock_of_the_outbox_is_what_there_is(engine: Engine) {
    let device = engine.owned("dev1").await;
    let (outbox, of) = (&engine.store.outbox, &device.identity);
    let stock = async || sure(|| outbox.stock_of(of)).await;
    assert_eq!(stock().await, Ok(Stock::default()));
    let submitted = engine.clock.timestamp();
    device.submit(1, telemetry("one")).await;
    engine.clock.advance(Duration::from_secs(1));
    device.submit(2, Work::TwinRead).await;
    let is_durable = device.submit_durable(3, telemetry("poison")).await;
    let bytes = telemetry("one").size() + Work::TwinRead.size();
    let bytes_of_poison = if is_durable {
        telemetry("poison").size()
    } else {
        0
    };
    let waiting = Stock {
        waiting: 2 + u64::from(is_durable),
        bytes: (bytes + bytes_of_poison) as u64,
        oldest: Some(submitted),
        dead_letters: 0,
    };
    assert_eq!(stock().await, Ok(waiting));
    let mut reader = device.open().await;
    let taken = reader.take(Lane::Telemetry, 9).await;
    for entry in taken.expect("the lease stands") {
        settle(&mut reader, &entry, Err(Failure::DoesNotFit)).await;
    }
    let left = Stock {
        waiting: 1,
        bytes: Work::TwinRead.size() as u64,
        oldest: Some(engine.clock.timestamp()),
        dead_letters: u64::from(is_durable),
    };
    assert_eq!(stock().await, Ok(left));
    let in_partition = sure(|| outbox.stock(device.lease.partition)).await;
    assert_eq!(in_partition, Ok(left));
}

/// Another submission under the id of one with a fingerprint is refused, and the outcome of one is remembered for days.
pub async fn a_fingerprint_tells_a_repetition_from_another_submission(engine: Engine) {
    let device = engine.owned("dev1").await;
    let keyed = async |text| device.submit_keyed(1, text).await;
    let first = keyed("this").await.expect("there is room");
    let other = keyed("that").await.err();
    assert_eq!(other, Some(SubmitError::KeyReused));
    let again = keyed("this").await.expect("it is the same");

    let mut reader = device.open().await;
    let taken = reader.take(Lane::Telemetry, 9).await;
    let taken = taken.expect("the lease stands");
    assert_eq!(texts(&taken), ["this"]);
    settle(&mut reader, &taken[0], Ok(Done::Acknowledged)).await;
    assert_eq!(outcome(first).await, Ok(Done::Acknowledged));
    assert_eq!(outcome(again).await, Ok(Done::Acknowledged));

    let almost = Receipt::KEPT - Duration::from_millis(1);
    engine.clock.advance(almost);
    let later = keyed("this").await.expect("it is remembered");
    assert_eq!(outcome(later).await, Ok(Done::Acknowledged));
    let other = keyed("that").await.err();
    assert_eq!(other, Some(SubmitError::KeyReused));
    engine.clock.advance(Duration::from_millis(1));
    // A device that is asked for forgets nothing late: the bound of its keys is looked at, and what has ended goes.
    device.submit_keyed(2, "x").await.expect("there is room");
    let fresh = keyed("that").await.expect("it is forgotten");
    assert_waits(fresh).await;
}

/// A receipt says how far a submission is.
pub async fn a_receipt_follows_its_submission(engine: Engine) {
    let device = engine.owned("dev1").await;
    assert_eq!(device.receipt(1).await, None);
    device.submit_keyed(1, "x").await.expect("there is room");
    assert_eq!(device.receipt(1).await, Some(ReceiptState::Stored));
    let refused = Status {
        state: SessionState::Refused,
        ..Status::default()
    };
    let accepted = Status {
        state: SessionState::Connected,
        ..Status::default()
    };
    let signals = &engine.store.signals;
    let say = async |status: &Status| {
        sure(|| signals.set_status(&device.lease, &device.identity, status.clone()))
            .await
            .expect("the lease stands");
    };
    say(&refused).await;
    let waiting = ReceiptState::WaitingForCredential;
    assert_eq!(device.receipt(1).await, Some(waiting.clone()));

    let mut reader = device.open().await;
    let taken = reader.take(Lane::Telemetry, 9).await;
    let taken = taken.expect("the lease stands");
    // What has taken it has no connection.
    assert_eq!(device.receipt(1).await, Some(waiting));
    say(&accepted).await;
    assert_eq!(device.receipt(1).await, Some(ReceiptState::Sent));
    settle(&mut reader, &taken[0], Ok(Done::Acknowledged)).await;
    let at = engine.clock.timestamp();
    let acknowledged = ReceiptState::Acknowledged { at };
    assert_eq!(device.receipt(1).await, Some(acknowledged));
    device.submit(2, telemetry("no key")).await;
    assert_eq!(device.receipt(2).await, None);
}

/// What has failed, but not for good, may come again under its id, with a key or without; what has failed for good may not.
pub async fn an_id_is_as_good_as_before_what_came_to_nothing(engine: Engine) {
    let device = engine.owned("dev1").await;
    let mut reader = device.open().await;
    for (id, fingerprint) in [(1, Some(Fingerprint::of(&[b"x"]))), (2, None)] {
        let mut submission = engine.submission(&device.identity, id, telemetry("x"));
        submission.fingerprint = fingerprint;
        let submit = async || engine.submit(submission.clone()).await;
        for failure in [
            Failure::HubUnavailable,
            Failure::HubTimeout,
            Failure::DoesNotFit,
        ] {
            let ticket = submit().await.expect("there is room");
            let taken = reader.take(Lane::Telemetry, 9).await;
            let taken = taken.expect("the lease stands");
            assert_eq!(texts(&taken), ["x"], "{failure}");
            settle(&mut reader, &taken[0], Err(failure.clone())).await;
            assert_eq!(outcome(ticket).await, Err(failure));
        }
        let again = submit().await.expect("it is known");
        assert_eq!(outcome(again).await, Err(Failure::DoesNotFit));
    }
}

/// An answer to a direct method that has failed is not given to a session again.
pub async fn an_answer_is_never_sent_twice(engine: Engine) {
    let device = engine.owned("dev1").await;
    let mut reader = device.open().await;
    let ticket = device.submit(1, answer()).await;
    let taken = reader.take(Lane::Answers, 9).await;
    let taken = taken.expect("the lease stands");
    settle(&mut reader, &taken[0], Err(Failure::HubTimeout)).await;
    let again = device.submit(1, answer()).await;
    for ticket in [ticket, again] {
        assert_eq!(outcome(ticket).await, Err(Failure::HubTimeout));
    }
    assert!(take(&mut reader, Lane::Answers, 9).await.is_empty());
}

/// A key whose number is that of a submission with a fingerprint is that of another request, and the other way round. A
/// submission without one has nothing to do with keys.
pub async fn a_key_is_that_of_one_request_of_whatever_kind(engine: Engine) {
    let device = engine.owned("dev1").await;
    let registry = &engine.store.registry;
    let begin = async |id| {
        let fingerprint = Fingerprint::of(&[b"x"]);
        sure(|| registry.begin_key(&device.identity, KeyId(id), fingerprint)).await
    };
    device.submit_keyed(1, "x").await.expect("there is room");
    assert_eq!(begin(1).await, Err(KeyError::Reused));
    begin(2).await.expect("there is room");
    let submitted = device.submit_keyed(2, "x").await.err();
    assert_eq!(submitted, Some(SubmitError::KeyReused));
    device.submit(2, telemetry("no key")).await;
    sure(|| registry.forget_key(&device.identity, KeyId(2)))
        .await
        .expect("the engine is there");
    begin(3).await.expect("there is room");
    device.submit_keyed(4, "x").await.expect("there is room");
    assert_eq!(begin(3).await, Ok(KeyState::Open(None)));
}

/// One more key than the bound is refused, of whatever kind; a known one is not one more.
pub async fn the_keys_of_a_device_are_bounded(engine: Engine) {
    let device = engine.owned("dev1").await;
    let limit = engine.bounds.keys;
    let registry = &engine.store.registry;
    let begin = async |id| {
        let fingerprint = Fingerprint::of(&[b"x"]);
        sure(|| registry.begin_key(&device.identity, KeyId(id), fingerprint)).await
    };
    begin(2001).await.expect("there is room");
    for id in 1..limit as u128 {
        device.submit_keyed(id, "x").await.expect("there is room");
    }
    let one_more = device.submit_keyed(1000, "x").await.err();
    assert_eq!(one_more, Some(SubmitError::TooManyKeys { limit }));
    assert_eq!(begin(2002).await, Err(KeyError::TooMany { limit }));
    device.submit_keyed(1, "x").await.expect("it is known");
    assert_eq!(begin(2001).await, Ok(KeyState::Open(None)));
    device.submit(1001, telemetry("no key")).await;

    sure(|| registry.forget_key(&device.identity, KeyId(2001)))
        .await
        .expect("the engine is there");
    device.submit_keyed(1000, "x").await.expect("there is room");
    assert_eq!(begin(2002).await, Err(KeyError::TooMany { limit }));
}

async fn take(reader: &mut Box<dyn OutboxReader>, lane: Lane, max: usize) -> Vec<String> {
    let entries = reader.take(lane, max).await.expect("the lease stands");
    texts(&entries)
}

async fn settle(
    reader: &mut Box<dyn OutboxReader>,
    entry: &crate::OutboxEntry,
    outcome: crate::Outcome,
) {
    rig::settle(reader, entry.id, outcome)
        .await
        .expect("the lease stands");
}

async fn give_up(
    reader: &mut Box<dyn OutboxReader>,
    entry: &crate::OutboxEntry,
    failure: Failure,
) -> GivenUp {
    rig::give_up(reader, entry.id, failure)
        .await
        .expect("the lease stands")
}

const ROUNDS: u128 = 200;

async fn take_back(device: &Owned, id: u128) -> bool {
    let outbox = &device.engine.store.outbox;
    sure(|| outbox.take_back(&device.identity, SubmissionId(id)))
        .await
        .expect("the engine is there")
}
