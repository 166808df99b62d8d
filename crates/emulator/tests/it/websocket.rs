//! MQTT over WebSocket.

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::StatusCode;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        handshake::client::Response,
        http::{HeaderValue, Request},
        protocol::frame::{
            Frame, FrameHeader,
            coding::{CloseCode, Control, Data, OpCode},
        },
    },
};

use crate::rig::{BOUND, HUB, Rig, hello};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

const PATH: &str = "/$iothub/websocket";
const CONNACK: &[u8] = &[0x20, 2, 0, 0];
const PINGREQ: &[u8] = &[0xc0, 0];
const PINGRESP: &[u8] = &[0xd0, 0];

#[tokio::test]
async fn a_device_speaks_as_over_tls() {
    let rig = Rig::start().await;
    for path in [
        PATH,
        "/$iothub/websocket?iothub-no-client-cert=true",
        "/$iothub/websocket/?other",
        "/$IotHub/WebSocket",
    ] {
        let mut socket = connected(&rig, path).await;
        send(&mut socket, &publish(b"{}", 7)).await;
        assert_eq!(bytes(&mut socket).await, [0x40, 2, 0, 7], "{path}");
    }
    let page = rig.cloud.get("/emulator/telemetry").send().await.unwrap();
    assert_eq!(page.text().await.unwrap().lines().count(), 4);
}

