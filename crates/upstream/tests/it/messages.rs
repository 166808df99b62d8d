//! Cloud-to-device messages stay the hub's until the device has settled them, or until the gateway has them on its disk.

use store::{Conclusion, SessionState, SettleError, Settlement};

use crate::{
    hub::Packet,
    rig::{Rig, dev1, soon},
};

#[tokio::test]
async fn the_puback_follows_the_settlement() {
    let rig = Rig::new().await;
    let _demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    connection.deliver("hello", 7).await;
    let message = rig.messages(1).await.remove(0);
    assert_eq!(message.message.payload, "hello");
    // No PUBACK before the device has settled.
    connection
        .serve_until(rig.until(SessionState::Settled))
        .await;

    let ticket = rig.settle(&message, Settlement::Complete).await;
    assert_eq!(connection.next_work().await, Packet::Puback(7));
    assert_eq!(soon(ticket.unwrap()).await, Ok(Conclusion::Hub));
}

#[tokio::test]
async fn out_of_turn_it_is_the_gateways_first() {
    let rig = Rig::new().await;
    let _demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    connection.deliver("one", 1).await;
    connection.deliver("two", 2).await;
    let messages = rig.messages(2).await;

    let second = rig.settle(&messages[1], Settlement::Reject).await.unwrap();
    assert_eq!(soon(second).await, Ok(Conclusion::Gateway));
    let first = rig
        .settle(&messages[0], Settlement::Complete)
        .await
        .unwrap();
    assert_eq!(connection.next_work().await, Packet::Puback(1));
    assert_eq!(connection.next_work().await, Packet::Puback(2));
    assert_eq!(soon(first).await, Ok(Conclusion::Hub));
}

#[tokio::test]
async fn at_most_ten_are_shown_and_nothing_is_said_to_be_all_before_the_rest_is() {
    let rig = Rig::new().await;
    let _demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    for id in 1..=12 {
        connection.deliver("x", id).await;
    }
    let messages = rig.messages(10).await;
    for (place, message) in messages.iter().enumerate() {
        let status = rig.store.signals.status(&dev1()).await.unwrap();
        assert!(place >= 2 || status.state != SessionState::Settled);
        rig.settle(message, Settlement::Complete).await.unwrap();
        let id = u16::try_from(place + 1).unwrap();
        assert_eq!(connection.next_work().await, Packet::Puback(id));
    }
    rig.messages(2).await;
    connection
        .serve_until(rig.until(SessionState::Settled))
        .await;
}

#[tokio::test]
async fn the_end_of_the_connection_makes_tokens_worthless() {
    let rig = Rig::new().await;
    let _demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    connection.deliver("hello", 7).await;
    let lost = rig.messages(1).await.remove(0);
    drop(connection);

    let mut connection = rig.hub.accept(true).await;
    connection.deliver("hello", 3).await;
    let again = rig
        .inbox(|view| {
            view.entries.iter().any(|entry| {
                matches!(entry, store::InboxEntry::Message(message) if message.token != lost.token)
            })
        })
        .await;
    assert_eq!(again.entries.len(), 1);
    let settled = rig.settle(&lost, Settlement::Complete).await;
    assert_eq!(settled.err(), Some(SettleError::Lost));
}

#[tokio::test]
async fn what_cannot_be_read_is_acknowledged_in_its_turn() {
    let rig = Rig::new().await;
    let _demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    let unreadable = "devices/dev1/messages/devicebound/a=%ff";
    connection.deliver("one", 1).await;
    connection.publish(unreadable, b"two", Some(2)).await;
    connection.deliver("three", 3).await;
    let messages = rig.messages(2).await;
    assert_eq!(messages[1].message.payload, "three");
    connection
        .serve_until(rig.until(SessionState::Settled))
        .await;

    for message in &messages {
        rig.settle(message, Settlement::Complete).await.unwrap();
    }
    for id in 1..=3 {
        assert_eq!(connection.next_work().await, Packet::Puback(id));
    }
}

#[tokio::test]
async fn in_the_gateways_custody_the_puback_follows_the_disk_and_the_device_has_time() {
    let mut rig = Rig::durable().await;
    let demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    for (packet_id, payload) in [(1, "one"), (2, "two")] {
        connection.deliver(payload, packet_id).await;
        assert_eq!(connection.next_work().await, Packet::Puback(packet_id));
    }
    drop(demand);
    // The hub has forgotten them; the gateway has not.
    rig.restart().await;
    drop(connection);
    let messages = rig.messages(2).await;
    assert_eq!(messages[0].message.payload, "one");
    let arrived = messages[0].arrived_at;
    let life = messages[0].expires_at.unwrap().saturating_since(arrived);
    assert!(life.as_secs().abs_diff(3600) <= 1, "{life:?}");
    let ticket = rig.settle(&messages[0], Settlement::Complete).await;
    assert_eq!(soon(ticket.unwrap()).await, Ok(Conclusion::Gateway));
    assert_eq!(rig.messages(1).await[0].message.payload, "two");
}

#[tokio::test]
async fn what_the_hub_delivers_again_after_a_crash_is_shown_once() {
    let mut rig = Rig::durable().await;
    let _demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    for packet_id in 1..=3 {
        let name = format!("m-{packet_id}");
        connection.deliver_named(&name, &name, packet_id).await;
    }
    // The messages are on the disk, and the process ends before the hub has heard so.
    let before = rig.messages(3).await;
    drop(connection);
    rig.restart().await;
    let _demand = rig.demand(false, false).await;
    rig.settle(&before[1], Settlement::Complete).await.unwrap();
    let mut connection = rig.hub.accept(true).await;
    for packet_id in 1..=4 {
        let name = format!("m-{packet_id}");
        connection.deliver_named(&name, &name, packet_id).await;
    }
    for packet_id in 1..=4 {
        assert_eq!(connection.next_work().await, Packet::Puback(packet_id));
    }
    let messages = rig.messages(3).await;
    let payloads: Vec<_> = messages
        .iter()
        .map(|shown| &shown.message.payload)
        .collect();
    assert_eq!(payloads, ["m-1", "m-3", "m-4"]);
    assert_eq!(messages[0].token, before[0].token);
}
