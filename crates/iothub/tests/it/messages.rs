use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use serde::Deserialize;
use tombolo_iothub::{
    AckRequest, CloudMessage, Properties, SystemProperties, Telemetry,
    topic::{ToDevice, ToHub},
};

use crate::golden;

#[derive(Deserialize)]
struct CloudTopic {
    from: String,
    topic: String,
    device: String,
    system: SystemProperties,
    ack: AckRequest,
    properties: Properties,
}

#[test]
fn cloud_messages_are_read_as_the_hub_sends_them() {
    for vector in golden::json::<Vec<CloudTopic>>("cloud_topics.json") {
        let Ok(ToDevice::CloudMessage { device, bag }) = ToDevice::parse(&vector.topic) else {
            panic!("{}", vector.from)
        };
        let message = CloudMessage::from_bag(&bag, Bytes::new());
        assert_eq!(device.as_str(), vector.device, "{}", vector.from);
        assert_eq!(message.system, vector.system, "{}", vector.from);
        assert_eq!(message.ack, vector.ack, "{}", vector.from);
        assert_eq!(message.properties, vector.properties, "{}", vector.from);
    }
}

#[derive(Deserialize)]
struct TelemetryTopic {
    from: String,
    topic: String,
    device: String,
    module: Option<String>,
    bag: Vec<(String, Option<String>)>,
    system: SystemProperties,
    properties: Properties,
    is_how_we_write_it: bool,
}

#[test]
fn telemetry_is_read_as_every_sdk_sends_it() {
    for vector in golden::json::<Vec<TelemetryTopic>>("telemetry_topics.json") {
        let topic =
            ToHub::parse(&vector.topic).unwrap_or_else(|error| panic!("{}: {error}", vector.from));
        if vector.is_how_we_write_it {
            assert_eq!(topic.encode(), vector.topic, "{}", vector.from);
        }
        let ToHub::Telemetry {
            device,
            module,
            bag,
        } = topic
        else {
            panic!("{}", vector.from)
        };
        assert_eq!(device.as_str(), vector.device, "{}", vector.from);
        assert_eq!(
            module.map(|module| module.to_string()),
            vector.module,
            "{}",
            vector.from
        );
        let pairs: Vec<_> = bag
            .iter()
            .map(|(k, v)| (k.to_owned(), v.map(str::to_owned)))
            .collect();
        assert_eq!(pairs, vector.bag, "{}", vector.from);
        let message = Telemetry::from_bag(&bag, Bytes::new());
        assert_eq!(message.system, vector.system, "{}", vector.from);
        assert_eq!(message.properties, vector.properties, "{}", vector.from);
    }
}

/// "Create and read IoT Hub messages": body, values of system properties, names and values of the others.
#[test]
fn size_counts_what_the_hub_counts() {
    let message = Telemetry {
        system: SystemProperties {
            message_id: Some("12".to_owned()),
            others: vec![("sub".to_owned(), "345".to_owned())],
            ..SystemProperties::default()
        },
        properties: vec![("name".to_owned(), "é".to_owned())],
        payload: Bytes::from_static(b"1234567"),
    };
    assert_eq!(message.size(), 7 + 2 + 3 + 4 + 2);
}

fn system() -> impl Strategy<Value = SystemProperties> {
    let text = || option::of(any::<String>());
    let others = vec(("[a-z]{2,4}1", any::<String>()), 0..3);
    (
        text(),
        text(),
        text(),
        text(),
        text(),
        text(),
        text(),
        text(),
        others,
    )
        .prop_map(
            |(
                message_id,
                correlation_id,
                user_id,
                to,
                content_type,
                content_encoding,
                expiry,
                creation_time,
                others,
            )| {
                SystemProperties {
                    message_id,
                    correlation_id,
                    user_id,
                    to,
                    content_type,
                    content_encoding,
                    expiry,
                    creation_time,
                    others,
                }
            },
        )
}

fn properties() -> impl Strategy<Value = Properties> {
    // A name that starts with "$." is a system property, and `iothub-ack` has its own place.
    vec(("[^$].*", any::<String>()), 0..4).prop_filter("not the ack", |pairs| {
        pairs.iter().all(|(name, _)| name != "iothub-ack")
    })
}

proptest! {
    #[test]
    fn telemetry_survives_its_bag(system in system(), properties in properties(), payload: Vec<u8>) {
        let message = Telemetry { system, properties, payload: payload.into() };
        prop_assert_eq!(Telemetry::from_bag(&message.to_bag(), message.payload.clone()), message);
    }

    #[test]
    fn a_cloud_message_survives_its_bag(system in system(), properties in properties(), ack in 0..4_usize) {
        let ack = [AckRequest::None, AckRequest::Positive, AckRequest::Negative, AckRequest::Full][ack];
        let message = CloudMessage { system, ack, properties, payload: Bytes::from_static(b"x") };
        prop_assert_eq!(CloudMessage::from_bag(&message.to_bag(), message.payload.clone()), message);
    }
}