#[tokio::test]
async fn the_subprotocol_is_mqtt_and_comes_back_as_it_was_offered() {
    let rig = Rig::start().await;
    for (offered, agreed) in [
        ("mqtt", "mqtt"),
        ("MQTT", "MQTT"),
        ("amqp, Mqtt", "Mqtt"),
        ("mqtt,mqttv3.1", "mqtt"),
    ] {
        let (_, answer) = open(&rig, PATH, &[("sec-websocket-protocol", offered)])
            .await
            .unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], agreed);
    }
    for refused in ["amqp", "mqttv3.1", ""] {
        let refused = open(&rig, PATH, &[("sec-websocket-protocol", refused)]).await;
        assert_eq!(status(refused), StatusCode::BAD_REQUEST);
    }
    assert_eq!(status(open(&rig, PATH, &[]).await), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_opens_no_websocket_is_told_so() {
    let http2 = Rig::start().await;
    let http1 = Rig::start().await.http1();
    for rig in [&http1, &http2] {
        let answer = rig.cloud.get(PATH).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert_eq!(answer.headers()["iothub-errorcode"], "ArgumentInvalid");
    }
    let elsewhere = open(&http1, "/", &[("sec-websocket-protocol", "mqtt")]).await;
    assert_eq!(status(elsewhere), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn compression_is_not_agreed_on() {
    let rig = Rig::start().await;
    let offers = [
        ("sec-websocket-protocol", "mqtt"),
        (
            "sec-websocket-extensions",
            "permessage-deflate; client_max_window_bits",
        ),
    ];
    let (mut socket, answer) = open(&rig, PATH, &offers).await.unwrap();
    assert!(!answer.headers().contains_key("sec-websocket-extensions"));
    send(&mut socket, &hello()).await;
    assert_eq!(bytes(&mut socket).await, CONNACK);
}

#[tokio::test]
async fn a_web_page_of_elsewhere_opens_none() {
    let rig = Rig::start().await;
    for (origin, expected) in [
        ("https://localhost:443", StatusCode::SWITCHING_PROTOCOLS),
        ("https://HUB.example", StatusCode::SWITCHING_PROTOCOLS),
        ("https://evil.example", StatusCode::FORBIDDEN),
        ("https://localhost.evil.example", StatusCode::FORBIDDEN),
        ("http://localhost", StatusCode::FORBIDDEN),
        ("null", StatusCode::FORBIDDEN),
    ] {
        let headers = [("sec-websocket-protocol", "mqtt"), ("origin", origin)];
        let opened = open(&rig, PATH, &headers).await;
        assert_eq!(status(opened), expected, "{origin}");
    }
}

#[tokio::test]
async fn packets_and_messages_need_not_end_together() {
    let rig = Rig::start().await;
    let mut socket = mqtt(&rig, PATH).await;
    for piece in hello().chunks(7) {
        send(&mut socket, piece).await;
    }
    assert_eq!(bytes(&mut socket).await, CONNACK);
    let mut several = publish(b"one", 1);
    several.extend(publish(b"two", 2));
    several.extend(&PINGREQ[..1]);
    send(&mut socket, &several).await;
    assert_eq!(bytes(&mut socket).await, [0x40, 2, 0, 1, 0x40, 2, 0, 2]);
    send(&mut socket, &PINGREQ[1..]).await;
    assert_eq!(bytes(&mut socket).await, PINGRESP);
}

#[tokio::test]
async fn fragments_are_put_together_with_pings_between_them() {
    let rig = Rig::start().await;
    let mut socket = mqtt(&rig, PATH).await;
    let hello = hello();
    let (first, rest) = hello.split_at(20);
    let (second, third) = rest.split_at(1);
    frame(&mut socket, OpCode::Data(Data::Binary), first, false).await;
    frame(&mut socket, OpCode::Control(Control::Ping), b"here?", true).await;
    frame(&mut socket, OpCode::Data(Data::Continue), second, false).await;
    frame(&mut socket, OpCode::Data(Data::Continue), third, true).await;
    assert_eq!(
        next(&mut socket).await,
        Some(Message::Pong(b"here?".as_slice().into()))
    );
    assert_eq!(bytes(&mut socket).await, CONNACK);
    // A device that says nothing but a pong, unasked, is let alone.
    frame(&mut socket, OpCode::Control(Control::Pong), b"", true).await;
    send(&mut socket, PINGREQ).await;
    assert_eq!(bytes(&mut socket).await, PINGRESP);
}

#[tokio::test]
async fn breaches_are_named_in_the_close() {
    let rig = Rig::start().await;
    let ping = OpCode::Control(Control::Ping);
    for (opcode, payload, is_final, expected) in [
        (
            OpCode::Data(Data::Text),
            &b"text"[..],
            true,
            CloseCode::Unsupported,
        ),
        (ping, b"", false, CloseCode::Protocol),
        (ping, &[0; 126], true, CloseCode::Protocol),
        (OpCode::Data(Data::Continue), b"", true, CloseCode::Protocol),
        (OpCode::Data(Data::Text), b"\xff", true, CloseCode::Invalid),
    ] {
        let mut socket = connected(&rig, PATH).await;
        frame(&mut socket, opcode, payload, is_final).await;
        assert_eq!(close_code(&mut socket).await, Some(expected), "{opcode:?}");
    }
}

#[tokio::test]
async fn a_message_has_its_limit() {
    const LIMIT: usize = 2000;
    let rig = Rig::with(|config| config.limits.websocket_message_bytes = LIMIT).await;
    for size in [LIMIT - 1, LIMIT] {
        let mut socket = connected(&rig, PATH).await;
        send(&mut socket, &sized(size)).await;
        assert_eq!(bytes(&mut socket).await, [0x40, 2, 0, 1]);
    }
    let mut whole = connected(&rig, PATH).await;
    send(&mut whole, &sized(LIMIT + 1)).await;
    assert_eq!(close_code(&mut whole).await, Some(CloseCode::Size));
    let mut fragmented = connected(&rig, PATH).await;
    let packet = sized(LIMIT + 1);
    let (first, second) = packet.split_at(LIMIT);
    frame(&mut fragmented, OpCode::Data(Data::Binary), first, false).await;
    frame(&mut fragmented, OpCode::Data(Data::Continue), second, true).await;
    assert_eq!(close_code(&mut fragmented).await, Some(CloseCode::Size));
}

#[tokio::test]
async fn the_device_may_close_and_is_answered() {
    let rig = Rig::start().await;
    let mut socket = connected(&rig, PATH).await;
    socket.close(None).await.unwrap();
    assert!(matches!(next(&mut socket).await, Some(Message::Close(_))));
    assert_eq!(next(&mut socket).await, None);
    let identity = "/devices/dev1";
    let is_disconnected = async {
        loop {
            let device = rig.cloud.get(identity).send().await.unwrap();
            let device: serde_json::Value = device.json().await.unwrap();
            if device["connectionState"] == "Disconnected" {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(BOUND, is_disconnected).await.unwrap();
}

#[tokio::test]
async fn the_hub_closes_with_a_close() {
    let rig = Rig::start().await;
    let mut older = connected(&rig, PATH).await;
    let mut newer = connected(&rig, PATH).await;
    assert_eq!(close_code(&mut older).await, Some(CloseCode::Normal));
    rig.emulator.shutdown(BOUND).await.unwrap();
    assert_eq!(close_code(&mut newer).await, Some(CloseCode::Normal));
}

#[tokio::test]
async fn a_refused_connect_is_answered_before_the_close() {
    let rig = Rig::start().await;
    let mut socket = mqtt(&rig, PATH).await;
    let mut other = hello();
    let token = other.len() - 20;
    other[token] ^= 1;
    send(&mut socket, &other).await;
    assert_eq!(bytes(&mut socket).await, [0x20, 2, 0, 5]);
    assert_eq!(close_code(&mut socket).await, Some(CloseCode::Normal));
}

#[tokio::test]
async fn devices_over_tls_and_websocket_share_their_places_and_leave_those_of_https() {
    let rig = Rig::with(|config| {
        config.limits.mqtt_connections = 2;
        config.limits.https_connections = 2;
    })
    .await;
    let (device, _) = rig.connect().await;
    let socket = mqtt(&rig, PATH).await;
    let full = open(&rig, PATH, &[("sec-websocket-protocol", "mqtt")]).await;
    assert_eq!(status(full), StatusCode::SERVICE_UNAVAILABLE);
    // An upgraded connection has given its place back: the client of the cloud and one more find theirs.
    let devices = rig.cloud.get("/devices").send().await.unwrap();
    assert_eq!(devices.status(), StatusCode::OK);
    let second = open(&rig, "/", &[]).await;
    assert_eq!(status(second), StatusCode::NOT_FOUND);
    drop((device, socket));
    let reopened = async {
        while open(&rig, PATH, &[("sec-websocket-protocol", "mqtt")])
            .await
            .is_err()
        {}
    };
    timeout(BOUND, reopened).await.expect("a place comes free");
}

#[tokio::test]
async fn silence_after_the_handshake_has_an_end() {
    let rig = Rig::with(|config| {
        config.hub.connect_timeout = std::time::Duration::from_millis(200);
    })
    .await;
    let mut socket = mqtt(&rig, PATH).await;
    assert_eq!(close_code(&mut socket).await, Some(CloseCode::Normal));
}

/// A WebSocket on which `dev1` is connected.
async fn connected(rig: &Rig, path: &str) -> Socket {
    let mut socket = mqtt(rig, path).await;
    send(&mut socket, &hello()).await;
    let connack = bytes(&mut socket).await;
    assert_eq!((connack[0], connack[3]), (CONNACK[0], 0));
    socket
}

/// A WebSocket for MQTT.
async fn mqtt(rig: &Rig, path: &str) -> Socket {
    let protocol = [("sec-websocket-protocol", "mqtt")];
    open(rig, path, &protocol).await.unwrap().0
}

async fn open(
    rig: &Rig,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Socket, Response), Error> {
    let stream = rig.tls_to(rig.emulator.https_address()).await;
    let mut request: Request<()> = format!("wss://{HUB}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().append(*name, value);
    }
    timeout(BOUND, client_async(request, stream)).await.unwrap()
}

fn status(opened: Result<(Socket, Response), Error>) -> StatusCode {
    match opened {
        Ok((_, response)) => response.status(),
        Err(Error::Http(response)) => response.status(),
        Err(other) => panic!("{other}"),
    }
}

async fn send(socket: &mut Socket, bytes: &[u8]) {
    let message = Message::Binary(bytes.to_vec().into());
    socket.send(message).await.unwrap();
}

async fn frame(socket: &mut Socket, opcode: OpCode, payload: &[u8], is_final: bool) {
    let header = FrameHeader {
        is_final,
        opcode,
        ..FrameHeader::default()
    };
    let frame = Frame::from_payload(header, payload.to_vec().into());
    socket.send(Message::Frame(frame)).await.unwrap();
}

async fn bytes(socket: &mut Socket) -> Vec<u8> {
    match next(socket).await {
        Some(Message::Binary(bytes)) => bytes.to_vec(),
        other => panic!("no bytes: {other:?}"),
    }
}

/// What the next message, which must be a close, gives as reason.
async fn close_code(socket: &mut Socket) -> Option<CloseCode> {
    match next(socket).await {
        Some(Message::Close(frame)) => frame.map(|frame| frame.code),
        other => panic!("no close: {other:?}"),
    }
}

/// The next message; none when the other side has closed.
async fn next(socket: &mut Socket) -> Option<Message> {
    timeout(BOUND, socket.next())
        .await
        .expect("a message in time")
        .transpose()
        .unwrap()
}

fn publish(payload: &[u8], packet_id: u8) -> Vec<u8> {
    let topic = b"devices/dev1/messages/events/";
    let length = 2 + topic.len() + 2 + payload.len();
    let mut packet = vec![0x32];
    match u8::try_from(length) {
        Ok(length @ ..128) => packet.push(length),
        _ => packet.extend([
            u8::try_from(length % 128).unwrap() | 0x80,
            u8::try_from(length / 128).unwrap(),
        ]),
    }
    packet.extend([0, u8::try_from(topic.len()).unwrap()]);
    packet.extend(topic);
    packet.extend([0, packet_id]);
    packet.extend(payload);
    packet
}

/// A PUBLISH of this many bytes in all, with packet id 1.
fn sized(bytes: usize) -> Vec<u8> {
    let packet = publish(&vec![b'x'; bytes - publish(&[b'x'; 200], 1).len() + 200], 1);
    assert_eq!(packet.len(), bytes);
    packet
}
