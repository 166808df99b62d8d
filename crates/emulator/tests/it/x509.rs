//! Devices with certificates, in real handshakes.

use futures_util::{SinkExt as _, StreamExt as _};
use iothub::{Identity, connect::Username};
use mqtt_protocol_core::mqtt::packet::v3_1_1;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use reqwest::{Method, StatusCode};
use rustls::{SupportedProtocolVersion, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};
use tombolo_emulator::Thumbprint;

use crate::rig::{BOUND, Device, Got, HUB, Rig, Shown, hello};

const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&version::TLS12], &[&version::TLS13]];

#[tokio::test]
async fn thumbprints_open_mqtt_over_tls() {
    let rig = Rig::start().await;
    let (one, other) = (self_signed("one"), self_signed("other"));
    put(&rig, "dev2", self_signed_authentication(&one, None)).await;
    for versions in VERSIONS {
        let mut device = showing(&rig, Some(&one), versions).await;
        device.send(&connect("dev2", None)).await;
        assert!(matches!(
            device.next().await,
            Some(Got::Connack { code: 0, .. })
        ));
        device
            .publish("devices/dev2/messages/events/", b"{}", 1)
            .await;
        assert_eq!(device.next().await, Some(Got::Puback(1)));
        for shown in [Some(&other), None] {
            let mut device = showing(&rig, shown, versions).await;
            device.send(&connect("dev2", Some(""))).await;
            assert!(matches!(
                device.next().await,
                Some(Got::Connack { code: 5, .. })
            ));
            assert_eq!(device.next().await, None);
        }
    }
    put(&rig, "dev2", self_signed_authentication(&one, Some(&other))).await;
    let mut device = showing(&rig, Some(&other), VERSIONS[1]).await;
    device.send(&connect("dev2", None)).await;
    assert!(matches!(
        device.next().await,
        Some(Got::Connack { code: 0, .. })
    ));
}

#[tokio::test]
async fn a_device_with_keys_may_show_a_certificate_and_it_means_nothing() {
    let rig = Rig::start().await;
    let mut device = showing(&rig, Some(&self_signed("dev1")), VERSIONS[1]).await;
    device.send(&hello()).await;
    assert!(matches!(
        device.next().await,
        Some(Got::Connack { code: 0, .. })
    ));
}

#[tokio::test]
async fn authorities_are_added_listed_and_removed() {
    let rig = Rig::start().await;
    let (root, leaf) = signed("dev2");
    put(&rig, "dev2", json!({"type": "certificateAuthority"})).await;
    assert_eq!(connack(&rig, &leaf).await, 5);
    let added = rig.cloud.post("/emulator/certificates").body(root.pem());
    let added = added.send().await.unwrap();
    assert_eq!(added.status(), StatusCode::OK);
    let added: Value = added.json().await.unwrap();
    let listed = rig
        .cloud
        .get("/emulator/certificates")
        .send()
        .await
        .unwrap();
    assert_eq!(listed.json::<Value>().await.unwrap(), added);
    assert_eq!(added[0]["subject"], "CN=root");
    let thumbprint = Thumbprint::sha256_of(root.der());
    assert_eq!(added[0]["thumbprint"], thumbprint.as_str());
    assert_eq!(connack(&rig, &leaf).await, 0);
    let path = format!(
        "/emulator/certificates/{}",
        thumbprint.as_str().to_uppercase()
    );
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND] {
        let removed = rig
            .cloud
            .request(Method::DELETE, &path)
            .send()
            .await
            .unwrap();
        assert_eq!(removed.status(), status);
    }
    assert_eq!(connack(&rig, &leaf).await, 5);
}

