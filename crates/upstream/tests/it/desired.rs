//! Desired properties are answered from memory while they are followed without a gap.

use iothub::twin::TwinVersion;

use crate::{hub::Connection, rig::Rig};

/// Answers the next twin read.
async fn answer_read(connection: &mut Connection, version: u64) {
    let (topic, ..) = connection.next_publish().await;
    let rid = topic.strip_prefix("$iothub/twin/GET/?$rid=").expect(&topic);
    let filter = "$iothub/twin/PATCH/properties/desired/#";
    assert!(
        connection.filters.contains(filter),
        "changes are subscribed to first"
    );
    let body = format!(
        r#"{{"desired":{{"a":{version},"$version":{version}}},"reported":{{"$version":1}}}}"#
    );
    let topic = format!("$iothub/twin/res/200/?$rid={rid}");
    connection.publish(&topic, body.as_bytes(), None).await;
}

async fn announce(connection: &mut Connection, version: u64) {
    let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
    let body = format!(r#"{{"a":{version},"$version":{version}}}"#);
    connection.publish(&topic, body.as_bytes(), None).await;
}

async fn until_known(rig: &Rig, version: u64) {
    let view = rig
        .inbox(|view| {
            let desired = view.desired.as_ref();
            desired.is_some_and(|desired| desired.section.version == TwinVersion(version))
        })
        .await;
    let desired = view.desired.expect("it is known");
    assert_eq!(desired.section.properties["a"], version);
}

#[tokio::test]
async fn they_are_read_once_and_followed() {
    let rig = Rig::new().await;
    let _demand = rig.demand(false, true).await;
    let mut connection = rig.hub.accept(false).await;
    answer_read(&mut connection, 4).await;
    until_known(&rig, 4).await;
    announce(&mut connection, 5).await;
    until_known(&rig, 5).await;
}

#[tokio::test]
async fn after_a_gap_they_are_read_again() {
    let rig = Rig::new().await;
    let _demand = rig.demand(false, true).await;
    let mut connection = rig.hub.accept(false).await;
    answer_read(&mut connection, 4).await;
    until_known(&rig, 4).await;
    announce(&mut connection, 6).await;
    rig.inbox(|view| view.desired.is_none()).await;
    answer_read(&mut connection, 6).await;
    until_known(&rig, 6).await;
}

#[tokio::test]
async fn after_a_loss_they_are_read_again() {
    let rig = Rig::new().await;
    let _demand = rig.demand(false, true).await;
    let mut connection = rig.hub.accept(false).await;
    answer_read(&mut connection, 4).await;
    until_known(&rig, 4).await;
    drop(connection);
    rig.inbox(|view| view.desired.is_none()).await;
    let mut connection = rig.hub.accept(true).await;
    answer_read(&mut connection, 9).await;
    until_known(&rig, 9).await;
}

#[tokio::test]
async fn nobody_reads_the_twin_for_a_device_that_does_not_ask() {
    let rig = Rig::new().await;
    let _demand = rig.demand(true, false).await;
    let mut connection = rig.hub.accept(false).await;
    rig.send("x").await;
    let (topic, ..) = connection.next_publish().await;
    assert_eq!(topic, "devices/dev1/messages/events/");
    assert!(
        !connection
            .filters
            .contains("$iothub/twin/PATCH/properties/desired/#")
    );
}
