//! A device whose keys are changed at the hub, one after the other.

use iothub::sas::{Key, Token};
use store::{Done, Failure};
use upstream::config::KeySource;

use crate::{
    hub::{Connect, Connection},
    rig::{KEY, Rig, soon},
};

const OTHER_KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

/// `dev1` with two keys.
async fn rig() -> Rig {
    Rig::with(|config| {
        config.devices[0].secondary_key = Some(KeySource::Text(OTHER_KEY.into()));
    })
    .await
}

/// The next connection, whose token is to be made with this key.
async fn connects_with(rig: &Rig, key: &str) -> Connection {
    let (connection, Connect { password, .. }) = rig.hub.connect().await;
    let token = Token::parse(&password).unwrap();
    assert!(token.is_signed_by(&Key::from_base64(key).unwrap()));
    connection
}

async fn is_refused(rig: &Rig, key: &str) {
    let mut connection = connects_with(rig, key).await;
    connection.connack(false, 5).await;
    connection.until_end().await;
}

#[tokio::test]
async fn a_refused_key_is_followed_by_the_other_and_nobody_notices() {
    let rig = rig().await;
    let ticket = rig.send("x").await;
    is_refused(&rig, KEY).await;
    let mut connection = connects_with(&rig, OTHER_KEY).await;
    connection.connack(false, 0).await;
    let (_, payload, packet_id) = connection.next_publish().await;
    assert_eq!(payload, b"x");
    connection.puback(packet_id.unwrap()).await;
    assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));

    // What the hub has taken is what the next connection begins with.
    drop(connection);
    let ticket = rig.send("y").await;
    let mut connection = connects_with(&rig, OTHER_KEY).await;
    connection.connack(false, 0).await;
    let (_, _, packet_id) = connection.next_publish().await;
    connection.puback(packet_id.unwrap()).await;
    assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));

    // The operator changes this one as well, back to the first.
    drop(connection);
    let ticket = rig.send("z").await;
    is_refused(&rig, OTHER_KEY).await;
    let mut connection = connects_with(&rig, KEY).await;
    connection.connack(false, 0).await;
    let (_, _, packet_id) = connection.next_publish().await;
    connection.puback(packet_id.unwrap()).await;
    assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
}

#[tokio::test]
async fn two_refused_keys_are_an_answer() {
    let rig = rig().await;
    let ticket = rig.send("x").await;
    is_refused(&rig, KEY).await;
    is_refused(&rig, OTHER_KEY).await;
    assert_eq!(soon(ticket).await, Ok(Err(Failure::CredentialRefused)));
    assert!(!rig.hub.has_visitor().await, "the back-off is kept");
}
