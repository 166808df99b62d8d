//! Rules of the session leases, and what they guard.

use super::{
    Engine,
    rig::{
        Owned, arrival, assert_waits, identity, node, outcome, settle, sure, telemetry, texts, tied,
    },
};
use crate::{
    AppendError, Conclusion, ConnectionEpoch, Done, Lane, NodeId, Partition, SessionLease,
    SessionState, Settlement, Status, StoreError,
};

/// While one node holds a partition, others are told who does and for how long; asking again gives the same lease.
pub async fn a_partition_has_one_owner(engine: Engine) {
    let partition = Partition::of(&identity("dev1"));
    assert_eq!(owner(&engine, partition).await, None);
    let lease = engine.acquire(&node("a"), partition).await;
    assert_eq!(engine.acquire(&node("a"), partition).await, lease);
    let refused = engine.acquire(&node("b"), partition).await;
    let held = StoreError::Held {
        by: node("a"),
        for_at_least: engine.bounds.session_lease,
    };
    assert_eq!(refused, Err(held));
    assert_eq!(owner(&engine, partition).await, Some(node("a")));
}

/// When the time of a lease is over, another node can have the partition, under a greater epoch.
pub async fn another_node_takes_over_when_the_lease_is_over(engine: Engine) {
    let older = engine.owned("dev1").await;
    let partition = older.lease.partition;
    let almost = engine.bounds.session_lease - std::time::Duration::from_millis(1);
    engine.clock.advance(almost);
    let early = engine.acquire(&node("b"), partition).await;
    assert!(matches!(early, Err(StoreError::Held { .. })));

    let newer = older.taken_over(&node("b")).await;
    assert!(newer.lease.epoch > older.lease.epoch);
    assert_eq!(renew(&engine, &older.lease).await, Err(StoreError::Stale));
    assert_eq!(owner(&engine, partition).await, Some(node("b")));

    let back = newer.taken_over(&node("a")).await;
    assert!(back.lease.epoch > newer.lease.epoch);
}

/// A lease that is renewed in time is not lost.
pub async fn renewing_prolongs(engine: Engine) {
    let device = engine.owned("dev1").await;
    for _ in 0..3 {
        engine.clock.advance(engine.bounds.session_lease / 2);
        let lasts = renew(&engine, &device.lease).await;
        assert_eq!(lasts, Ok(engine.bounds.session_lease));
    }
    let refused = engine.acquire(&node("b"), device.lease.partition).await;
    assert!(matches!(refused, Err(StoreError::Held { .. })));
}

/// A lease stands until somebody takes the partition.
pub async fn a_lease_that_nobody_took_can_be_renewed(engine: Engine) {
    let device = engine.owned("dev1").await;
    engine.clock.advance(engine.bounds.session_lease * 2);
    assert_eq!(owner(&engine, device.lease.partition).await, None);
    device.open().await;
    assert!(renew(&engine, &device.lease).await.is_ok());
    assert_eq!(
        owner(&engine, device.lease.partition).await,
        Some(node("a"))
    );
}

/// A partition that is given back can be taken at once, and the lease that was given back is stale.
pub async fn a_released_partition_is_free_at_once(engine: Engine) {
    let device = engine.owned("dev1").await;
    release(&engine, &device.lease).await;
    assert_eq!(owner(&engine, device.lease.partition).await, None);
    assert_eq!(device.try_open().await.err(), Some(StoreError::Stale));
    assert_eq!(renew(&engine, &device.lease).await, Err(StoreError::Stale));

    let newer = engine.acquire(&node("b"), device.lease.partition).await;
    assert!(newer.expect("nobody holds it").epoch > device.lease.epoch);
}

/// Giving back what is no longer held does not touch who holds it.
pub async fn releasing_what_is_not_held_is_harmless(engine: Engine) {
    let older = engine.owned("dev1").await;
    let newer = older.taken_over(&node("b")).await;
    release(&engine, &older.lease).await;
    assert_eq!(owner(&engine, newer.lease.partition).await, Some(node("b")));
    newer.open().await;
}

