//! Rules of the signals.

use std::{sync::Arc, time::Duration};

use iothub::Identity;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Engine,
    rig::{
        LOCK, Owned, PATIENCE, all_pages, arrival, assert_waits, identity, node, outcome, settle,
        soon, sure, telemetry, tied,
    },
};
use crate::{
    Clock as _, ConnectionEpoch, Demand, Done, Lane, Need, Needs, NeedsWatch, Partition,
    SessionState, Settlement, Status, Watch,
};

/// However many need a device, its session is asked for once.
pub async fn a_demand_makes_a_device_wanted_once(engine: Engine) {
    let _demands = [
        demand(&engine, "dev1", Needs::default()).await,
        demand(&engine, "dev1", Needs::default()).await,
        demand(&engine, "dev2", Needs::default()).await,
    ];
    assert_eq!(next_wanted(&engine).await, identity("dev1"));
    assert_eq!(next_wanted(&engine).await, identity("dev2"));
    assert_nobody_wanted(&engine).await;
    let _another = demand(&engine, "dev1", Needs::default()).await;
    assert_nobody_wanted(&engine).await;
}

/// An entry in the outbox asks for a session too.
pub async fn an_entry_makes_a_device_wanted(engine: Engine) {
    let device = engine.owned("dev1").await;
    device.submit(1, telemetry("x")).await;
    device.submit(2, telemetry("y")).await;
    assert_eq!(next_wanted(&engine).await, device.identity);
    assert_nobody_wanted(&engine).await;
}

/// Whoever waits for devices is told of each, however their demands fall between looking and waiting.
pub async fn whoever_waits_for_wanted_devices_misses_none(engine: Engine) {
    let mut tasks = JoinSet::new();
    let fronts = engine.clone();
    tasks.spawn(async move {
        let mut demands = Vec::new();
        for number in 0..ROUNDS {
            demands.push(demand(&fronts, &format!("dev{number}"), Needs::default()).await);
            tokio::task::yield_now().await;
        }
        demands
    });
    for number in 0..ROUNDS {
        let wanted = soon(next_wanted(&engine)).await;
        assert_eq!(wanted, identity(&format!("dev{number}")));
    }
    drop(soon(tasks.join_all()).await);
}

/// A need that has ended, or an entry that is overdue, before anybody was told, asks for nothing.
pub async fn what_is_over_is_not_wanted(engine: Engine) {
    let device = engine.owned("dev1").await;
    let ticket = device.submit(1, telemetry("x")).await;
    let ended = demand(&engine, "dev2", Needs::default()).await;
    let _lasting = demand(&engine, "dev3", Needs::default()).await;
    drop(ended);
    engine.clock.advance(PATIENCE);
    assert_eq!(next_wanted(&engine).await, identity("dev3"));
    assert_nobody_wanted(&engine).await;
    assert!(outcome(ticket).await.is_err());
    let _again = demand(&engine, "dev2", Needs::default()).await;
    assert_eq!(next_wanted(&engine).await, identity("dev2"));
}

/// While somebody attends, nobody else is asked; given up, the device is wanted again if there is a need or an entry.
pub async fn an_attended_device_is_wanted_again_when_given_up(engine: Engine) {
    let device = engine.owned("dev1").await;
    let attendance = attend(&device).await;
    let lasting = demand(&engine, "dev1", Needs::default()).await;
    device.submit(1, telemetry("x")).await;
    assert_nobody_wanted(&engine).await;
    drop(attendance);
    assert_eq!(next_wanted(&engine).await, device.identity);

    let attendance = attend(&device).await;
    drop(lasting);
    let mut reader = device.open().await;
    let taken = reader
        .take(Lane::Telemetry, 1)
        .await
        .expect("the lease stands");
    drop(attendance);
    assert_eq!(
        next_wanted(&engine).await,
        device.identity,
        "one is unsettled"
    );

    let attendance = attend(&device).await;
    settle(&mut reader, taken[0].id, Ok(Done::Acknowledged))
        .await
        .expect("the lease stands");
    drop((attendance, reader));
    assert_nobody_wanted(&engine).await;
}

/// A node that was told of a device and does not come is not waited for for ever.
pub async fn a_device_that_nobody_attended_is_wanted_again(engine: Engine) {
    let _lasting = demand(&engine, "dev1", Needs::default()).await;
    assert_eq!(next_wanted(&engine).await, identity("dev1"));
    let _early = demand(&engine, "dev1", Needs::default()).await;
    assert_nobody_wanted(&engine).await;
    engine.clock.advance(engine.bounds.session_lease);
    let _late = demand(&engine, "dev1", Needs::default()).await;
    assert_eq!(next_wanted(&engine).await, identity("dev1"));
}

