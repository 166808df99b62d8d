//! MQTT 3.1.1 packets to and from bytes: what a server takes and gives, by `mqtt-protocol-core`.

use bytes::Bytes;
use iothub::limits;
use mqtt_protocol_core::mqtt::{
    common::Cursor,
    connection::{PacketBuildResult, PacketBuilder, PacketData, RawPacket},
    packet::{Qos, v3_1_1},
    result_code::{ConnectReturnCode, MqttError, SubackReturnCode},
};

/// A packet that a client may send.
pub(super) enum Received {
    Connect(Connect),
    /// A CONNECT of another protocol level than 3.1.1's.
    ConnectOfOtherLevel,
    Publish(Publish),
    Puback(u16),
    Subscribe {
        packet_id: u16,
        filters: Vec<(String, Qos)>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<String>,
    },
    Pingreq,
    Disconnect,
}

pub(super) struct Connect {
    pub(super) client_id: String,
    pub(super) username: Option<String>,
    /// Bytes that are no text become other ones: they are no token, and not no password either.
    pub(super) password: Option<String>,
    pub(super) is_clean: bool,
    pub(super) keep_alive_s: u16,
    pub(super) will: Option<Publish>,
}

pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    /// None with QoS 0.
    pub(super) packet_id: Option<u16>,
    pub(super) is_retained: bool,
}

/// Why bytes are no packet that a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Breaks the rules of MQTT 3.1.1.
    #[error("bytes are no packet of MQTT 3.1.1")]
    Packet,
    /// A packet that only servers send, or one of QoS 2's.
    #[error("a packet of type {0} is not for the hub")]
    Type(u8),
    /// Larger than the largest message with the longest topic.
    #[error("a packet is larger than any message may be")]
    TooLarge,
}

/// Cuts the byte stream of one connection into packets.
pub(super) struct Decoder(PacketBuilder);

impl Decoder {
    pub(super) fn new() -> Self {
        Self(PacketBuilder::with_maximum_packet_size(PACKET_BYTES))
    }

    /// The next whole packet of `input`, if there is one; the rest is kept.
    pub(super) fn next(
        &mut self,
        input: &mut Cursor<&[u8]>,
    ) -> Result<Option<Received>, Malformed> {
        match self.0.feed(input) {
            PacketBuildResult::Complete(packet) => parse(&packet).map(Some),
            PacketBuildResult::Incomplete => Ok(None),
            PacketBuildResult::Error(MqttError::PacketTooLarge) => Err(Malformed::TooLarge),
            PacketBuildResult::Error(_) => Err(Malformed::Packet),
        }
    }
}

/// Type and reserved flags of the fixed header are checked here (MQTT 3.1.1, section 2.2.2), the rest by the library.
fn parse(raw: &RawPacket) -> Result<Received, Malformed> {
    match (raw.packet_type(), raw.flags()) {
        (1, 0) => parse_connect(raw),
        (3, flags) => parse_publish(raw, flags).map(Received::Publish),
        // Not by the library, which refuses packet id 0: .NET acknowledges messages of QoS 0 with it, and the hub does
        // not mind.
        (4, 0) => match raw.data_as_slice() {
            [high, low] => Ok(Received::Puback(u16::from_be_bytes([*high, *low]))),
            _ => Err(Malformed::Packet),
        },
        (8, 2) => {
            let packet = exactly(raw, v3_1_1::Subscribe::parse)?;
            let filters = packet
                .entries()
                .iter()
                .map(|entry| (entry.topic_filter().to_owned(), entry.sub_opts().qos()))
                .collect();
            Ok(Received::Subscribe {
                packet_id: non_zero(packet.packet_id())?,
                filters,
            })
        }
        (10, 2) => {
            let packet = exactly(raw, v3_1_1::Unsubscribe::parse)?;
            Ok(Received::Unsubscribe {
                packet_id: non_zero(packet.packet_id())?,
                filters: packet
                    .entries()
                    .iter()
                    .map(|entry| entry.as_str().to_owned())
                    .collect(),
            })
        }
        (12, 0) => exactly(raw, v3_1_1::Pingreq::parse).map(|_| Received::Pingreq),
        (14, 0) => exactly(raw, v3_1_1::Disconnect::parse).map(|_| Received::Disconnect),
        (1 | 4 | 8 | 10 | 12 | 14, _) => Err(Malformed::Packet),
        (other, _) => Err(Malformed::Type(other)),
    }
}