#[tokio::test]
async fn authorities_want_the_token_and_pem() {
    let rig = Rig::start().await;
    let anonymous = rig.cloud.anonymous(Method::GET, "/emulator/certificates");
    assert_eq!(
        anonymous.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    let no_authority = self_signed("x").chain[0].to_vec();
    for body in [
        Vec::new(),
        b"no pem".to_vec(),
        b"-----BEGIN CERTIFICATE-----\nAAA".to_vec(),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
        no_authority,
    ] {
        let added = rig.cloud.post("/emulator/certificates").body(body);
        let added = added.send().await.unwrap();
        assert_eq!(added.status(), StatusCode::BAD_REQUEST);
        assert_eq!(added.headers()["iothub-errorcode"], "ArgumentInvalid");
    }
}

/// As `curl -d @ca.pem` sends it.
#[tokio::test]
async fn pem_without_line_breaks_is_told_with_a_way_out() {
    let rig = Rig::start().await;
    let (root, _) = signed("dev2");
    let body = root.pem().replace('\n', "");
    let refused = rig.cloud.post("/emulator/certificates").body(body);
    let refused = refused.send().await.unwrap().text().await.unwrap();
    assert!(refused.contains("--data-binary"), "{refused}");
    assert!(refused.len() < 400, "{refused}");
}

#[tokio::test]
async fn authorities_of_the_configuration_are_there_from_the_start() {
    let (root, leaf) = signed("dev2");
    let rig = Rig::with(|config| config.authorities.push(root.der().clone())).await;
    put(&rig, "dev2", json!({"type": "certificateAuthority"})).await;
    assert_eq!(connack(&rig, &leaf).await, 0);
    let string = rig
        .emulator
        .device_connection_string(&"dev2".parse().unwrap());
    assert_eq!(
        string.unwrap(),
        "HostName=hub.example;DeviceId=dev2;x509=true"
    );
}

#[tokio::test]
async fn over_websocket_the_query_says_whether_a_certificate_counts() {
    let rig = Rig::start().await;
    let shown = self_signed("dev2");
    put(&rig, "dev2", self_signed_authentication(&shown, None)).await;
    for (query, code) in [
        ("", 0),
        ("?iothub-no-client-cert=false", 0),
        ("?iothub-no-client-cert=true", 5),
    ] {
        let stream = tls(
            &rig,
            Some(&shown),
            VERSIONS[0],
            rig.emulator.https_address(),
        )
        .await;
        let url = format!("wss://{HUB}/$iothub/websocket{query}");
        let mut request = url.into_client_request().unwrap();
        let mqtt = HeaderValue::from_static("mqtt");
        request.headers_mut().append("sec-websocket-protocol", mqtt);
        let (mut socket, _) = client_async(request, stream).await.unwrap();
        let packet = Message::Binary(connect("dev2", None).into());
        socket.send(packet).await.unwrap();
        let answer = timeout(BOUND, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(answer.into_data()[3], code, "{query}");
    }
}

#[tokio::test]
async fn the_device_api_takes_the_certificate() {
    let rig = Rig::start().await;
    let shown = self_signed("dev2");
    put(&rig, "dev2", self_signed_authentication(&shown, None)).await;
    let pem = pem(&shown);
    let cloud = rig.as_device(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    let path = "/devices/dev2/messages/events";
    let send = async |request: reqwest::RequestBuilder| {
        request.body("{}").send().await.unwrap().status().as_u16()
    };
    assert_eq!(send(cloud.anonymous(Method::POST, path)).await, 204);
    // With a token it is the token that counts.
    assert_eq!(send(cloud.post(path)).await, 401);
    let of_another = "/devices/dev1/messages/events";
    assert_eq!(send(cloud.anonymous(Method::POST, of_another)).await, 401);
    assert_eq!(send(rig.cloud.anonymous(Method::POST, path)).await, 401);
    // A certificate opens no other door.
    assert_eq!(send(cloud.anonymous(Method::GET, "/devices")).await, 401);
}

#[tokio::test]
async fn a_certificate_of_version_1_opens_by_its_thumbprint() {
    let rig = Rig::start().await;
    let mut shown = self_signed("dev2");
    shown.chain[0] = version_1(&shown.chain[0]);
    put(&rig, "dev2", self_signed_authentication(&shown, None)).await;
    for versions in VERSIONS {
        let mut device = showing(&rig, Some(&shown), versions).await;
        device.send(&connect("dev2", None)).await;
        assert!(matches!(
            device.next().await,
            Some(Got::Connack { code: 0, .. })
        ));
    }
}

#[tokio::test]
async fn who_has_not_the_key_does_not_shake_hands() {
    let rig = Rig::start().await;
    for versions in VERSIONS {
        let (one, other) = (self_signed("dev2"), self_signed("dev2"));
        let liar = Shown {
            chain: one.chain,
            key: other.key,
        };
        let mut garbage = self_signed("dev2");
        garbage.chain[0] = vec![0x30, 0].into();
        for shown in [liar, garbage] {
            let address = rig.emulator.mqtt_address();
            // In TLS 1.3 the client is done before the server has judged.
            match rig.tls_showing(Some(&shown), versions, address).await {
                Ok(stream) => assert_eq!(Device::over(stream).next().await, None),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::InvalidData),
            }
        }
    }
}

#[tokio::test]
async fn the_registry_keeps_the_three_kinds() {
    let rig = Rig::start().await;
    let digits = "aB".repeat(20);
    let both = json!({"type": "selfSigned", "symmetricKey": null,
        "x509Thumbprint": {"primaryThumbprint": digits, "secondaryThumbprint": ""}});
    let device = put(&rig, "dev2", both).await;
    let expected = json!({
        "symmetricKey": {"primaryKey": null, "secondaryKey": null},
        "x509Thumbprint": {"primaryThumbprint": digits, "secondaryThumbprint": null},
        "type": "selfSigned",
    });
    assert_eq!(device["authentication"], expected);
    let device = put(&rig, "dev2", json!({"type": "certificateAuthority"})).await;
    assert_eq!(device["authentication"]["type"], "certificateAuthority");
    let twin = rig.cloud.get("/twins/dev2").send().await.unwrap();
    let twin: Value = twin.json().await.unwrap();
    assert_eq!(twin["authenticationType"], "certificateAuthority");
    let device = put(&rig, "dev2", json!({"type": "sas"})).await;
    assert!(device["authentication"]["symmetricKey"]["primaryKey"].is_string());
    let path = "/devices/dev2/modules/mod1";
    let module = json!({"authentication": {"type": "selfSigned",
        "x509Thumbprint": {"secondaryThumbprint": digits}}});
    let module = rig.cloud.request(Method::PUT, path).json(&module);
    let module: Value = module.send().await.unwrap().json().await.unwrap();
    let print = &module["authentication"]["x509Thumbprint"]["secondaryThumbprint"];
    assert_eq!(*print, digits);
    for refused in [
        json!({"type": "none"}),
        json!({"type": "selfSigned"}),
        json!({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": ""}}),
        json!({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": &digits[1..]}}),
    ] {
        let body = json!({"authentication": refused});
        for path in [path, "/devices/dev2"] {
            let answer = rig.cloud.request(Method::PUT, path).header("if-match", "*");
            let answer = answer.json(&body).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
            assert_eq!(answer.headers()["iothub-errorcode"], "ArgumentInvalid");
        }
    }
}

/// Creates a device, or replaces it.
async fn put(rig: &Rig, id: &str, authentication: Value) -> Value {
    let path = format!("/devices/{id}");
    let body = json!({"deviceId": id, "authentication": authentication});
    let create = rig.cloud.request(Method::PUT, &path).json(&body);
    let mut answer = create.send().await.unwrap();
    if answer.status() == StatusCode::CONFLICT {
        let update = rig.cloud.request(Method::PUT, &path).json(&body);
        answer = update.header("if-match", "*").send().await.unwrap();
    }
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.unwrap()
}

fn self_signed_authentication(one: &Shown, other: Option<&Shown>) -> Value {
    let print = |shown: &Shown| Thumbprint::sha256_of(&shown.chain[0]).as_str().to_owned();
    json!({"type": "selfSigned", "x509Thumbprint": {
        "primaryThumbprint": print(one), "secondaryThumbprint": other.map(print)}})
}

/// The code that answers `dev2`'s CONNECT.
async fn connack(rig: &Rig, shown: &Shown) -> u8 {
    let mut device = showing(rig, Some(shown), VERSIONS[1]).await;
    device.send(&connect("dev2", None)).await;
    match device.next().await {
        Some(Got::Connack { code, .. }) => code,
        other => panic!("no CONNACK: {other:?}"),
    }
}

async fn showing(
    rig: &Rig,
    shown: Option<&Shown>,
    versions: &[&'static SupportedProtocolVersion],
) -> Device {
    Device::over(tls(rig, shown, versions, rig.emulator.mqtt_address()).await)
}

async fn tls(
    rig: &Rig,
    shown: Option<&Shown>,
    versions: &[&'static SupportedProtocolVersion],
    address: std::net::SocketAddr,
) -> TlsStream<TcpStream> {
    rig.tls_showing(shown, versions, address).await.unwrap()
}

fn connect(id: &str, password: Option<&str>) -> Vec<u8> {
    let identity = Identity::device(HUB.parse().unwrap(), id.parse().unwrap());
    let mut builder = v3_1_1::Connect::builder()
        .client_id(id)
        .unwrap()
        .clean_session(false)
        .keep_alive(60)
        .user_name(Username::new(identity, None).encode())
        .unwrap();
    if let Some(password) = password {
        builder = builder.password(password.as_bytes().to_vec()).unwrap();
    }
    builder.build().unwrap().to_continuous_buffer()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn self_signed(name: &str) -> Shown {
    let key = KeyPair::generate().unwrap();
    Shown {
        chain: vec![params(name).self_signed(&key).unwrap().into()],
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

/// An authority, and a device's certificate with one between the two.
fn signed(name: &str) -> (CertifiedIssuer<'static, KeyPair>, Shown) {
    let authority = |name: &str| {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params, KeyPair::generate().unwrap())
    };
    let (root, key) = authority("root");
    let root = CertifiedIssuer::self_signed(root, key).unwrap();
    let (between, key) = authority("between");
    let between = CertifiedIssuer::signed_by(between, key, &root).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = params(name).signed_by(&key, &between).unwrap();
    let shown = Shown {
        chain: vec![leaf.into(), between.der().clone()],
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    };
    (root, shown)
}

fn pem(shown: &Shown) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let block = |name: &str, der: &[u8]| {
        let base64 = STANDARD.encode(der);
        format!("-----BEGIN {name}-----\n{base64}\n-----END {name}-----\n")
    };
    block("PRIVATE KEY", shown.key.secret_der()) + &block("CERTIFICATE", &shown.chain[0])
}

/// The certificate without the parts that version 1 does not have. Its signature does not fit then, and nobody looks at it.
fn version_1(certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
    let [whole] = &elements(certificate)[..] else {
        panic!("a certificate is one element")
    };
    let parts = elements(whole.content);
    let kept: Vec<u8> = elements(parts[0].content)
        .iter()
        .filter(|part| part.tag & 0xe0 != 0xa0)
        .flat_map(|part| part.whole.to_vec())
        .collect();
    let mut content = sequence(&kept);
    content.extend(parts[1..].iter().flat_map(|part| part.whole.to_vec()));
    sequence(&content).into()
}

/// One element of DER.
struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    content: &'a [u8],
}

fn elements(mut der: &[u8]) -> Vec<Element<'_>> {
    let mut elements = Vec::new();
    while let [tag, length, ..] = *der {
        let (header, length) = match length {
            0x81 => (3, usize::from(der[2])),
            0x82 => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
            length => (2, usize::from(length)),
        };
        let (whole, rest) = der.split_at(header + length);
        elements.push(Element {
            tag,
            whole,
            content: &whole[header..],
        });
        der = rest;
    }
    elements
}

fn sequence(content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut der = vec![0x30, 0x82, high, low];
    der.extend(content);
    der
}
