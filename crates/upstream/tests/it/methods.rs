//! The hub offers a direct method only while the device can answer it.

use std::time::Duration;

use iothub::MethodResponse;
use store::{Done, Failure, MethodPolicy, SessionState, Work};

use crate::rig::{LONG, Rig, dev1, soon};

const METHODS: &str = "$iothub/methods/POST/#";

fn answer(request: &store::MethodRequestId) -> Work {
    Work::MethodAnswer {
        request: request.clone(),
        response: MethodResponse {
            status: 200,
            payload: r#"{"ok":true}"#.into(),
        },
    }
}

#[tokio::test]
async fn the_subscription_follows_presence() {
    let rig = Rig::with(|config| config.presence_grace = Duration::from_millis(50)).await;
    let session = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(true).await;
    connection.next().await;
    let first = connection.first_filter.as_deref();
    assert_eq!(
        first,
        Some("-$iothub/methods/POST/#"),
        "the hub remembers the last one"
    );

    let present = rig.demand(true, false).await;
    connection.until_subscribed(METHODS, true).await;
    drop(present);
    connection.until_subscribed(METHODS, false).await;
    drop(session);
}

#[tokio::test]
async fn the_status_says_whether_the_hub_offers_methods() {
    let rig = Rig::with(|config| config.presence_grace = Duration::from_millis(50)).await;
    let session = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    connection
        .serve_until(rig.until(SessionState::Settled))
        .await;
    let status = rig.store.signals.status(&dev1()).await.unwrap();
    assert!(!status.offers_methods);

    let present = rig.demand(true, false).await;
    connection.serve_until(rig.until_methods(true)).await;
    drop(present);
    connection.serve_until(rig.until_methods(false)).await;
    let _present = rig.demand(true, false).await;
    connection.serve_until(rig.until_methods(true)).await;
    drop(connection);
    rig.until_methods(false).await;
    drop(session);
}

#[tokio::test]
async fn a_policy_that_keeps_methods_offers_them_to_nobody_as_well() {
    let rig = Rig::with(|config| config.devices[0].methods = MethodPolicy::Hold).await;
    let _session = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    connection.serve_until(rig.until_methods(true)).await;
}

#[tokio::test]
async fn a_method_is_answered_on_its_connection() {
    let rig = Rig::new().await;
    let _demand = rig.demand(true, false).await;
    let mut connection = rig.hub.accept(false).await;
    connection.until_subscribed(METHODS, true).await;
    connection
        .publish("$iothub/methods/POST/reboot/?$rid=1f", br#"{"in":5}"#, None)
        .await;

    let method = rig.method().await;
    assert_eq!(method.request.name.as_str(), "reboot");
    assert_eq!(method.request.payload, r#"{"in":5}"#);
    rig.store
        .inbox
        .claim_method(&dev1(), &method.id)
        .await
        .unwrap();
    let ticket = rig.submit(answer(&method.id), LONG).await;
    let (topic, payload, packet_id) = connection.next_publish().await;
    assert_eq!(topic, "$iothub/methods/res/200/?$rid=1f");
    assert_eq!(payload, br#"{"ok":true}"#);
    connection.puback(packet_id.unwrap()).await;
    assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
}

#[tokio::test]
async fn an_answer_never_goes_to_another_connection() {
    let rig = Rig::new().await;
    let _demand = rig.demand(true, false).await;
    let mut connection = rig.hub.accept(false).await;
    connection.until_subscribed(METHODS, true).await;
    connection
        .publish("$iothub/methods/POST/reboot/?$rid=1", b"", None)
        .await;
    let method = rig.method().await;
    rig.store
        .inbox
        .claim_method(&dev1(), &method.id)
        .await
        .unwrap();
    drop(connection);

    let mut connection = rig.hub.accept(true).await;
    let ticket = rig.submit(answer(&method.id), LONG).await;
    assert_eq!(soon(ticket).await, Ok(Err(Failure::MethodGone)));
    rig.send("x").await;
    let (topic, ..) = connection.next_publish().await;
    assert_eq!(topic, "devices/dev1/messages/events/");
}

#[tokio::test]
async fn a_policy_may_answer_for_a_device_that_is_away() {
    let rig = Rig::with(|config| {
        config.devices[0].methods = MethodPolicy::Answer(418);
        config.presence_grace = Duration::ZERO;
    })
    .await;
    let _session = rig.demand(false, false).await;
    let mut connection = rig.hub.accept(false).await;
    connection.until_subscribed(METHODS, true).await;
    connection
        .publish("$iothub/methods/POST/reboot/?$rid=2", b"", None)
        .await;
    let (topic, payload, packet_id) = connection.next_publish().await;
    assert_eq!(topic, "$iothub/methods/res/418/?$rid=2");
    assert_eq!(payload, b"");
    connection.puback(packet_id.unwrap()).await;
}
