//! No hub, the wrong hub, a hub that says no; and the end in order.

use std::time::Duration;

use store::{Done, Failure, SessionState};
use upstream::{StartError, config::KeySource};

use crate::{
    hub::Packet,
    rig::{Rig, soon, telemetry},
};

#[tokio::test]
async fn with_the_hub_away_the_first_attempt_is_awaited_and_no_more() {
    let rig = Rig::with(|config| {
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        config.hubs[0].address = Some(address.parse().unwrap());
    })
    .await;
    let ticket = rig.send("x").await;
    assert_eq!(soon(ticket).await, Ok(Err(Failure::HubUnavailable)));
    let status = rig.until(SessionState::Unreachable).await;
    let error = status.last_error.expect("a reason");
    assert!(
        error.starts_with("no TCP connection to 127.0.0.1:"),
        "{error}"
    );
}

#[tokio::test]
async fn a_hub_with_another_name_is_not_the_hub() {
    let rig = Rig::with(|config| {
        config.hubs[0].name = "other.example".parse().unwrap();
    })
    .await;
    let identity =
        iothub::Identity::device("other.example".parse().unwrap(), "dev1".parse().unwrap());
    let _demand = rig
        .store
        .signals
        .demand(&identity, store::Needs::default())
        .await;
    let mut watch = rig.store.signals.watch(&identity).await.unwrap();
    let error = soon(async {
        let handshake = async {
            loop {
                let status = rig.store.signals.status(&identity).await.unwrap();
                if let Some(error) = status.last_error {
                    return error;
                }
                watch.changed().await;
            }
        };
        tokio::select! {
            error = handshake => error,
            () = rig.hub.shake_hands() => unreachable!("it does so for ever"),
        }
    })
    .await;
    assert!(
        error.starts_with("no TLS connection to") && error.contains("certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_credential_fails_those_who_wait() {
    let rig = Rig::new().await;
    let ticket = rig.send("x").await;
    let (mut connection, _) = rig.hub.connect().await;
    connection.connack(false, 5).await;
    assert_eq!(soon(ticket).await, Ok(Err(Failure::CredentialRefused)));
    rig.until(SessionState::Refused).await;
    // During the back-off nobody waits for nothing.
    let ticket = rig.send("y").await;
    assert_eq!(soon(ticket).await, Ok(Err(Failure::CredentialRefused)));
    drop(connection);
}

#[tokio::test]
async fn a_device_without_a_key_is_refused_without_asking_the_hub() {
    let rig = Rig::with(|config| config.devices.clear()).await;
    let ticket = rig.send("x").await;
    assert_eq!(soon(ticket).await, Ok(Err(Failure::CredentialRefused)));
    assert!(!rig.hub.has_visitor().await);
}

#[tokio::test]
async fn a_session_ends_when_nobody_has_needed_it_and_begins_again() {
    let rig = Rig::with(|config| config.linger = Duration::from_millis(100)).await;
    let demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    connection
        .serve_until(rig.until(SessionState::Settled))
        .await;
    drop(demand);
    assert_eq!(
        connection.until_end().await.last(),
        Some(&Packet::Disconnect)
    );
    rig.until(SessionState::Closed).await;

    let _demand = rig.demand(false, false).await;
    let _connection = rig.hub.accept(true).await;
    rig.until(SessionState::Connected).await;
}

/// Room for one session, and two devices.
async fn narrow() -> (Rig, iothub::Identity) {
    let rig = Rig::with(|config| {
        config.max_sessions = std::num::NonZeroUsize::MIN;
        let mut other = config.devices[0].clone();
        other.id = "dev2".parse().unwrap();
        config.devices.push(other);
    })
    .await;
    let hub = "hub.example".parse().unwrap();
    (rig, iothub::Identity::device(hub, "dev2".parse().unwrap()))
}

#[tokio::test]
async fn an_idle_session_makes_room_for_a_device_that_waits() {
    let (rig, other) = narrow().await;
    let demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept_for(demand).await;
    connection
        .serve_until(rig.until(SessionState::Settled))
        .await;
    let needs = store::Needs::default();
    let _other = rig.store.signals.demand(&other, needs).await.unwrap();
    let (packets, (_, connect)) = tokio::join!(connection.until_end(), rig.hub.connect());
    assert_eq!(packets.last(), Some(&Packet::Disconnect));
    assert_eq!(connect.client_id, "dev2");
}

#[tokio::test]
async fn a_session_that_is_needed_keeps_its_place_and_no_longer() {
    let (rig, other) = narrow().await;
    let demand = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    let needs = store::Needs::default();
    let _other = rig.store.signals.demand(&other, needs).await.unwrap();
    connection
        .serve_until(rig.until(SessionState::Settled))
        .await;
    assert!(!rig.hub.has_visitor().await);

    drop(demand);
    let (_, (_, connect)) = tokio::join!(connection.until_end(), rig.hub.connect());
    assert_eq!(connect.client_id, "dev2");
}

#[tokio::test]
async fn a_pinned_session_needs_nobody() {
    let rig = Rig::with(|config| {
        config.devices[0].pinned = true;
        config.linger = Duration::ZERO;
    })
    .await;
    let mut connection = rig.hub.accept(false).await;
    connection
        .serve_until(rig.until(SessionState::Settled))
        .await;
}

#[tokio::test]
async fn at_the_end_what_is_in_flight_is_awaited_and_the_rest_refused() {
    let mut rig = Rig::new().await;
    let ticket = rig.send("x").await;
    let mut connection = rig.hub.accept(false).await;
    let (_, _, packet_id) = connection.next_publish().await;

    let upstream = rig.upstream.take().expect("it runs");
    let hub = async {
        // The session has begun to end when it stops taking the device's messages down.
        tokio::task::yield_now().await;
        connection.puback(packet_id.unwrap()).await;
        connection.until_end().await
    };
    let (ended, packets) = tokio::join!(upstream.shutdown(Duration::from_secs(5)), hub);
    assert_eq!(ended, Ok(()));
    assert_eq!(packets.last(), Some(&Packet::Disconnect));
    assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
    let status = rig.store.signals.status(&crate::rig::dev1()).await.unwrap();
    assert_eq!(status.state, SessionState::Closed);
}

#[tokio::test]
async fn at_the_end_methods_are_unsubscribed_though_the_hub_is_silent() {
    let mut rig = Rig::new().await;
    let _demand = rig.demand(true, false).await;
    let mut connection = rig.hub.accept(false).await;
    connection
        .until_subscribed("$iothub/methods/POST/#", true)
        .await;
    let ticket = rig.send("x").await;
    connection.next_publish().await;

    let upstream = rig.upstream.take().expect("it runs");
    let limit = Duration::from_millis(1500);
    let (ended, packets) = tokio::join!(upstream.shutdown(limit), connection.until_end());
    assert_eq!(ended, Ok(()));
    let methods = Packet::Unsubscribe(vec!["$iothub/methods/POST/#".to_owned()]);
    assert_eq!(packets, [methods, Packet::Disconnect]);
    assert_eq!(soon(ticket).await, Ok(Err(Failure::HubTimeout)));
}

#[tokio::test]
async fn a_session_that_ends_is_hurried_when_the_node_stops() {
    let mut rig = Rig::with(|config| config.linger = Duration::ZERO).await;
    let ticket = rig.submit(telemetry("x"), Duration::from_millis(200)).await;
    let mut connection = rig.hub.accept(false).await;
    connection.next_publish().await;
    // Nobody waits for it any more, so that the session begins to end; it still awaits the hub's answer.
    assert_eq!(soon(ticket).await, Ok(Err(Failure::HubTimeout)));

    let upstream = rig.upstream.take().expect("it runs");
    let limit = Duration::from_millis(1500);
    let (ended, packets) = tokio::join!(upstream.shutdown(limit), connection.until_end());
    assert_eq!(ended, Ok(()));
    assert_eq!(packets.last(), Some(&Packet::Disconnect));
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_a_mistake_with_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    let hub = crate::hub::Hub::start(&ca_file).await;
    let config = upstream::Config {
        hubs: vec![upstream::config::HubConfig {
            address: Some(hub.address().parse().unwrap()),
            ca_file: Some(ca_file),
            ..upstream::config::HubConfig::new("hub.example".parse().unwrap())
        }],
        devices: vec![upstream::config::DeviceConfig::new(
            "dev1".parse().unwrap(),
            KeySource::File(folder.path().join("missing")),
        )],
        ..upstream::Config::default()
    };
    let store = store::memory::open(store::memory::Config::default()).unwrap();
    let started = upstream::Upstream::start(config, store, store::NodeId::new("a")).await;
    let Err(StartError::Config(mistakes)) = started else {
        panic!("it started");
    };
    assert_eq!(mistakes.0[0].key, "devices[0].key");
}
