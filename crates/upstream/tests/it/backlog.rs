//! What is stored goes out when it can, in order, once for all.

use std::time::{Duration, Instant};

use iothub::{HubError, twin::ReportedPatch};
use store::{Done, Failure, ReceiptState, SessionState, Survival, Work};

use crate::{
    hub::{Connection, Packet},
    rig::{LONG, Rig, dev1, soon, telemetry},
};

fn patch(json: &str) -> Work {
    Work::ReportedPatch(ReportedPatch::parse(json.as_bytes()).unwrap())
}

/// Connects again soon, however often.
async fn hasty() -> Rig {
    Rig::durable_with(|config| config.backoff_limit = Duration::from_secs(1)).await
}

/// Acknowledges the next message, and says which it was.
async fn take_one(connection: &mut Connection) -> Vec<u8> {
    let (_, payload, packet_id) = connection.next_publish().await;
    connection.puback(packet_id.unwrap()).await;
    payload
}

async fn answer_patch(connection: &mut Connection, status: u16) -> Vec<u8> {
    let (topic, payload, _) = connection.next_publish().await;
    let prefix = "$iothub/twin/PATCH/properties/reported/?$rid=";
    let rid = topic.strip_prefix(prefix).expect(&topic);
    let answer = format!("$iothub/twin/res/{status}/?$rid={rid}&$version=9");
    connection.publish(&answer, b"", None).await;
    payload
}

