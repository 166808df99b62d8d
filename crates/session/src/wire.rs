//! MQTT 3.1.1 packets: built, framed and parsed by the library, told apart here.
//!
//! Of what a hub may send, everything else than the six packets of [`Packet`] is a violation of the protocol.

use bytes::Bytes;
use mqtt_protocol_core::mqtt::{
    Arc,
    common::Cursor,
    connection::{PacketBuildResult, PacketBuilder, PacketData, RawPacket},
    packet::{Qos, SubEntry, SubOpts, v3_1_1},
    result_code::{ConnectReturnCode, MqttError, SubackReturnCode},
};

/// A packet from the hub.
#[derive(Debug)]
pub(crate) enum Packet {
    Connack(Connack),
    Publish(Publish),
    Puback(u16),
    Suback { packet_id: u16, granted: Vec<bool> },
    Unsuback(u16),
    Pingresp,
}

/// The hub's answer to CONNECT.
#[derive(Debug)]
pub(crate) struct Connack {
    pub(crate) code: ConnectReturnCode,
    pub(crate) session_present: bool,
}

/// A publish from the hub.
#[derive(Debug)]
pub(crate) struct Publish {
    /// Present with QoS 1.
    pub(crate) packet_id: Option<u16>,
    pub(crate) topic: Box<str>,
    pub(crate) payload: Bytes,
}

/// How the hub broke the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// Bytes that are no packet.
    #[error("bytes that are no MQTT packet")]
    Malformed,
    /// A packet above the limit of the configuration.
    #[error("a packet larger than this side takes")]
    TooLarge,
    /// A packet that may not come, or not now.
    #[error("a packet that may not come now")]
    Unexpected,
    /// An acknowledgement of something that was not sent.
    #[error("an acknowledgement of nothing that was sent")]
    UnknownPacketId,
    /// More messages without an acknowledgement than any hub sends.
    #[error("message after message without waiting for an acknowledgement")]
    TooManyUnacknowledged,
    /// A cloud-to-device message for another device.
    #[error("a message for another device")]
    WrongDevice,
}

/// Cuts the hub's bytes into packets; holds at most one packet that is not complete.
pub(crate) struct Reader(PacketBuilder);

impl Reader {
    pub(crate) fn new(max_packet: u32) -> Self {
        Self(PacketBuilder::with_maximum_packet_size(max_packet))
    }

    /// The next complete packet; takes it from the front of `input`.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Packet>, Violation> {
        while !input.is_empty() {
            let mut cursor = Cursor::new(*input);
            let result = self.0.feed(&mut cursor);
            let taken = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            *input = input.get(taken..).unwrap_or_default();
            match result {
                PacketBuildResult::Complete(raw) => return parse(&raw).map(Some),
                PacketBuildResult::Incomplete => {}
                PacketBuildResult::Error(MqttError::PacketTooLarge) => {
                    return Err(Violation::TooLarge);
                }
                PacketBuildResult::Error(_) => return Err(Violation::Malformed),
            }
        }
        Ok(None)
    }
}

fn parse(raw: &RawPacket) -> Result<Packet, Violation> {
    if let PacketData::Publish(data) = &raw.data {
        return parse_publish(raw.flags(), data);
    }
    // MQTT-2.2.2-2: reserved flags are 0 in everything else that a hub may send.
    if raw.flags() != 0 {
        return Err(Violation::Malformed);
    }
    match raw.packet_type() {
        2 => {
            let connack = raw.parse_exact(v3_1_1::Connack::parse).map_err(malformed)?;
            Ok(Packet::Connack(Connack {
                code: connack.return_code(),
                session_present: connack.session_present(),
            }))
        }
        4 => {
            // The library also takes a third byte, a reason code, which only MQTT 5 has.
            if raw.remaining_length() != 2 {
                return Err(Violation::Malformed);
            }
            let puback = raw.parse_exact(v3_1_1::Puback::parse).map_err(malformed)?;
            Ok(Packet::Puback(puback.packet_id()))
        }
        9 => {
            let suback = raw.parse_exact(v3_1_1::Suback::parse).map_err(malformed)?;
            let codes = suback.return_codes();
            Ok(Packet::Suback {
                packet_id: suback.packet_id(),
                granted: codes.iter().map(SubackReturnCode::is_success).collect(),
            })
        }
        11 => {
            let unsuback = raw
                .parse_exact(v3_1_1::Unsuback::parse)
                .map_err(malformed)?;
            Ok(Packet::Unsuback(unsuback.packet_id()))
        }
        13 => {
            raw.parse_exact(v3_1_1::Pingresp::parse)
                .map_err(malformed)?;
            Ok(Packet::Pingresp)
        }
        _ => Err(Violation::Unexpected),
    }
}

