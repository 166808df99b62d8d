//! What takes minutes, with a clock that moves when the test says so.

use std::time::Duration;

use store::{Done, Failure, SessionState};
use tokio::time::advance;

use crate::{
    hub::{Connection, Packet},
    rig::{Rig, dev1, in_seconds, soon, stop_clock},
};

const MINUTE: Duration = Duration::from_secs(60);

/// A rig whose sessions are silent between what the test does.
async fn quiet(is_pinned: bool) -> Rig {
    Rig::with(|config| {
        config.devices[0].pinned = is_pinned;
        config.keep_alive = 19 * MINUTE;
        config.token_lifetime = 20 * MINUTE;
    })
    .await
}

/// Nothing is on its way any more: what the session has sent is answered before the second message's answer, and
/// what it sent because of that before the second.
async fn calm_down(rig: &Rig, connection: &mut Connection) {
    for _ in 0..2 {
        let ticket = rig.send("x").await;
        let (_, _, packet_id) = connection.next_publish().await;
        connection.puback(packet_id.unwrap()).await;
        assert!(soon(ticket).await.unwrap().is_ok());
    }
}

/// The hub fails so often that the wait before the next attempt is minutes long.
async fn lose_heart(rig: &Rig) {
    for attempt in 0..12 {
        if attempt > 0 {
            advance(Duration::from_secs(2)).await;
        }
        let ticket = rig.send("x").await;
        let (connection, _) = rig.hub.connect().await;
        drop(connection);
        assert_eq!(soon(ticket).await, Ok(Err(Failure::HubUnavailable)));
    }
}

#[tokio::test]
async fn the_session_moves_to_fresh_credentials_before_the_old_ones_end() {
    let _clock = stop_clock();
    let rig = quiet(true).await;
    let (mut old, first) = rig.hub.connect().await;
    old.connack(false, 0).await;
    calm_down(&rig, &mut old).await;
    advance(14 * MINUTE).await;
    calm_down(&rig, &mut old).await;

    advance(3 * MINUTE).await;
    // The old connection is served until the new one is there.
    let (packets, (mut fresh, second)) = tokio::join!(old.until_end(), rig.hub.connect());
    assert_eq!(packets.last(), Some(&Packet::Disconnect));
    assert_eq!(first.client_id, second.client_id);
    fresh.connack(true, 0).await;
    calm_down(&rig, &mut fresh).await;
}

#[tokio::test]
async fn fresh_credentials_wait_for_open_methods() {
    let _clock = stop_clock();
    let rig = Rig::with(|config| {
        config.keep_alive = 19 * MINUTE;
        config.token_lifetime = 20 * MINUTE;
        config.method_timeout = 2 * MINUTE;
    })
    .await;
    let _present = rig.demand(true, false).await;
    let mut old = rig.hub.accept(false).await;
    let methods = "$iothub/methods/POST/#";
    old.until_subscribed(methods, true).await;
    calm_down(&rig, &mut old).await;
    advance(14 * MINUTE + MINUTE / 2).await;
    old.publish("$iothub/methods/POST/reboot/?$rid=1", b"", None)
        .await;
    rig.method().await;

    // Without the method the session would have moved by now.
    advance(MINUTE + 3 * MINUTE / 4).await;
    tokio::select! {
        () = rig.hub.visitor() => panic!("the method would be lost"),
        () = calm_down(&rig, &mut old) => {}
    }
    advance(MINUTE / 4).await;
    let (packets, _) = tokio::join!(old.until_end(), rig.hub.connect());
    assert_eq!(packets.last(), Some(&Packet::Disconnect));
}

#[tokio::test]
async fn a_message_that_nobody_settles_goes_back_to_the_hub() {
    let _clock = stop_clock();
    let rig = quiet(true).await;
    let mut connection = rig.hub.accept(false).await;
    connection.deliver("hello", 7).await;
    rig.messages(1).await;
    calm_down(&rig, &mut connection).await;

    advance(10 * MINUTE).await;
    let packets = connection.until_end().await;
    assert!(!packets.contains(&Packet::Puback(7)));
    assert_eq!(packets.last(), Some(&Packet::Disconnect));
    rig.messages(0).await;

    // The next connection is not made at once: messages that always come too late are not to make a storm.
    rig.until(SessionState::Connecting).await;
    advance(Duration::from_secs(2)).await;
    let mut connection = rig.hub.accept(true).await;
    connection.deliver("hello", 1).await;
    rig.messages(1).await;
}

