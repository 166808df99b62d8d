//! The fault that moves the hub to its other address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use crate::rig::{BOUND, Cloud, Device, Got, Rig, client, hello};

const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 4, 2));

#[tokio::test]
async fn the_hub_goes_to_its_other_address_and_comes_back() {
    let rig = Rig::with(|config| config.other_address = Some(OTHER)).await;
    let places = [rig.emulator.mqtt_address(), rig.emulator.https_address()];
    let others = places.map(|place| SocketAddr::new(OTHER, place.port()));
    let there = Cloud {
        client: client(rig.certificate(), others[1], Client::builder()),
        address: others[1],
    };
    let (mut device, _) = rig.connect().await;
    for other in others {
        assert!(refuses(other).await, "nobody is at {other} yet");
    }

    assert_eq!(fail_over(&rig.cloud).await.0, StatusCode::OK);
    assert_eq!(device.next().await, None);
    for (place, other) in places.into_iter().zip(others) {
        wait_until_refused(place).await;
        assert!(!refuses(other).await, "it is at {other} now");
    }
    let mut device = Device::over(rig.tls_to(others[0]).await);
    device.send(&hello()).await;
    let accepted = Got::Connack {
        code: 0,
        session_present: true,
    };
    assert_eq!(device.next().await, Some(accepted), "with all that it knew");

    assert_eq!(fail_over(&there).await.0, StatusCode::OK);
    assert_eq!(device.next().await, None);
    for (place, other) in places.into_iter().zip(others) {
        wait_until_refused(other).await;
        assert!(!refuses(place).await, "it is back at {place}");
    }
    let (_, session_present) = rig.connect().await;
    assert!(session_present);
    rig.emulator.shutdown(BOUND).await.unwrap();
}

#[tokio::test]
async fn a_hub_with_one_address_stays_there() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    let (status, answer) = fail_over(&rig.cloud).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        answer.to_string().contains("--failover-address"),
        "{answer}"
    );
    device
        .publish("devices/dev1/messages/events/", b"here", 1)
        .await;
    assert_eq!(device.next().await, Some(Got::Puback(1)));
}

async fn fail_over(cloud: &Cloud) -> (StatusCode, Value) {
    let rule = json!({"fault": {"kind": "fail-over"}});
    let answer = cloud.post("/emulator/faults").json(&rule).send().await;
    let answer = answer.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn refuses(address: SocketAddr) -> bool {
    match TcpStream::connect(address).await {
        Ok(_) => false,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => true,
        Err(error) => panic!("{address}: {error}"),
    }
}

async fn wait_until_refused(address: SocketAddr) {
    let refused = async {
        while !refuses(address).await {
            tokio::task::yield_now().await;
        }
    };
    timeout(BOUND, refused).await.unwrap();
}