#[tokio::test]
async fn a_backlog_is_reason_enough_for_a_session_after_a_restart() {
    let mut rig = Rig::durable().await;
    let mut ids = Vec::new();
    for payload in ["1", "2", "3"] {
        ids.push(rig.store(telemetry(payload)).await.0);
    }
    let mut lost = rig.hub.accept(false).await;
    for _ in &ids {
        lost.next_publish().await;
    }
    rig.restart().await;
    drop(lost);
    // Nobody waits.
    let mut connection = rig.hub.accept(false).await;
    for payload in [b"1", b"2", b"3"] {
        assert_eq!(take_one(&mut connection).await, payload);
    }
    for id in ids {
        soon(async {
            while !matches!(rig.receipt(id).await, ReceiptState::Acknowledged { .. }) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_stored_while_the_hub_has_it_is_sent_once() {
    let rig = Rig::durable().await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let survival = Survival::Ephemeral { deadline };
    let (id, stored) = rig.submit_as(telemetry("1"), survival).await;
    let (_, given_up) = rig.submit_as(telemetry("2"), survival).await;
    let mut connection = rig.hub.accept(false).await;
    let mut packet_ids = Vec::new();
    for payload in [b"1", b"2"] {
        let (_, published, packet_id) = connection.next_publish().await;
        assert_eq!(published, payload);
        packet_ids.extend(packet_id);
    }
    rig.store.outbox.persist(&dev1(), id).await.unwrap();
    // The deadline of both is over.
    assert_eq!(soon(given_up).await, Ok(Err(Failure::HubTimeout)));
    for packet_id in packet_ids {
        connection.puback(packet_id).await;
    }
    assert_eq!(soon(stored).await, Ok(Ok(Done::Acknowledged)));
    rig.store(telemetry("3")).await;
    assert_eq!(take_one(&mut connection).await, b"3");
}

#[tokio::test]
async fn what_is_stored_while_there_is_no_hub_stays_before_what_came_later() {
    let rig = Rig::durable().await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let survival = Survival::Ephemeral { deadline };
    let (id, _) = rig.submit_as(telemetry("1"), survival).await;
    let (_, given_up) = rig.submit_as(telemetry("2"), survival).await;
    rig.store.outbox.persist(&dev1(), id).await.unwrap();
    rig.store(telemetry("3")).await;
    assert!(soon(given_up).await.unwrap().is_err());
    let mut connection = rig.hub.accept(false).await;
    for payload in [b"1", b"3"] {
        assert_eq!(take_one(&mut connection).await, payload);
    }
}

#[tokio::test]
async fn stored_patches_that_wait_are_one_and_share_its_outcome() {
    let rig = Rig::durable().await;
    let mut tickets = Vec::new();
    // More than the session has room for.
    for number in 0..30 {
        let json = format!("{{\"n\":{number},\"k{number}\":true}}");
        tickets.push(rig.store(patch(&json)).await.1);
    }
    let waited_for = rig.submit(patch(r#"{"n":100}"#), LONG).await;
    // Everything is in the outbox before the hub lets the session in.
    let mut connection = rig.hub.accept(false).await;
    let stored = answer_patch(&mut connection, 204).await;
    let stored: serde_json::Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored["n"], 29);
    assert_eq!(stored.as_object().unwrap().len(), 31);
    assert_eq!(answer_patch(&mut connection, 204).await, br#"{"n":100}"#);
    for ticket in tickets {
        assert!(matches!(
            soon(ticket).await,
            Ok(Ok(Done::ReportedPatched { version: Some(version) })) if version.0 == 9
        ));
    }
    assert!(soon(waited_for).await.unwrap().is_ok());
}

#[tokio::test]
async fn what_the_hub_refuses_for_good_is_a_dead_letter_and_the_rest_goes_on() {
    let rig = Rig::durable().await;
    let (refused, ticket) = rig.store(patch(r#"{"a":1}"#)).await;
    let mut connection = rig.hub.accept(false).await;
    answer_patch(&mut connection, 400).await;
    let status = 400;
    let failure = Failure::HubError {
        status,
        error: None::<Box<HubError>>,
    };
    assert_eq!(soon(ticket).await, Ok(Err(failure)));
    assert!(matches!(
        rig.receipt(refused).await,
        ReceiptState::Refused { .. }
    ));
    let (_, ticket) = rig.store(patch(r#"{"a":2}"#)).await;
    assert_eq!(answer_patch(&mut connection, 204).await, br#"{"a":2}"#);
    assert!(soon(ticket).await.unwrap().is_ok());
}

#[tokio::test]
async fn what_the_hub_closes_the_connection_for_is_found_out_alone() {
    let rig = hasty().await;
    let mut tickets = Vec::new();
    for payload in ["good", "poison", "fine"] {
        tickets.push(rig.store(telemetry(payload)).await);
    }
    // In flight at three losses in a row, all of them.
    for _ in 0..3 {
        let mut connection = rig.hub.accept(false).await;
        for _ in 0..3 {
            connection.next_publish().await;
        }
    }
    // One at a time from here on, in order.
    let mut connection = rig.hub.accept(false).await;
    assert_eq!(take_one(&mut connection).await, b"good");
    let (_, payload, _) = connection.next_publish().await;
    assert_eq!(payload, b"poison");
    let still_alone = connection.next_work();
    let nothing = tokio::time::timeout(Duration::from_millis(300), still_alone);
    assert!(nothing.await.is_err(), "it is sent alone");
    drop(connection);

    let mut connection = rig.hub.accept(false).await;
    assert_eq!(take_one(&mut connection).await, b"fine");
    let (poison, ticket) = tickets.remove(1);
    assert_eq!(soon(ticket).await, Ok(Err(Failure::HubClosedOnPublish)));
    assert!(matches!(
        rig.receipt(poison).await,
        ReceiptState::Refused { .. }
    ));
    for (_, ticket) in tickets {
        assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
    }
    // Nothing is suspected any more: the window is open.
    for payload in ["a", "b"] {
        rig.store(telemetry(payload)).await;
    }
    for payload in [b"a", b"b"] {
        assert_eq!(connection.next_publish().await.1, payload);
    }
    let dead = rig
        .store
        .outbox
        .dead_letters(store::Partition::of(&dev1()), None)
        .await;
    assert_eq!(dead.unwrap().items.len(), 1);
}

#[tokio::test]
async fn what_is_waited_for_keeps_its_place_while_the_hub_closes_the_connection() {
    let rig = hasty().await;
    let (_, poison) = rig.store(telemetry("poison")).await;
    let mut connection = rig.hub.accept(false).await;
    connection.next_publish().await;
    drop(connection);
    // It is in flight with the other at the third loss, and comes again on the fifth connection, when that one is gone.
    let waited_for = rig.submit(telemetry("first"), LONG).await;
    for _ in 0..2 {
        let mut connection = rig.hub.accept(false).await;
        for _ in 0..2 {
            connection.next_publish().await;
        }
    }
    let (_, stored) = rig.store(telemetry("second")).await;
    let mut connection = rig.hub.accept(false).await;
    assert_eq!(connection.next_publish().await.1, b"poison");
    drop(connection);

    let mut connection = rig.hub.accept(false).await;
    for payload in [&b"first"[..], b"second"] {
        assert_eq!(take_one(&mut connection).await, payload);
    }
    assert_eq!(soon(poison).await, Ok(Err(Failure::HubClosedOnPublish)));
    for ticket in [waited_for, stored] {
        assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
    }
}

#[tokio::test]
async fn losses_that_are_not_in_a_row_make_no_suspect() {
    let rig = hasty().await;
    for round in 0..5 {
        let (_, ticket) = rig.store(telemetry("x")).await;
        if round > 0 {
            // Lost once with each message.
            let mut connection = rig.hub.accept(false).await;
            connection.next_publish().await;
        }
        let mut connection = rig.hub.accept(false).await;
        assert_eq!(take_one(&mut connection).await, b"x");
        assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
    }
}

#[tokio::test]
async fn a_refused_credential_shows_in_receipts() {
    let rig = Rig::durable().await;
    let (id, _) = rig.store(telemetry("x")).await;
    let (mut connection, _) = rig.hub.connect().await;
    connection.connack(false, 5).await;
    rig.until(SessionState::Refused).await;
    assert_eq!(rig.receipt(id).await, ReceiptState::WaitingForCredential);
    assert_eq!(connection.until_end().await, [] as [Packet; 0]);
}