fn parse_connect(raw: &RawPacket) -> Result<Received, Malformed> {
    // Bit 0 is reserved; a will needs its flag, and its QoS is at most 2 (MQTT 3.1.1, section 3.1.2).
    if let Some(flags) = raw.data_as_slice().get(CONNECT_FLAGS_AT) {
        let (has_will, will) = (flags & 0b100 != 0, flags & 0b11_1000);
        if flags & 1 != 0 || (!has_will && will != 0) || will & 0b1_1000 == 0b1_1000 {
            return Err(Malformed::Packet);
        }
    }
    let packet = match raw.parse_exact(v3_1_1::Connect::parse) {
        Ok(packet) => packet,
        Err(MqttError::UnsupportedProtocolVersion) => return Ok(Received::ConnectOfOtherLevel),
        Err(_) => return Err(Malformed::Packet),
    };
    let will = packet.will_topic().map(|topic| Publish {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(packet.will_payload().unwrap_or_default()),
        qos: packet.will_qos(),
        packet_id: None,
        is_retained: packet.will_retain(),
    });
    Ok(Received::Connect(Connect {
        client_id: packet.client_id().to_owned(),
        username: packet.user_name().map(str::to_owned),
        password: packet
            .password()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        is_clean: packet.clean_session(),
        keep_alive_s: packet.keep_alive(),
        will,
    }))
}

fn parse_publish(raw: &RawPacket, flags: u8) -> Result<Publish, Malformed> {
    let PacketData::Publish(data) = &raw.data else {
        return Err(Malformed::Packet);
    };
    let (packet, _) = v3_1_1::Publish::parse(flags, data.clone()).map_err(|_| Malformed::Packet)?;
    Ok(Publish {
        topic: packet.topic_name().to_owned(),
        // A copy, so that a kept message does not keep its topic's bytes as well.
        payload: Bytes::copy_from_slice(packet.payload().as_slice()),
        qos: packet.qos(),
        packet_id: packet.packet_id().map(non_zero).transpose()?,
        is_retained: packet.retain(),
    })
}

fn exactly<T>(
    raw: &RawPacket,
    parse: impl FnOnce(&[u8]) -> Result<(T, usize), MqttError>,
) -> Result<T, Malformed> {
    raw.parse_exact(parse).map_err(|_| Malformed::Packet)
}

fn non_zero(packet_id: u16) -> Result<u16, Malformed> {
    if packet_id == 0 {
        return Err(Malformed::Packet);
    }
    Ok(packet_id)
}

pub(super) fn connack(code: ConnectReturnCode, session_present: bool) -> Vec<u8> {
    let packet = v3_1_1::Connack::builder()
        .return_code(code)
        .session_present(session_present)
        .build();
    packet.expect(COMPLETE).to_continuous_buffer()
}

pub(super) fn puback(packet_id: u16) -> Vec<u8> {
    let packet = v3_1_1::Puback::builder().packet_id(packet_id).build();
    packet.expect(COMPLETE).to_continuous_buffer()
}

pub(super) fn suback(packet_id: u16, granted: &[Qos]) -> Vec<u8> {
    let codes = granted.iter().map(|qos| match qos {
        Qos::AtMostOnce => SubackReturnCode::SuccessMaximumQos0,
        Qos::AtLeastOnce | Qos::ExactlyOnce => SubackReturnCode::SuccessMaximumQos1,
    });
    let packet = v3_1_1::Suback::builder()
        .packet_id(packet_id)
        .return_codes(codes.collect())
        .build();
    packet.expect(COMPLETE).to_continuous_buffer()
}

pub(super) fn unsuback(packet_id: u16) -> Vec<u8> {
    let packet = v3_1_1::Unsuback::builder().packet_id(packet_id).build();
    packet.expect(COMPLETE).to_continuous_buffer()
}

pub(super) fn pingresp() -> Vec<u8> {
    v3_1_1::Pingresp::new().to_continuous_buffer()
}

/// A QoS 0 PUBLISH. The topic must fit: what the hub says itself always does.
pub(super) fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let packet = v3_1_1::Publish::builder()
        .topic_name(topic)
        .expect(TOPIC)
        .payload(payload)
        .build();
    packet.expect(COMPLETE).to_continuous_buffer()
}

/// A QoS 1 PUBLISH; see [`publish`].
pub(super) fn publish_acknowledged(
    topic: &str,
    payload: &[u8],
    packet_id: u16,
    is_repeated: bool,
) -> Vec<u8> {
    let packet = v3_1_1::Publish::builder()
        .topic_name(topic)
        .expect(TOPIC)
        .qos(Qos::AtLeastOnce)
        .packet_id(packet_id)
        .dup(is_repeated)
        .payload(payload)
        .build();
    packet.expect(COMPLETE).to_continuous_buffer()
}

/// The largest message, the longest topic, packet id and fixed header.
#[expect(clippy::cast_possible_truncation, reason = "some 328,000")]
const PACKET_BYTES: u32 = (limits::TELEMETRY_BYTES + 2 + limits::TOPIC_BYTES + 2 + 5) as u32;
/// After the protocol's name and level (MQTT 3.1.1, section 3.1.2).
const CONNECT_FLAGS_AT: usize = 7;
const COMPLETE: &str = "every required field is set, packet ids are not zero";
const TOPIC: &str = "topics are checked for their length before, and have no wildcard";
