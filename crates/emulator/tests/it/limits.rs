//! The bounds of the listeners, one below, at and one beyond each.

use reqwest::{Body, StatusCode};
use tokio::{select, time::timeout};

use crate::rig::{BOUND, Rig};

#[tokio::test]
async fn a_body_has_its_limit() {
    const LIMIT: usize = 1000;
    let rig = Rig::with(|config| config.limits.body_bytes = LIMIT).await;
    for (bytes, status) in [
        (LIMIT - 1, StatusCode::OK),
        (LIMIT, StatusCode::OK),
        (LIMIT + 1, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let body = vec![b'x'; bytes];
        let in_one_piece = Body::from(body.clone());
        // Nothing says beforehand how long it is.
        let halves = [body[..bytes / 2].to_vec(), body[bytes / 2..].to_vec()];
        let in_pieces = halves.map(Ok::<_, std::io::Error>);
        let in_pieces = Body::wrap_stream(futures_util::stream::iter(in_pieces));
        for body in [in_one_piece, in_pieces] {
            let post = rig.cloud.post("/emulator/devices/dev1/messages").body(body);
            let answer = post.send().await.unwrap();
            assert_eq!(answer.status(), status, "{bytes}");
            if status != StatusCode::OK {
                assert_eq!(answer.headers()["iothub-errorcode"], "MessageTooLarge");
            }
        }
    }
}

#[tokio::test]
async fn a_wait_for_telemetry_has_its_limit() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    device
        .publish("devices/dev1/messages/events/", b"x", 1)
        .await;
    device.next().await;
    for (seconds, status) in [
        (59, StatusCode::OK),
        (60, StatusCode::OK),
        (61, StatusCode::BAD_REQUEST),
    ] {
        let page = rig
            .cloud
            .get(&format!("/emulator/telemetry?wait={seconds}"));
        assert_eq!(page.send().await.unwrap().status(), status, "{seconds}");
    }
}

/// Two connections have a place; a third one waits for its handshake until one of them ends.
#[tokio::test]
async fn connections_beyond_their_places_wait_for_one() {
    const PLACES: usize = 2;
    let rig = Rig::with(|config| {
        config.limits.mqtt_connections = PLACES;
        config.limits.https_connections = PLACES;
    })
    .await;
    let (emulator, elsewhere) = (&rig.emulator, Rig::start().await);
    for address in [emulator.mqtt_address(), emulator.https_address()] {
        let first = timeout(BOUND, rig.tls_to(address)).await.unwrap();
        let _second = timeout(BOUND, rig.tls_to(address)).await.unwrap();
        let mut third = Box::pin(rig.tls_to(address));
        select! {
            biased;
            _ = &mut third => panic!("{address} has a place too many"),
            () = shake_hands(&elsewhere) => {}
        }
        drop(first);
        timeout(BOUND, third).await.expect("a place comes free");
    }
}

/// As many handshakes as a connection that had a place would be done among.
async fn shake_hands(rig: &Rig) {
    for _ in 0..5 {
        timeout(BOUND, rig.tls()).await.unwrap();
    }
}
