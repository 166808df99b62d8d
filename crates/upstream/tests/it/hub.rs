//! A hub that does what the test says. Its packets are written by hand from the MQTT 3.1.1 standard, its HTTP from RFC 9112.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::rig::soon;

pub(crate) const NAME: &str = "hub.example";

pub(crate) struct Hub {
    listener: TcpListener,
    https: TcpListener,
    acceptor: TlsAcceptor,
}

/// A request to the HTTPS API, and the connection that waits for its answer.
pub(crate) struct Request {
    stream: TlsStream<TcpStream>,
    pub(crate) line: String,
    pub(crate) authorization: String,
    pub(crate) body: Vec<u8>,
}

/// The hub's end of a connection.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    /// What is subscribed at this moment.
    pub(crate) filters: BTreeSet<String>,
    /// The first filter that was named after CONNACK, with a minus sign if it was to be unsubscribed.
    pub(crate) first_filter: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) client_id: String,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) is_clean: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Publish {
        topic: String,
        payload: Vec<u8>,
        packet_id: Option<u16>,
        is_again: bool,
    },
    Puback(u16),
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
    Disconnect,
    End,
}

impl Hub {
    /// Listens; writes its certificate to `ca_file`.
    pub(crate) async fn start(ca_file: &Path) -> Self {
        let certified = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        std::fs::write(ca_file, certified.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            https: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub(crate) fn https_address(&self) -> String {
        self.https.local_addr().unwrap().to_string()
    }

    /// The next request to the HTTPS API.
    pub(crate) async fn request(&self) -> Request {
        soon(async {
            let (tcp, _) = self.https.accept().await.unwrap();
            let mut stream = self.acceptor.accept(tcp).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let mut lines = head.lines();
            let line = lines.next().unwrap().to_owned();
            let header = |name: &str| {
                let mut lines = lines.clone();
                lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
            };
            assert_eq!(header("host: ").as_deref(), Some(NAME));
            let length = header("content-length: ").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            Request {
                body,
                authorization: header("authorization: ").expect("a token"),
                line,
                stream,
            }
        })
        .await
    }

    /// The next connection, up to its CONNECT.
    pub(crate) async fn connect(&self) -> (Connection, Connect) {
        soon(async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            let stream = self.acceptor.accept(tcp).await.unwrap();
            let mut connection = Connection {
                stream,
                filters: BTreeSet::new(),
                first_filter: None,
            };
            let (first, body) = connection.read().await.expect("a packet");
            assert_eq!(first, 0x10, "CONNECT");
            assert_eq!(&body[..7], b"\x00\x04MQTT\x04");
            let mut rest = &body[10..];
            let [client_id, username, password] = [(); 3].map(|()| text(&mut rest));
            let connect = Connect {
                client_id,
                username,
                password,
                is_clean: body[7] & 2 != 0,
            };
            (connection, connect)
        })
        .await
    }

    /// The next connection, accepted.
    pub(crate) async fn accept(&self, session_present: bool) -> Connection {
        let (mut connection, _) = self.connect().await;
        connection.connack(session_present, 0).await;
        connection
    }

    /// The next connection, accepted; `reason` lasts until then.
    pub(crate) async fn accept_for<T>(&self, reason: T) -> Connection {
        let connection = self.accept(false).await;
        drop(reason);
        connection
    }

    /// Lets everybody begin a connection, for ever.
    pub(crate) async fn shake_hands(&self) {
        loop {
            let (tcp, _) = self.listener.accept().await.unwrap();
            // Whoever does not trust the hub breaks off.
            let _ = self.acceptor.accept(tcp).await;
        }
    }

    /// Returns when somebody has knocked; answers nothing.
    pub(crate) async fn visitor(&self) {
        self.listener.accept().await.unwrap();
    }

    /// Whether somebody has connected, at either door, that was not accepted yet.
    pub(crate) async fn has_visitor(&self) -> bool {
        let accept = async {
            tokio::select! {
                visitor = self.listener.accept() => visitor,
                visitor = self.https.accept() => visitor,
            }
        };
        tokio::time::timeout(std::time::Duration::from_millis(50), accept)
            .await
            .is_ok()
    }
}

impl Request {
    /// Answers with a status and, maybe, one of the hub's codes.
    pub(crate) async fn answer(mut self, status: u16, code: Option<&str>) {
        let code = code.map_or_else(String::new, |code| format!("iothub-errorcode: {code}\r\n"));
        let answer = format!("HTTP/1.1 {status} x\r\n{code}content-length: 0\r\n\r\n");
        self.stream.write_all(answer.as_bytes()).await.unwrap();
        self.stream.shutdown().await.unwrap();
    }
}

impl Connection {
    pub(crate) async fn connack(&mut self, session_present: bool, code: u8) {
        self.write(&[0x20, 2, session_present.into(), code]).await;
    }

    pub(crate) async fn puback(&mut self, packet_id: u16) {
        let [high, low] = packet_id.to_be_bytes();
        self.write(&[0x40, 2, high, low]).await;
    }

    /// Publishes with QoS 1 if there is a packet id.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], packet_id: Option<u16>) {
        let mut body = Vec::new();
        body.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        body.extend(topic.as_bytes());
        body.extend(packet_id.into_iter().flat_map(u16::to_be_bytes));
        body.extend(payload);
        let first = if packet_id.is_some() { 0x32 } else { 0x30 };
        let mut packet = vec![first];
        let mut length = body.len();
        loop {
            let digit = u8::try_from(length % 128).unwrap();
            length /= 128;
            packet.push(if length > 0 { digit | 0x80 } else { digit });
            if length == 0 {
                break;
            }
        }
        packet.extend(body);
        self.write(&packet).await;
    }

