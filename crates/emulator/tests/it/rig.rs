//! An emulator on free ports, a device that speaks MQTT over TLS, and a cloud that speaks HTTPS.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use iothub::{Identity, Timestamp, connect::Username, sas, sas::Key};
use mqtt_protocol_core::mqtt::{
    common::Cursor,
    connection::{PacketBuildResult, PacketBuilder, PacketData},
    packet::{Qos, SubEntry, SubOpts, v3_1_1},
};
use rcgen::generate_simple_self_signed;
use reqwest::{Client, ClientBuilder, Method, RequestBuilder};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tombolo_emulator::{
    Config, Emulator, Tls,
    hub::{self, DeviceKeys, DeviceSpec, Policy, Random},
};

pub(crate) const HUB: &str = "hub.example";
pub(crate) const TOKEN: &str = "a-token-for-tests";

pub(crate) struct Rig {
    pub(crate) emulator: Emulator,
    pub(crate) cloud: Cloud,
    certificate: CertificateDer<'static>,
    policies: Vec<Policy>,
}

/// The HTTPS side with the emulator's own token.
pub(crate) struct Cloud {
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
}

/// What a device shows in the handshake.
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A device's connection.
pub(crate) struct Device {
    stream: TlsStream<TcpStream>,
    builder: PacketBuilder,
    unread: Vec<u8>,
}

/// A packet that came down.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Connack {
        code: u8,
        session_present: bool,
    },
    Publish {
        topic: String,
        payload: String,
        packet_id: Option<u16>,
    },
    Puback(u16),
    Other(u8),
}

impl Rig {
    /// With device `dev1`.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        leaks::record();
        leaks::mark("token of the service API", TOKEN);
        leaks::mark_key("key of dev1", &device_key().to_base64());
        let config = Self::config(change);
        let certificate = config.tls.certificates[0].clone();
        let policies = config.hub.policies.clone();
        let emulator = Emulator::start(config).await.unwrap();
        let cloud = Cloud {
            client: client(&certificate, emulator.https_address(), Client::builder()),
            address: emulator.https_address(),
        };
        Self {
            emulator,
            cloud,
            certificate,
            policies,
        }
    }

    /// What [`Rig::with`] starts with.
    pub(crate) fn config(change: impl FnOnce(&mut Config)) -> Config {
        let names = ["localhost".to_owned(), HUB.to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let tls = Tls {
            certificates: vec![cert.der().clone()],
            key: PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
        };
        let policies = Policy::defaults(&mut Random::seeded(1));
        let hub = hub::Config::new(HUB.parse().unwrap(), policies);
        let mut config = Config::new(hub, tls, TOKEN.into());
        let keys = DeviceKeys {
            primary: device_key(),
            secondary: device_key(),
        };
        let spec = DeviceSpec {
            authentication: Some(keys.into()),
            ..DeviceSpec::default()
        };
        config.devices.push(("dev1".parse().unwrap(), spec));
        change(&mut config);
        config
    }

    pub(crate) const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) async fn tls(&self) -> TlsStream<TcpStream> {
        self.tls_to(self.emulator.mqtt_address()).await
    }

    pub(crate) async fn tls_to(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let versions = rustls::DEFAULT_VERSIONS;
        self.tls_showing(None, versions, address).await.unwrap()
    }

    /// With a client certificate and its key, if there is one.
    pub(crate) async fn tls_showing(
        &self,
        shown: Option<&Shown>,
        versions: &[&'static SupportedProtocolVersion],
        address: SocketAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            None => config.with_no_client_auth(),
            // Unlike `with_client_auth_cert` it does not look whether the two fit.
            Some(Shown { chain, key }) => {
                let key = aws_lc_rs::sign::any_supported_type(key).unwrap();
                let shown = SingleCertAndKey::from(CertifiedKey::new(chain.clone(), key));
                config.with_client_cert_resolver(Arc::new(shown))
            }
        };
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(HUB).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
    }

    /// Connects `dev1`; returns whether the session was there.
    pub(crate) async fn connect(&self) -> (Device, bool) {
        let mut device = Device::over(self.tls().await);
        device.send(&hello()).await;
        match device.next().await {
            Some(Got::Connack {
                code: 0,
                session_present,
            }) => (device, session_present),
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// The HTTPS side as a device that shows a certificate sees it.
    pub(crate) fn as_device(&self, identity: reqwest::Identity) -> Cloud {
        let builder = Client::builder().identity(identity);
        Cloud {
            client: client(&self.certificate, self.cloud.address, builder),
            address: self.cloud.address,
        }
    }

    /// Speaks HTTP/1.1; otherwise HTTP/2 is agreed on.
    pub(crate) fn http1(mut self) -> Self {
        let builder = Client::builder().http1_only();
        self.cloud.client = client(&self.certificate, self.cloud.address, builder);
        self
    }

    /// A service token.
    pub(crate) fn sas(&self, policy: &str) -> String {
        let key = &self
            .policies
            .iter()
            .find(|p| p.name == policy)
            .unwrap()
            .primary;
        let in_an_hour =
            Timestamp::from(std::time::SystemTime::now()).saturating_add(Duration::from_secs(3600));
        key.sign(HUB, Some(policy), in_an_hour)
    }
}

impl Cloud {
    /// A request with the emulator's own token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(TOKEN)
    }

    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("https://localhost:{}{path}", self.address.port());
        self.client.request(method, url)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }
}