/// A node is told of the devices of its partitions, and of nobody's.
pub async fn a_device_is_wanted_by_the_node_that_owns_it(engine: Engine) {
    let owned = engine.owned("dev1").await;
    let _of_a = demand(&engine, "dev1", Needs::default()).await;
    let _of_nobody = demand(&engine, "dev2", Needs::default()).await;
    let signals = &engine.store.signals;
    let told = soon(signals.next_wanted(&node("b"))).await;
    assert_eq!(told, Ok(identity("dev2")));
    let other = node("b");
    assert_waits(signals.next_wanted(&other)).await;
    assert_eq!(next_wanted(&engine).await, owned.identity);
}

/// The owner of a partition is told of its devices though the older owner's sessions still believe to attend.
pub async fn a_taken_over_device_is_wanted_again(engine: Engine) {
    let older = engine.owned("dev1").await;
    let _lasting = demand(&engine, "dev1", Needs::default()).await;
    let attendance = attend(&older).await;
    let newer = older.taken_over(&node("b")).await;
    let signals = &engine.store.signals;
    let told = soon(signals.next_wanted(&node("b"))).await;
    assert_eq!(told, Ok(older.identity));
    let _newer = attend(&newer).await;
    drop(attendance);
    let other = node("b");
    assert_waits(signals.next_wanted(&other)).await;
}

/// A need is there while one of its demands lives, and its end is remembered.
pub async fn needs_are_counted_and_their_end_is_remembered(engine: Engine) {
    let device = engine.owned("dev1").await;
    let mut attendance = attend(&device).await;
    assert_eq!(attendance.current().methods, Need::Never);
    let with_methods = Needs {
        methods: true,
        desired: false,
    };
    let one = demand(&engine, "dev1", with_methods).await;
    let other = demand(&engine, "dev1", with_methods).await;
    let needs = attendance.current();
    assert_eq!((needs.session, needs.methods), (Need::Now, Need::Now));
    assert_eq!(needs.desired, Need::Never);

    drop(one);
    assert_eq!(attendance.current().methods, Need::Now);
    let ended_at = engine.clock.instant();
    drop(other);
    engine.clock.advance(Duration::from_secs(1));
    let needs = attendance.current();
    assert_eq!(
        (needs.session, needs.methods),
        (Need::Until(ended_at), Need::Until(ended_at))
    );

    let plain = demand(&engine, "dev1", Needs::default()).await;
    let needs = attendance.current();
    assert_eq!(
        (needs.session, needs.methods),
        (Need::Now, Need::Until(ended_at))
    );
    drop(plain);
    let ended_at = engine.clock.instant();
    assert_eq!(attendance.current().session, Need::Until(ended_at));
}

/// Whoever waits for needs sees each change, however it falls between looking and waiting.
pub async fn whoever_waits_for_needs_misses_none(engine: Engine) {
    let device = engine.owned("dev1").await;
    let mut attendance = attend(&device).await;
    let desired = Needs {
        methods: false,
        desired: true,
    };
    let (seen, mut is_seen) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let fronts = engine.clone();
    tasks.spawn(async move {
        for _ in 0..ROUNDS {
            let lasting = demand(&fronts, "dev1", desired).await;
            is_seen.recv().await;
            drop(lasting);
            is_seen.recv().await;
        }
    });
    for _ in 0..ROUNDS {
        soon(until(&mut attendance, |need| need == Need::Now)).await;
        soon(seen.send(())).await.expect("the other side waits");
        soon(until(&mut attendance, |need| need != Need::Now)).await;
        soon(seen.send(())).await.expect("the other side waits");
    }
    soon(tasks.join_all()).await;
}

/// A status is what the session's owner said last; a device that has no session is closed.
pub async fn a_status_is_what_was_said_last(engine: Engine) {
    let device = engine.owned("dev1").await;
    assert_eq!(status(&device).await, Status::default());
    for state in [SessionState::Connecting, SessionState::Settled] {
        let said = Status {
            state,
            connection: Some(ConnectionEpoch(4)),
            offers_methods: state == SessionState::Settled,
            since: Some(engine.clock.timestamp()),
            last_error: Some("reset by peer".to_owned()),
        };
        set_status(&device, &said).await;
        assert_eq!(status(&device).await, said);
    }
}

/// The sessions of a partition that are not closed are listed.
pub async fn open_sessions_are_listed_by_partition(engine: Engine) {
    let (one, two) = (engine.owned("dev1").await, engine.owned("dev2").await);
    let connected = Status {
        state: SessionState::Connected,
        ..Status::default()
    };
    set_status(&one, &connected).await;
    set_status(&two, &Status::default()).await;
    let signals = &engine.store.signals;
    let listed = async |partition| {
        all_pages(async |after| signals.statuses(partition, after.as_deref()).await).await
    };
    assert_eq!(listed(Partition::of(&two.identity)).await, []);
    let of_one = [(one.identity.clone(), connected)];
    assert_eq!(listed(Partition::of(&one.identity)).await, of_one);
    set_status(&one, &Status::default()).await;
    assert_eq!(listed(Partition::of(&one.identity)).await, []);
}