fn parse_publish(flags: u8, data: &Arc<[u8]>) -> Result<Packet, Violation> {
    let (publish, _) = v3_1_1::Publish::parse(flags, Arc::clone(data)).map_err(malformed)?;
    let packet_id = publish.packet_id();
    match publish.qos() {
        Qos::AtMostOnce => {}
        // MQTT-2.3.1-1: never 0.
        Qos::AtLeastOnce if packet_id != Some(0) => {}
        Qos::AtLeastOnce => return Err(Violation::Malformed),
        // Nothing is subscribed with it.
        Qos::ExactlyOnce => return Err(Violation::Unexpected),
    }
    Ok(Packet::Publish(Publish {
        packet_id,
        topic: publish.topic_name().into(),
        payload: Bytes::copy_from_slice(publish.payload().as_slice()),
    }))
}

fn malformed(_: MqttError) -> Violation {
    Violation::Malformed
}

/// A CONNECT with clean session 0: with 1 the hub would drop subscriptions, and perhaps waiting messages.
///
/// # Errors
///
/// A text is longer than MQTT can carry.
pub(crate) fn connect(
    out: &mut Vec<u8>,
    client_id: &str,
    username: &str,
    password: Option<&str>,
    keep_alive_s: u16,
) -> Result<(), MqttError> {
    let mut connect = v3_1_1::Connect::builder()
        .client_id(client_id)?
        .clean_session(false)
        .keep_alive(keep_alive_s)
        .user_name(username)?;
    if let Some(password) = password {
        connect = connect.password(password)?;
    }
    out.extend(connect.build()?.to_continuous_buffer());
    Ok(())
}

/// What is told about a publish beside topic and payload.
#[derive(Clone, Copy)]
pub(crate) enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1, for the first time.
    AtLeastOnce(u16),
    /// QoS 1, with the DUP flag.
    Again(u16),
}

pub(crate) fn publish(out: &mut Vec<u8>, topic: &str, payload: &[u8], delivery: Delivery) {
    let publish = v3_1_1::Publish::builder()
        .topic_name(topic)
        .map(|publish| match delivery {
            Delivery::AtMostOnce => publish.qos(Qos::AtMostOnce),
            Delivery::AtLeastOnce(id) => publish.qos(Qos::AtLeastOnce).packet_id(id),
            Delivery::Again(id) => publish.qos(Qos::AtLeastOnce).packet_id(id).dup(true),
        })
        .and_then(|publish| publish.payload(payload).build())
        .expect("topics come from the topic builder, sizes are checked before");
    out.reserve(publish.size());
    for part in publish.to_buffers() {
        out.extend_from_slice(&part);
    }
}

pub(crate) fn puback(out: &mut Vec<u8>, packet_id: u16) {
    let puback = v3_1_1::Puback::builder().packet_id(packet_id).build();
    out.extend(puback.expect("the id is not 0").to_continuous_buffer());
}

/// A SUBSCRIBE; each filter has the highest QoS that is wanted for it: 1 if true.
pub(crate) fn subscribe(out: &mut Vec<u8>, packet_id: u16, filters: &[(String, bool)]) {
    let entries = filters.iter().map(|(filter, at_least_once)| {
        let qos = if *at_least_once {
            Qos::AtLeastOnce
        } else {
            Qos::AtMostOnce
        };
        SubEntry::new(filter.as_str(), SubOpts::new().set_qos(qos))
            .expect("filters come from the topic builder")
    });
    let subscribe = v3_1_1::Subscribe::builder()
        .packet_id(packet_id)
        .entries(entries.collect::<Vec<_>>())
        .build();
    out.extend(
        subscribe
            .expect("the id is not 0, and there is a filter")
            .to_continuous_buffer(),
    );
}

pub(crate) fn unsubscribe(out: &mut Vec<u8>, packet_id: u16, filters: &[String]) {
    let unsubscribe = v3_1_1::Unsubscribe::builder()
        .packet_id(packet_id)
        .entries(filters.iter().map(String::as_str))
        .and_then(|unsubscribe| unsubscribe.build());
    out.extend(
        unsubscribe
            .expect("the id is not 0, and the filters come from the topic builder")
            .to_continuous_buffer(),
    );
}

pub(crate) fn pingreq(out: &mut Vec<u8>) {
    out.extend(v3_1_1::Pingreq::new().to_continuous_buffer());
}