    /// A cloud-to-device message for `dev1`.
    pub(crate) async fn deliver(&mut self, payload: &str, packet_id: u16) {
        let topic =
            "devices/dev1/messages/devicebound/%24.to=%2Fdevices%2Fdev1%2Fmessages%2Fdevicebound";
        self.publish(topic, payload.as_bytes(), Some(packet_id))
            .await;
    }

    /// The same, with a message id.
    pub(crate) async fn deliver_named(&mut self, id: &str, payload: &str, packet_id: u16) {
        let topic = format!("devices/dev1/messages/devicebound/%24.mid={id}");
        self.publish(&topic, payload.as_bytes(), Some(packet_id))
            .await;
    }

    /// The same, with an expiry date.
    pub(crate) async fn deliver_until(&mut self, expiry: &str, payload: &str, packet_id: u16) {
        let expiry = expiry.replace(':', "%3A");
        let topic = format!("devices/dev1/messages/devicebound/%24.exp={expiry}");
        self.publish(&topic, payload.as_bytes(), Some(packet_id))
            .await;
    }

    /// The next packet that is not a ping. What must be acknowledged at once, is.
    pub(crate) async fn next(&mut self) -> Packet {
        soon(async {
            loop {
                let Some((first, body)) = self.read().await else {
                    return Packet::End;
                };
                let mut rest = body.as_slice();
                return match first >> 4 {
                    3 => {
                        let topic = text(&mut rest);
                        let packet_id = (first & 6 != 0).then(|| number(&mut rest));
                        Packet::Publish {
                            topic,
                            payload: rest.to_vec(),
                            packet_id,
                            is_again: first & 8 != 0,
                        }
                    }
                    4 => Packet::Puback(number(&mut rest)),
                    8 => {
                        let [high, low] = number(&mut rest).to_be_bytes();
                        let mut filters = Vec::new();
                        let mut suback = vec![0x90, 2, high, low];
                        while !rest.is_empty() {
                            filters.push(text(&mut rest));
                            suback.push(rest[0]);
                            suback[1] += 1;
                            rest = &rest[1..];
                        }
                        self.first_filter.get_or_insert_with(|| filters[0].clone());
                        self.filters.extend(filters.clone());
                        self.write(&suback).await;
                        Packet::Subscribe(filters)
                    }
                    10 => {
                        let [high, low] = number(&mut rest).to_be_bytes();
                        let mut filters = Vec::new();
                        while !rest.is_empty() {
                            filters.push(text(&mut rest));
                        }
                        self.first_filter
                            .get_or_insert_with(|| format!("-{}", filters[0]));
                        filters
                            .iter()
                            .for_each(|filter| _ = self.filters.remove(filter));
                        self.write(&[0xb0, 2, high, low]).await;
                        Packet::Unsubscribe(filters)
                    }
                    12 => {
                        self.write(&[0xd0, 0]).await;
                        continue;
                    }
                    14 => Packet::Disconnect,
                    other => panic!("packet type {other} from a client"),
                };
            }
        })
        .await
    }

    /// The next packet that is neither about subscriptions nor a ping.
    pub(crate) async fn next_work(&mut self) -> Packet {
        loop {
            match self.next().await {
                Packet::Subscribe(_) | Packet::Unsubscribe(_) => {}
                other => return other,
            }
        }
    }

    /// Serves the session until something happens; it sends no work meanwhile.
    pub(crate) async fn serve_until<T>(&mut self, happens: impl Future<Output = T>) -> T {
        tokio::select! {
            result = happens => result,
            packet = self.next_work() => panic!("{packet:?} while something else was expected"),
        }
    }

    /// The next publish: topic, payload, packet id.
    pub(crate) async fn next_publish(&mut self) -> (String, Vec<u8>, Option<u16>) {
        match self.next_work().await {
            Packet::Publish {
                topic,
                payload,
                packet_id,
                ..
            } => (topic, payload, packet_id),
            other => panic!("{other:?} where a PUBLISH was expected"),
        }
    }

    /// Reads on until this filter is subscribed, or is not.
    pub(crate) async fn until_subscribed(&mut self, filter: &str, is_subscribed: bool) {
        while self.filters.contains(filter) != is_subscribed {
            match self.next().await {
                Packet::Subscribe(_) | Packet::Unsubscribe(_) => {}
                other => panic!("{other:?} before {filter}"),
            }
        }
    }

    /// Answers pings until the other side ends the connection.
    pub(crate) async fn until_end(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        loop {
            match self.next().await {
                Packet::End => return packets,
                packet => packets.push(packet),
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// None at the end.
    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let digit = self.stream.read_u8().await.ok()?;
            length |= usize::from(digit & 0x7f) << shift;
            shift += 7;
            if digit & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }
}

fn number(rest: &mut &[u8]) -> u16 {
    let (bytes, after) = rest.split_first_chunk().expect("two bytes");
    *rest = after;
    u16::from_be_bytes(*bytes)
}

fn text(rest: &mut &[u8]) -> String {
    let length = usize::from(number(rest));
    let (text, after) = rest.split_at(length);
    *rest = after;
    String::from_utf8(text.to_vec()).unwrap()
}