impl Device {
    /// A connection on which nothing was sent yet.
    pub(crate) fn over(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream,
            builder: PacketBuilder::new(),
            unread: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], packet_id: u16) {
        let packet = v3_1_1::Publish::builder()
            .topic_name(topic)
            .unwrap()
            .qos(Qos::AtLeastOnce)
            .packet_id(packet_id)
            .payload(payload)
            .build()
            .unwrap();
        self.send(&packet.to_continuous_buffer()).await;
    }

    /// Subscribes with QoS 1 and waits for SUBACK.
    pub(crate) async fn subscribe(&mut self, filters: &[&str]) {
        let qos = SubOpts::new().set_qos(Qos::AtLeastOnce);
        let entries: Vec<_> = filters
            .iter()
            .map(|filter| SubEntry::new(*filter, qos).unwrap())
            .collect();
        let packet = v3_1_1::Subscribe::builder()
            .packet_id(100)
            .entries(entries)
            .build()
            .unwrap();
        self.send(&packet.to_continuous_buffer()).await;
        assert_eq!(self.next().await, Some(Got::Other(9)));
    }

    pub(crate) async fn puback(&mut self, packet_id: u16) {
        let [high, low] = packet_id.to_be_bytes();
        self.send(&[0x40, 2, high, low]).await;
    }

    /// The next packet; none if the hub closed.
    pub(crate) async fn next(&mut self) -> Option<Got> {
        timeout(BOUND, self.read()).await.expect("a packet in time")
    }

    async fn read(&mut self) -> Option<Got> {
        loop {
            let mut cursor = Cursor::new(&self.unread[..]);
            let built = self.builder.feed(&mut cursor);
            let consumed = usize::try_from(cursor.position()).unwrap();
            self.unread.drain(..consumed);
            if let PacketBuildResult::Complete(raw) = built {
                let data = raw.data_as_slice();
                return Some(match raw.packet_type() {
                    2 => Got::Connack {
                        code: data[1],
                        session_present: data[0] == 1,
                    },
                    3 => {
                        let PacketData::Publish(data) = &raw.data else {
                            panic!("a PUBLISH is kept as one")
                        };
                        let (p, _) = v3_1_1::Publish::parse(raw.flags(), data.clone()).unwrap();
                        Got::Publish {
                            topic: p.topic_name().to_owned(),
                            payload: String::from_utf8(p.payload().as_slice().to_vec()).unwrap(),
                            packet_id: p.packet_id(),
                        }
                    }
                    4 => Got::Puback(u16::from_be_bytes([data[0], data[1]])),
                    other => Got::Other(other),
                });
            }
            let mut buffer = [0; 1024];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

impl Got {
    pub(crate) fn topic(&self) -> &str {
        match self {
            Self::Publish { topic, .. } => topic,
            Self::Connack { .. } | Self::Puback(_) | Self::Other(_) => {
                panic!("not a PUBLISH: {self:?}")
            }
        }
    }

    pub(crate) fn payload(&self) -> &str {
        match self {
            Self::Publish { payload, .. } => payload,
            Self::Connack { .. } | Self::Puback(_) | Self::Other(_) => {
                panic!("not a PUBLISH: {self:?}")
            }
        }
    }
}

/// The CONNECT of `dev1`, with its token.
pub(crate) fn hello() -> Vec<u8> {
    let identity = Identity::device(HUB.parse().unwrap(), "dev1".parse().unwrap());
    let in_an_hour =
        Timestamp::from(std::time::SystemTime::now()).saturating_add(Duration::from_secs(3600));
    let packet = v3_1_1::Connect::builder()
        .client_id("dev1")
        .unwrap()
        .clean_session(false)
        .keep_alive(60)
        .user_name(Username::new(identity.clone(), None).encode())
        .unwrap()
        .password(
            device_key()
                .sign(&sas::resource(&identity), None, in_an_hour)
                .into_bytes(),
        )
        .unwrap()
        .build()
        .unwrap();
    packet.to_continuous_buffer()
}

pub(crate) fn client(
    certificate: &CertificateDer<'_>,
    address: SocketAddr,
    builder: ClientBuilder,
) -> Client {
    // Fails if another test of this process was first: then there is one already.
    let _ = aws_lc_rs::default_provider().install_default();
    let root = reqwest::Certificate::from_der(certificate).unwrap();
    builder
        .tls_certs_only([root])
        .resolve("localhost", address)
        .timeout(BOUND)
        .build()
        .unwrap()
}

pub(crate) fn device_key() -> Key {
    Key::from_bytes((0..32).collect()).unwrap()
}

/// No test waits longer for anything.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