/// Whatever changes for a device wakes who watches it, also when it changed before the wait began.
pub async fn a_watch_wakes_for_every_kind_of_change(engine: Engine) {
    let device = engine.owned("dev1").await;
    let inbox = &engine.store.inbox;
    let mut watch = watch(&engine, &device.identity).await;

    let (shown, _) = device.append_shown(arrival(1, 1), &tied()).await;
    soon(watch.changed()).await;
    let received = inbox.receive(&device.identity, LOCK).await;
    let delivery = received
        .expect("the engine is there")
        .expect("it is offered");
    let abandoned = device.settle(&delivery.token, Settlement::Abandon).await;
    assert!(abandoned.is_ok());
    soon(watch.changed()).await;
    assert!(
        device
            .settle(&shown.token, Settlement::Complete)
            .await
            .is_ok()
    );
    soon(watch.changed()).await;
    sure(|| inbox.set_desired(&device.lease, &device.identity, None))
        .await
        .expect("the lease stands");
    soon(watch.changed()).await;
    device.append(arrival(1, 2), &device.method(1, "7")).await;
    soon(watch.changed()).await;
    device.withdraw(1).await;
    soon(watch.changed()).await;
    let said = Status {
        state: SessionState::Settled,
        ..Status::default()
    };
    set_status(&device, &said).await;
    soon(watch.changed()).await;
    let said = Status {
        offers_methods: true,
        ..said
    };
    set_status(&device, &said).await;
    soon(watch.changed()).await;
}

/// Two that watch see everything that arrives, however it falls between looking and waiting.
pub async fn a_watch_misses_nothing(engine: Engine) {
    let device = Arc::new(engine.owned("dev1").await);
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let device = Arc::clone(&device);
        let mut watch = watch(&engine, &device.identity).await;
        tasks.spawn(async move {
            while status(&device).await.connection != Some(ConnectionEpoch(ROUNDS)) {
                soon(watch.changed()).await;
            }
        });
    }
    for number in 1..=ROUNDS {
        let said = Status {
            connection: Some(ConnectionEpoch(number)),
            ..Status::default()
        };
        set_status(&device, &said).await;
        tokio::task::yield_now().await;
    }
    soon(tasks.join_all()).await;
}

/// A node is told of a device once, though it acquires the partition: that is what it does because it was told.
pub async fn a_node_is_told_of_a_device_once_though_it_acquires_it(engine: Engine) {
    let _demand = demand(&engine, "dev1", Needs::default()).await;
    let device = next_wanted(&engine).await;
    let lease = engine.acquire(&node("a"), Partition::of(&device)).await;
    assert!(lease.is_ok(), "nobody else holds it");
    assert_nobody_wanted(&engine).await;
}

async fn demand(engine: &Engine, device: &str, needs: Needs) -> Demand {
    let signals = &engine.store.signals;
    let device = identity(device);
    sure(|| signals.demand(&device, needs))
        .await
        .expect("the engine is there")
}

/// The next device that the first node is told of.
async fn next_wanted(engine: &Engine) -> Identity {
    let wanted = soon(engine.store.signals.next_wanted(&node("a"))).await;
    wanted.expect("the engine is there")
}

async fn assert_nobody_wanted(engine: &Engine) {
    let node = node("a");
    assert_waits(engine.store.signals.next_wanted(&node)).await;
}

async fn attend(device: &Owned) -> Box<dyn NeedsWatch> {
    let signals = &device.engine.store.signals;
    sure(|| signals.attend(&device.lease, &device.identity))
        .await
        .expect("the lease stands")
}

/// Waits until the need of the desired properties is as it should be.
async fn until(attendance: &mut Box<dyn NeedsWatch>, is_wanted: impl Fn(Need) -> bool) {
    while !is_wanted(attendance.current().desired) {
        attendance.changed().await;
    }
}

async fn watch(engine: &Engine, device: &Identity) -> Box<dyn Watch> {
    let signals = &engine.store.signals;
    sure(|| signals.watch(device))
        .await
        .expect("the engine is there")
}

async fn status(device: &Owned) -> Status {
    let signals = &device.engine.store.signals;
    sure(|| signals.status(&device.identity))
        .await
        .expect("the engine is there")
}

async fn set_status(device: &Owned, status: &Status) {
    let signals = &device.engine.store.signals;
    sure(|| signals.set_status(&device.lease, &device.identity, status.clone()))
        .await
        .expect("the lease stands");
}

const ROUNDS: u64 = 100;