/// Every call under a lease that is over is refused, and nothing of it happens.
pub async fn a_stale_lease_is_refused_and_changes_nothing(engine: Engine) {
    let older = engine.owned("dev1").await;
    let store = &engine.store;
    let device = &older.identity;
    let ticket = submit_for_long(&older, 1).await;
    let mut reader = older.open().await;
    let taken = reader
        .take(Lane::Telemetry, 1)
        .await
        .expect("the lease stands");
    let (settled, _) = older.append_shown(arrival(1, 1), &tied()).await;
    let settling = older.settle(&settled.token, Settlement::Complete).await;
    older.append(arrival(1, 2), &tied()).await;
    let connected = status(SessionState::Connected);
    set_status(&older, connected.clone())
        .await
        .expect("the lease stands");

    let newer = older.taken_over(&node("b")).await;
    let stale = StoreError::Stale;
    let take = reader.take(Lane::Telemetry, 1).await;
    assert_eq!(take.err(), Some(stale.clone()));
    let refused = settle(&mut reader, taken[0].id, Ok(Done::Acknowledged)).await;
    assert_eq!(refused, Err(stale.clone()));
    assert_eq!(older.try_open().await.err(), Some(stale.clone()));
    let append = older.try_append(arrival(1, 3), &tied()).await;
    assert_eq!(append.err(), Some(AppendError::Store(stale.clone())));
    let lease = &older.lease;
    let desired = sure(|| store.inbox.set_desired(lease, device, None)).await;
    assert_eq!(desired, Err(stale.clone()));
    let epoch = ConnectionEpoch(9);
    let withdraw = sure(|| store.inbox.withdraw(lease, device, epoch)).await;
    assert_eq!(withdraw, Err(stale.clone()));
    let id = arrival(1, 1);
    let conclude = sure(|| store.inbox.conclude(lease, device, id, Conclusion::Hub));
    assert_eq!(conclude.await, Err(stale.clone()));
    let attend = sure(|| store.signals.attend(lease, device)).await;
    assert_eq!(attend.err(), Some(stale.clone()));
    let set = set_status(&older, status(SessionState::Refused)).await;
    assert_eq!(set, Err(stale));

    let known = sure(|| store.signals.status(device)).await;
    assert_eq!(known, Ok(connected));
    assert_eq!(
        newer.messages().await.len(),
        1,
        "the one that is not settled"
    );
    assert_waits(settling.expect("it was offered")).await;
    let mut reader = newer.open().await;
    let entries = reader
        .take(Lane::Telemetry, 9)
        .await
        .expect("the lease stands");
    assert_eq!(texts(&entries), ["x"]);
    settle(&mut reader, entries[0].id, Ok(Done::Acknowledged))
        .await
        .expect("the lease stands");
    assert_eq!(outcome(ticket).await, Ok(Done::Acknowledged));
}

/// A lease does not speak for devices of another partition.
pub async fn a_lease_is_of_one_partition(engine: Engine) {
    let (one, mut other) = (engine.owned("dev1").await, engine.owned("dev2").await);
    other.lease = one.lease.clone();
    assert_ne!(one.lease.partition, Partition::of(&other.identity));
    assert_eq!(other.try_open().await.err(), Some(StoreError::Stale));
}

/// An entry whose deadline is past the next change of hands.
async fn submit_for_long(device: &Owned, id: u128) -> crate::Ticket<crate::Outcome> {
    let engine = &device.engine;
    let mut submission = engine.submission(&device.identity, id, telemetry("x"));
    if let crate::Survival::Ephemeral { deadline } = &mut submission.survival {
        *deadline += engine.bounds.session_lease * 2;
    }
    engine.submit(submission).await.expect("there is room")
}

fn status(state: SessionState) -> Status {
    Status {
        state,
        ..Status::default()
    }
}

async fn set_status(device: &Owned, status: Status) -> Result<(), StoreError> {
    let signals = &device.engine.store.signals;
    sure(|| signals.set_status(&device.lease, &device.identity, status.clone())).await
}

async fn renew(engine: &Engine, lease: &SessionLease) -> Result<std::time::Duration, StoreError> {
    sure(|| engine.store.leases.renew(lease)).await
}

async fn release(engine: &Engine, lease: &SessionLease) {
    sure(|| engine.store.leases.release(lease))
        .await
        .expect("the engine is there");
}

async fn owner(engine: &Engine, partition: Partition) -> Option<NodeId> {
    sure(|| engine.store.leases.owner(partition))
        .await
        .expect("the engine is there")
}
