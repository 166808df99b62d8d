//! Two hubs and a provisioning service, devices that speak MQTT or HTTPS, and an operator.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use iothub::{Timestamp, sas::Key};
use mqtt_protocol_core::mqtt::packet::v3_1_1;
use rcgen::{CertificateParams, CertifiedKey, DnType, KeyPair, generate_simple_self_signed};
use reqwest::{Client, Method, RequestBuilder};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tombolo_emulator::{
    Config, Emulator, StartError, Tls,
    hub::{self, Policy, Random},
    provisioning::{self, Provisioning, service},
};

use crate::rig::{self, Cloud, Device, Got, TOKEN};

pub(crate) const SCOPE: &str = "0ne00000000";
pub(crate) const HUBS: [&str; 2] = ["a.example", "b.example"];

pub(crate) struct Rig {
    pub(crate) provisioning: Provisioning,
    pub(crate) hubs: [Emulator; 2],
    pub(crate) cloud: Cloud,
    certificate: CertificateDer<'static>,
}

/// A device's certificate with its chain, and its key.
pub(crate) type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut provisioning::Config)) -> Self {
        Self::try_with(change).await.unwrap()
    }

    /// # Errors
    ///
    /// What the service says that does not start.
    pub(crate) async fn try_with(
        change: impl FnOnce(&mut provisioning::Config),
    ) -> Result<Self, StartError> {
        let names = ["localhost", "dps.example", HUBS[0], HUBS[1]].map(str::to_owned);
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let tls = || Tls {
            certificates: vec![cert.der().clone()],
            key: PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
        };
        let hub = async |name: &str| {
            let policies = Policy::defaults(&mut Random::seeded(1));
            let hub = hub::Config::new(name.parse().unwrap(), policies);
            let config = Config::new(hub, tls(), TOKEN.into());
            Emulator::start(config).await.unwrap()
        };
        let hubs = [hub(HUBS[0]).await, hub(HUBS[1]).await];
        let rules = service::Config::new(
            "dps.example".parse().unwrap(),
            SCOPE.parse().unwrap(),
            owner_key(),
        );
        let handles = hubs.iter().map(Emulator::handle).collect();
        let mut config = provisioning::Config::new(rules, handles, tls(), TOKEN.into());
        change(&mut config);
        let provisioning = Provisioning::start(config).await?;
        let address = provisioning.https_address();
        let cloud = Cloud {
            client: rig::client(cert.der(), address, Client::builder()),
            address,
        };
        Ok(Self {
            provisioning,
            hubs,
            cloud,
            certificate: cert.der().clone(),
        })
    }

    /// Writes an individual enrollment or a group, and returns what the service says.
    pub(crate) async fn enroll(&self, path: &str, body: Value) -> Value {
        let answer = self.cloud.request(Method::PUT, path).json(&body).send();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// A group by [`group_key`].
    pub(crate) async fn enroll_group(&self, more: Value) {
        let key = group_key().to_base64();
        let mut body = json!({
            "attestation": {
                "type": "symmetricKey",
                "symmetricKey": { "primaryKey": key, "secondaryKey": key },
            },
        });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.enroll("/enrollmentGroups/group-1", body).await;
    }

    pub(crate) async fn tls(
        &self,
        address: SocketAddr,
        name: &'static str,
        client: Option<ClientCertificate>,
    ) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        };
        let socket = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from(name).unwrap(), socket)
            .await
            .unwrap()
    }

    /// Connects to the service over TLS, and subscribes.
    pub(crate) async fn connect(&self, id: &str, proof: Proof) -> Device {
        let (token, client) = match proof {
            Proof::Token(token) => (Some(token), None),
            Proof::Certificate(certificate) => (None, Some(certificate)),
        };
        let address = self.provisioning.mqtt_address();
        let mut device = Device::over(self.tls(address, "dps.example", client).await);
        device.send(&connect(id, token.as_deref())).await;
        let accepted = Got::Connack {
            code: 0,
            session_present: false,
        };
        assert_eq!(device.next().await, Some(accepted));
        device.subscribe(&["$dps/registrations/res/#"]).await;
        device
    }

    /// Registers over MQTT and asks until it is over; returns the final answer's topic and body.
    pub(crate) async fn register(&self, id: &str, proof: Proof) -> (String, Value) {
        let mut device = self.connect(id, proof).await;
        let topic = "$dps/registrations/PUT/iotdps-register/?$rid=1";
        let body = format!(r#"{{"registrationId":"{id}"}}"#);
        device.publish(topic, body.as_bytes(), 1).await;
        assert_eq!(device.next().await, Some(Got::Puback(1)));
        let (topic, body) = answer(&mut device).await;
        if topic != "$dps/registrations/res/202/?$rid=1&retry-after=3" {
            return (topic, body);
        }
        assert_eq!(body["status"], "assigning");
        let operation = body["operationId"].as_str().unwrap();
        let topic = format!(
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId={operation}"
        );
        device.publish(&topic, b" ", 2).await;
        assert_eq!(device.next().await, Some(Got::Puback(2)));
        answer(&mut device).await
    }

    /// Registers a device of the group; returns its `registrationState`.
    pub(crate) async fn provision(&self, id: &str) -> Value {
        let token = token(&group_key().derive(id), id);
        let (topic, mut body) = self.register(id, Proof::Token(token)).await;
        assert_eq!(topic, "$dps/registrations/res/200/?$rid=2");
        body["registrationState"].take()
    }

    /// A request of a device.
    pub(crate) fn device(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let path = format!("/{SCOPE}/registrations/{path}");
        let request = self.cloud.anonymous(method, &path);
        request.header("authorization", token)
    }

    pub(crate) fn hub(&self, name: &str) -> &Emulator {
        let place = HUBS.iter().position(|hub| *hub == name).unwrap();
        &self.hubs[place]
    }
}

/// What a device proves itself with.
pub(crate) enum Proof {
    Token(String),
    Certificate(ClientCertificate),
}

async fn answer(device: &mut Device) -> (String, Value) {
    let got = device.next().await.unwrap();
    let body = serde_json::from_str(got.payload()).unwrap();
    (got.topic().to_owned(), body)
}

/// A CONNECT to the service.
pub(crate) fn connect(id: &str, token: Option<&str>) -> Vec<u8> {
    let packet = v3_1_1::Connect::builder()
        .client_id(id)
        .unwrap()
        .clean_session(true)
        .keep_alive(60)
        .user_name(format!(
            "{SCOPE}/registrations/{id}/api-version=2019-03-31&ClientVersion=test"
        ))
        .unwrap();
    let packet = match token {
        None => packet,
        Some(token) => packet.password(token.as_bytes().to_vec()).unwrap(),
    };
    packet.build().unwrap().to_continuous_buffer()
}

pub(crate) fn token(key: &Key, id: &str) -> String {
    let resource = format!("{SCOPE}/registrations/{id}");
    key.sign(&resource, Some("registration"), in_an_hour())
}

pub(crate) fn owner_token() -> String {
    owner_key().sign("dps.example", Some(service::OWNER), in_an_hour())
}

pub(crate) fn in_an_hour() -> Timestamp {
    Timestamp::from(SystemTime::now()).saturating_add(std::time::Duration::from_secs(3600))
}

/// A certificate of this common name, signed by itself.
pub(crate) fn certificate(name: &str) -> ClientCertificate {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (vec![certificate.der().clone()], key)
}

fn owner_key() -> Key {
    Key::from_bytes(vec![7; 32]).unwrap()
}

pub(crate) fn group_key() -> Key {
    Key::from_bytes(vec![8; 32]).unwrap()
}
