//! What must not disturb anything: garbage, silence, floods, a taken port, shutdown.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tombolo_emulator::{Emulator, StartError};

use crate::rig::{BOUND, Got, Rig};

#[tokio::test]
async fn garbage_on_both_ports_ends_that_connection_alone() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    for address in [rig.emulator.mqtt_address(), rig.emulator.https_address()] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        // The answer is a TLS alert and the end, or a reset.
        let _ = timeout(BOUND, socket.read_to_end(&mut rest))
            .await
            .expect("closed in time");
    }
    let mut tls = rig.tls().await;
    tls.write_all(&[0xff; 100]).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(BOUND, tls.read_to_end(&mut rest))
        .await
        .expect("closed in time");
    device
        .publish("devices/dev1/messages/events/", b"", 1)
        .await;
    assert_eq!(device.next().await, Some(Got::Puback(1)));
}

#[tokio::test]
async fn a_client_that_never_finishes_is_cut_off() {
    let rig = Rig::with(|config| {
        config.limits.handshake = Duration::from_millis(200);
        config.limits.body = Duration::from_millis(200);
        config.hub.connect_timeout = Duration::from_millis(200);
    })
    .await;
    let mut silent = TcpStream::connect(rig.emulator.mqtt_address())
        .await
        .unwrap();
    let mut rest = Vec::new();
    let _ = timeout(BOUND, silent.read_to_end(&mut rest))
        .await
        .expect("no handshake");
    let mut tls = rig.tls().await;
    let _ = timeout(BOUND, tls.read_to_end(&mut rest))
        .await
        .expect("no CONNECT");
    let endless = reqwest::Body::wrap_stream(futures_util::stream::pending::<
        Result<Vec<u8>, std::io::Error>,
    >());
    let answer = rig
        .cloud
        .post("/emulator/devices/dev1/messages")
        .body(endless);
    assert_eq!(answer.send().await.unwrap().status(), 408);
}

#[tokio::test]
async fn a_burst_is_acknowledged_in_order() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    let one = |id: u16| {
        let [high, low] = id.to_be_bytes();
        let mut packet = b"\x32\x2c\x00\x1ddevices/dev1/messages/events/".to_vec();
        packet.extend([high, low]);
        packet.extend(b"0123456789a");
        packet
    };
    let burst: Vec<u8> = (1..=2000).flat_map(one).collect();
    device.send(&burst).await;
    for id in 1..=2000 {
        assert_eq!(device.next().await, Some(Got::Puback(id)));
    }
}

#[tokio::test]
async fn delayed_pubacks_come_by_the_timer_and_reading_goes_on() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    let fault = json!({"fault": {"kind": "delay-puback", "millis": 20}});
    let injected = rig.cloud.post("/emulator/faults").json(&fault).send().await;
    assert_eq!(injected.unwrap().status(), 200);
    for id in 1..=40 {
        device
            .publish("devices/dev1/messages/events/", b"", id)
            .await;
    }
    for id in 1..=40 {
        assert_eq!(device.next().await, Some(Got::Puback(id)));
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let rig = Rig::start().await;
    let taken = rig.emulator.mqtt_address();
    let second = Rig::config(|config| config.mqtt = taken);
    let Err(StartError::Bind { what, address, .. }) = Emulator::start(second).await.map(drop)
    else {
        panic!("the port is taken")
    };
    assert_eq!((what, address), ("MQTT", taken));
}

#[tokio::test]
async fn shutdown_closes_devices_and_waits() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    rig.emulator.shutdown(BOUND).await.unwrap();
    assert_eq!(device.next().await, None);
}