pub(crate) fn disconnect(out: &mut Vec<u8>) {
    out.extend(v3_1_1::Disconnect::new().to_continuous_buffer());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a file of hexadecimal digits.
    fn golden(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        let bytes = digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]);
        bytes.map(|byte| u8::try_from(byte).unwrap()).collect()
    }

    macro_rules! golden {
        ($name:literal) => {
            golden(include_str!(concat!("../tests/golden/", $name, ".hex")))
        };
    }

    fn built(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        build(&mut out);
        out
    }

    fn read(mut bytes: &[u8]) -> Result<Option<Packet>, Violation> {
        Reader::new(1024).next(&mut bytes)
    }

    #[test]
    fn subscribe_is_byte_for_byte_as_documented() {
        let filters = [("$iothub/twin/res/#".to_owned(), false)];
        assert_eq!(
            built(|out| subscribe(out, 1, &filters)),
            golden!("subscribe")
        );
    }

    #[test]
    fn publishes_are_byte_for_byte_as_documented() {
        let topic = "devices/dev1/messages/events/";
        let telemetry = built(|out| publish(out, topic, br#"{"t":1}"#, Delivery::AtLeastOnce(2)));
        assert_eq!(telemetry, golden!("publish-telemetry"));
        let topic = "$iothub/twin/GET/?$rid=1";
        let get = built(|out| publish(out, topic, b"", Delivery::AtMostOnce));
        assert_eq!(get, golden!("publish-twin-get"));
    }

    #[test]
    fn a_publish_that_goes_out_again_differs_in_the_dup_flag_alone() {
        let mut expected = built(|out| publish(out, "t", b"x", Delivery::AtLeastOnce(7)));
        expected[0] |= 0x08;
        assert_eq!(
            built(|out| publish(out, "t", b"x", Delivery::Again(7))),
            expected
        );
    }

    #[test]
    fn puback_is_byte_for_byte_as_documented() {
        assert_eq!(built(|out| puback(out, 2)), golden!("puback"));
    }

    #[test]
    fn short_packets_are_as_the_standard_has_them() {
        let filters = ["a/#".to_owned()];
        let expected = [0xa2, 0x07, 0x00, 0x05, 0x00, 0x03, b'a', b'/', b'#'];
        assert_eq!(built(|out| unsubscribe(out, 5, &filters)), expected);
        assert_eq!(built(pingreq), [0xc0, 0x00]);
        assert_eq!(built(disconnect), [0xe0, 0x00]);
    }

    #[test]
    fn the_hubs_packets_are_read() {
        let Ok(Some(Packet::Connack(connack))) = read(&golden!("connack-session-present")) else {
            panic!("no CONNACK");
        };
        assert!(connack.session_present);
        assert_eq!(connack.code, ConnectReturnCode::Accepted);
        assert!(matches!(
            read(&golden!("connack-not-authorised")),
            Ok(Some(Packet::Connack(Connack {
                code: ConnectReturnCode::NotAuthorized,
                ..
            })))
        ));
        assert!(matches!(
            read(&golden!("suback")),
            Ok(Some(Packet::Suback { packet_id: 1, granted })) if granted == [true]
        ));
        assert!(matches!(
            read(&golden!("puback")),
            Ok(Some(Packet::Puback(2)))
        ));
        let Ok(Some(Packet::Publish(publish))) = read(&golden!("publish-twin-response")) else {
            panic!("no PUBLISH");
        };
        assert_eq!(&*publish.topic, "$iothub/twin/res/204/?$rid=1&$version=6");
        assert_eq!(publish.packet_id, None);
        assert!(publish.payload.is_empty());
    }

    #[test]
    fn what_a_hub_may_not_send_is_a_violation() {
        let cases: [(&[u8], Violation); 9] = [
            (&[0x10, 0x00], Violation::Unexpected),             // CONNECT
            (&[0xc0, 0x00], Violation::Unexpected),             // PINGREQ
            (&[0x50, 0x02, 0x00, 0x01], Violation::Unexpected), // PUBREC
            (&[0x41, 0x02, 0x00, 0x01], Violation::Malformed),  // PUBACK with a flag
            (&[0x40, 0x02, 0x00, 0x00], Violation::Malformed),  // PUBACK of 0
            (&[0x40, 0x03, 0x00, 0x01, 0x00], Violation::Malformed), // PUBACK of MQTT 5
            (
                &[0x34, 0x05, 0x00, 0x01, b't', 0x00, 0x01],
                Violation::Unexpected,
            ), // QoS 2
            (
                &[0x36, 0x05, 0x00, 0x01, b't', 0x00, 0x01],
                Violation::Malformed,
            ), // QoS 3
            (&[0x30, 0xff, 0x7f], Violation::TooLarge),
        ];
        for (bytes, violation) in cases {
            assert_eq!(read(bytes).map(|_| ()), Err(violation), "{bytes:02x?}");
        }
    }
}
