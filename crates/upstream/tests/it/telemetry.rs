//! A message goes up, and its outcome comes back.

use std::time::Duration;

use iothub::sas;
use store::{Done, Failure};

use crate::{
    hub::Packet,
    rig::{KEY, LONG, Rig, soon, telemetry},
};

#[tokio::test]
async fn the_outcome_is_the_hubs_acknowledgement() {
    let rig = Rig::new().await;
    let ticket = rig.send("21.5").await;

    let (mut connection, connect) = rig.hub.connect().await;
    assert_eq!(connect.client_id, "dev1");
    assert!(
        connect
            .username
            .starts_with("hub.example/dev1/?api-version=2021-04-12")
    );
    assert!(!connect.is_clean);
    let token = sas::Token::parse(&connect.password).unwrap();
    assert!(token.is_for("hub.example/devices/dev1"));
    assert!(token.is_signed_by(&sas::Key::from_base64(KEY).unwrap()));

    connection.connack(false, 0).await;
    let (topic, payload, packet_id) = connection.next_publish().await;
    assert_eq!(topic, "devices/dev1/messages/events/");
    assert_eq!(payload, b"21.5");
    connection.puback(packet_id.unwrap()).await;

    assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
}

#[tokio::test]
async fn many_go_through_one_session_in_order() {
    let rig = Rig::new().await;
    let mut tickets = Vec::new();
    for _ in 0..100 {
        tickets.push(rig.send("x").await);
    }
    let mut connection = rig.hub.accept(false).await;
    for _ in 0..100 {
        let (_, _, packet_id) = connection.next_publish().await;
        connection.puback(packet_id.unwrap()).await;
    }
    for ticket in tickets {
        assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
    }
    assert!(!rig.hub.has_visitor().await, "one session for one device");
}

#[tokio::test]
async fn a_full_telemetry_lane_does_not_hold_up_the_twin() {
    let rig = Rig::new().await;
    for _ in 0..20 {
        rig.send("x").await;
    }
    let mut connection = rig.hub.accept(false).await;
    for _ in 0..16 {
        connection.next_publish().await;
    }
    let ticket = rig.submit(store::Work::TwinRead, LONG).await;
    let (topic, ..) = connection.next_publish().await;
    let rid = topic.strip_prefix("$iothub/twin/GET/?$rid=").expect(&topic);
    let body = br#"{"desired":{"$version":3},"reported":{"a":1,"$version":2}}"#;
    connection
        .publish(&format!("$iothub/twin/res/200/?$rid={rid}"), body, None)
        .await;
    let Ok(Ok(Done::TwinRead(twin))) = soon(ticket).await else {
        panic!("no twin");
    };
    assert_eq!(twin.reported.properties["a"], 1);
}

#[tokio::test]
async fn what_was_in_flight_is_sent_again_after_a_loss() {
    let rig = Rig::new().await;
    let ticket = rig.send("x").await;
    let mut connection = rig.hub.accept(false).await;
    let (_, _, first_id) = connection.next_publish().await;
    drop(connection);

    let mut connection = rig.hub.accept(true).await;
    let Packet::Publish {
        packet_id,
        is_again,
        ..
    } = connection.next_work().await
    else {
        panic!("no PUBLISH");
    };
    assert_eq!((packet_id, is_again), (first_id, true));
    connection.puback(packet_id.unwrap()).await;
    assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
}

#[tokio::test]
async fn without_an_acknowledgement_the_deadline_says_that_it_may_have_happened() {
    let rig = Rig::new().await;
    let _demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    let ticket = rig.submit(telemetry("x"), Duration::from_millis(200)).await;
    connection.next_publish().await;
    assert_eq!(soon(ticket).await, Ok(Err(Failure::HubTimeout)));
}

#[tokio::test]
async fn a_message_that_fits_no_topic_is_refused_alone() {
    let rig = Rig::new().await;
    let mut long = iothub::Telemetry::default();
    long.properties
        .push(("name".to_owned(), "\u{e4}".repeat(20_000)));
    let refused = rig.submit(store::Work::Telemetry(long), LONG).await;
    let taken = rig.send("x").await;
    let mut connection = rig.hub.accept(false).await;
    let (_, payload, packet_id) = connection.next_publish().await;
    assert_eq!(payload, b"x");
    connection.puback(packet_id.unwrap()).await;
    assert_eq!(soon(refused).await, Ok(Err(Failure::DoesNotFit)));
    assert_eq!(soon(taken).await, Ok(Ok(Done::Acknowledged)));
}
