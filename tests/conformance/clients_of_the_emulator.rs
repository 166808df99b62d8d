//! mosquitto's clients against the emulator, as a device that was written for IoT Hub speaks: TLS, a shared access
//! signature as password, the hub's topics.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use emulator::{
    Emulator, Tls,
    hub::{self, Authentication, DeviceKeys, DeviceSpec},
};
use iothub::{AckRequest, CloudMessage, Identity, Timestamp, sas, sas::Key};
use tempfile::TempDir;
use tombolo::{
    data_folder::DataFolder,
    development_ca::{DevelopmentCa, loopback_names},
};
use tombolo_system_tests::eventually;

use crate::{run, text_of};

const HUB: &str = "test-hub.localhost";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs mosquitto: ./test conformance"]
async fn telemetry_arrives_with_its_properties() {
    let rig = Rig::start().await;
    let topic = "devices/dev1/messages/events/alpha=a%20b&%24.ct=application%2Fjson&%24.ce=utf-8";
    let sent = run(rig
        .client("mosquitto_pub")
        .args(["-q", "1", "-t", topic, "-m", r#"{"t":1}"#]));
    assert!(sent.status.success(), "{}", text_of(&sent.stderr));
    // No waiting: the client ends at the PUBACK.
    let page = rig.hub.with_hub(|hub, _| hub.telemetry(1, 10));
    let [record] = &page.records[..] else {
        panic!("{:?}", page.records);
    };
    assert_eq!(&*record.message.payload, br#"{"t":1}"#);
    assert_eq!(
        record.message.properties,
        [("alpha".to_owned(), "a b".to_owned())]
    );
    assert_eq!(
        record.message.system.content_type.as_deref(),
        Some("application/json")
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs mosquitto: ./test conformance"]
async fn a_message_that_waited_is_received_and_complete_by_its_puback() {
    let rig = Rig::start().await;
    let device = "dev1".parse().unwrap();
    let message = CloudMessage {
        payload: "hello".into(),
        properties: vec![("level".to_owned(), "2".to_owned())],
        ack: AckRequest::Positive,
        ..CloudMessage::default()
    };
    rig.hub
        .with_hub(|hub, now| hub.send_message(&device, message, now))
        .unwrap();
    let filter = "devices/dev1/messages/devicebound/#";
    let received = run(rig.client("mosquitto_sub").args([
        "-q", "1", "-t", filter, "-C", "1", "-W", "20", "-F", "%q %t %p",
    ]));
    assert!(received.status.success(), "{}", text_of(&received.stderr));
    let line = text_of(&received.stdout);
    assert!(
        line.starts_with("1 devices/dev1/messages/devicebound/"),
        "{line}"
    );
    for part in [
        "%24.to=%2Fdevices%2Fdev1%2Fmessages%2FdeviceBound",
        "level=2",
    ] {
        assert!(
            line.to_lowercase().contains(&part.to_lowercase()),
            "{part} is not in {line}"
        );
    }
    assert!(line.ends_with(" hello\n"), "{line}");
    eventually("the hub has forgotten it", async || {
        let info = rig.hub.with_hub(|hub, _| hub.device(&device)).unwrap();
        info.cloud_messages == 0
    })
    .await;
    let feedback = rig.hub.with_hub(|hub, _| hub.feedback(1));
    assert_eq!(feedback[0].status.as_str(), "Success");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs mosquitto: ./test conformance"]
async fn what_iot_hub_refuses_is_refused() {
    let rig = Rig::start().await;
    let publish = |topic: &str, qos: &str| {
        let mut client = rig.client("mosquitto_pub");
        run(client.args(["-q", qos, "-t", topic, "-m", "x"]))
    };
    let own = "devices/dev1/messages/events/";
    assert!(publish(own, "0").status.success());
    assert!(!publish(own, "2").status.success(), "QoS 2");
    assert!(
        !publish("devices/dev2/messages/events/", "1")
            .status
            .success(),
        "another device"
    );
    assert!(!publish("anything", "1").status.success(), "another topic");

    let wrong = Key::from_bytes(vec![7; 32]).unwrap();
    let mut impostor = rig.client_with("mosquitto_pub", &wrong);
    let refused = run(impostor.args(["-q", "1", "-t", own, "-m", "x"]));
    // MQTT 3.1.1, 3.2.2.3: return code 5 is "not authorized", which the client makes its exit code.
    assert_eq!(
        refused.status.code(),
        Some(5),
        "{}",
        text_of(&refused.stderr)
    );
}

/// An emulator with one device.
struct Rig {
    hub: Emulator,
    key: Key,
    folder: DataFolder,
    _parent: TempDir,
}

impl Rig {
    async fn start() -> Self {
        leaks::record();
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(parent.path()).unwrap();
        let ca = DevelopmentCa::open(&folder, None, SystemTime::now()).unwrap();
        let certificate = ca
            .server_certificate(&folder, "hub", &loopback_names(), SystemTime::now())
            .unwrap();
        let tls = Tls {
            certificates: certificate.chain,
            key: certificate.key,
        };
        let key = folder.key("device.key").unwrap();
        leaks::mark_key("key of dev1", &key.to_base64());
        let spec = DeviceSpec {
            authentication: Some(Authentication::Sas(DeviceKeys {
                primary: key.clone(),
                secondary: key.clone(),
            })),
            ..DeviceSpec::default()
        };
        let hub = hub::Config::new(HUB.parse().unwrap(), Vec::new());
        let config = emulator::Config {
            devices: vec![("dev1".parse().unwrap(), spec)],
            ..emulator::Config::new(hub, tls, "token".into())
        };
        Self {
            hub: Emulator::start(config).await.unwrap(),
            key,
            folder,
            _parent: parent,
        }
    }

    /// One of mosquitto's clients, as the device.
    fn client(&self, program: &str) -> Command {
        self.client_with(program, &self.key)
    }

    fn client_with(&self, program: &str, key: &Key) -> Command {
        let identity = Identity::device(HUB.parse().unwrap(), "dev1".parse().unwrap());
        let end = Timestamp::from(SystemTime::now() + Duration::from_secs(600));
        let password = key.sign(&sas::resource(&identity), None, end);
        let mut client = Command::new(program);
        client
            .args(["-V", "mqttv311", "-h", "localhost", "-i", "dev1"])
            .args(["-p", &self.hub.mqtt_address().port().to_string()])
            .args([
                "-u",
                &format!("{HUB}/dev1/?api-version=2021-04-12"),
                "-P",
                &password,
            ])
            .arg("--cafile")
            .arg(self.folder.file("ca.pem"));
        client
    }
}