#[tokio::test]
async fn a_message_goes_back_to_the_hub_when_it_expires() {
    let _clock = stop_clock();
    let rig = quiet(true).await;
    let mut connection = rig.hub.accept(false).await;
    let expiry = in_seconds(180).to_string();
    connection.deliver_until(&expiry, "hello", 7).await;
    rig.messages(1).await;
    calm_down(&rig, &mut connection).await;
    advance(2 * MINUTE).await;
    calm_down(&rig, &mut connection).await;

    advance(MINUTE).await;
    let packets = connection.until_end().await;
    assert!(!packets.contains(&Packet::Puback(7)));
    assert_eq!(packets.last(), Some(&Packet::Disconnect));
    rig.messages(0).await;
}

#[tokio::test]
async fn a_message_that_comes_too_late_is_not_shown_and_makes_no_storm() {
    let _clock = stop_clock();
    let rig = quiet(true).await;
    let late = in_seconds(-3600).to_string();
    for _ in 0..3 {
        let mut connection = rig.hub.accept(true).await;
        connection.deliver_until(&late, "late", 7).await;
        connection.deliver("hello", 8).await;
        assert_eq!(rig.messages(1).await[0].message.payload, "hello");
        advance(Duration::from_secs(4)).await;
        calm_down(&rig, &mut connection).await;

        advance(Duration::from_secs(1)).await;
        let packets = connection.until_end().await;
        assert_eq!(packets.last(), Some(&Packet::Disconnect));
        rig.until(SessionState::Connecting).await;
        advance(Duration::from_secs(8)).await;
    }
}

#[tokio::test]
async fn a_client_that_asks_brings_about_an_attempt_however_long_the_back_off_has_become() {
    let _clock = stop_clock();
    let rig = quiet(false).await;
    lose_heart(&rig).await;
    advance(Duration::from_secs(2)).await;
    let ticket = rig.send("x").await;
    let mut connection = rig.hub.accept(false).await;
    let (_, _, packet_id) = connection.next_publish().await;
    connection.puback(packet_id.unwrap()).await;
    assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
}

#[tokio::test]
async fn a_client_that_is_told_to_wait_brings_about_an_attempt_a_second_later() {
    let _clock = stop_clock();
    let rig = quiet(false).await;
    lose_heart(&rig).await;
    let ticket = rig.send("x").await;
    assert_eq!(soon(ticket).await, Ok(Err(Failure::HubUnavailable)));
    advance(Duration::from_secs(2)).await;
    rig.hub.accept(false).await;
}

#[tokio::test]
async fn a_need_that_begins_brings_about_an_attempt() {
    let _clock = stop_clock();
    let rig = quiet(false).await;
    lose_heart(&rig).await;
    advance(Duration::from_secs(2)).await;
    let demand = rig.demand(false, false).await;
    rig.hub.accept_for(demand).await;
}

#[tokio::test]
async fn a_session_lingers_for_ten_minutes() {
    let _clock = stop_clock();
    let rig = quiet(false).await;
    let mut connection = rig.hub.accept_for(rig.demand(false, false).await).await;
    calm_down(&rig, &mut connection).await;

    advance(9 * MINUTE).await;
    let status = rig.store.signals.status(&dev1()).await.unwrap();
    assert_ne!(status.state, SessionState::Closed);
    calm_down(&rig, &mut connection).await;
    advance(9 * MINUTE).await;
    let status = rig.store.signals.status(&dev1()).await.unwrap();
    assert_ne!(status.state, SessionState::Closed, "work keeps it");

    advance(MINUTE).await;
    let packets = connection.until_end().await;
    assert_eq!(packets.last(), Some(&Packet::Disconnect));
    rig.until(SessionState::Closed).await;
}
