//! One MQTT session over TLS, with nothing that a benchmark does not need.
//!
//! The library is the gateway's. Sessions are clean and have no keep-alive: the floor shall be as low as it can be, and
//! a hub on loopback does not vanish silently.

use std::time::{Duration, SystemTime};

use anyhow::{anyhow, bail};
use iothub::connect::Username;
use iothub::sas::{self, Key};
use iothub::{HubName, Identity, Timestamp};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{
    GenericPacketTrait as _, Packet, Qos, SubEntry, SubOpts, v3_1_1,
};
use mqtt_protocol_core::mqtt::result_code::{ConnectReturnCode, MqttError, SubackReturnCode};
use mqtt_protocol_core::mqtt::{Connection, Version, role};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fleet::Device;
use crate::tls::Endpoint;

/// A connected session.
pub(crate) struct Session {
    stream: TlsStream<TcpStream>,
    mqtt: Connection<role::Client>,
}

impl Session {
    /// Opens the session of a device and waits for the CONNACK.
    pub(crate) async fn open(
        hub: &Endpoint,
        tls: &TlsConnector,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let identity = Identity::device(hub.name.parse::<HubName>()?, device.id.parse()?);
        let expires_at = Timestamp::from(SystemTime::now()).saturating_add(TOKEN_LIFETIME);
        let password =
            Key::from_base64(&device.key)?.sign(&sas::resource(&identity), None, expires_at);
        let connect = v3_1_1::Connect::builder()
            .client_id(device.id.as_str())
            .and_then(|packet| packet.user_name(Username::new(identity, None).encode()))
            .and_then(|packet| packet.password(password.as_str()))
            .and_then(|packet| packet.clean_session(true).keep_alive(0).build())
            .map_err(refused)?;
        let mut session = Self {
            stream: hub.connect(tls).await?,
            mqtt: Connection::new(Version::V3_1_1),
        };
        let events = session.mqtt.checked_send(connect);
        let mut out = Vec::new();
        collect(events, &mut out)?;
        session.write(&out).await?;
        loop {
            for event in session.receive().await? {
                if let Event::NotifyPacketReceived(Packet::V3_1_1Connack(answer)) = event {
                    if answer.return_code() != ConnectReturnCode::Accepted {
                        bail!("the hub refused {}: {:?}", device.id, answer.return_code());
                    }
                    return Ok(session);
                }
            }
        }
    }

    /// Subscribes with QoS 1 and waits for the SUBACK.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> anyhow::Result<()> {
        let number = self.mqtt.acquire_packet_id().map_err(refused)?;
        let entry = SubEntry::new(filter, SubOpts::new().set_qos(Qos::AtLeastOnce));
        let subscribe = v3_1_1::Subscribe::builder()
            .packet_id(number)
            .entries(vec![entry.map_err(refused)?])
            .build()
            .map_err(refused)?;
        let events = self.mqtt.checked_send(subscribe);
        let mut out = Vec::new();
        collect(events, &mut out)?;
        self.write(&out).await?;
        loop {
            for event in self.receive().await? {
                if let Event::NotifyPacketReceived(Packet::V3_1_1Suback(answer)) = event {
                    return match answer.return_codes().first() {
                        Some(SubackReturnCode::Failure) | None => bail!("{filter} was refused"),
                        Some(_) => Ok(()),
                    };
                }
            }
        }
    }

    /// Appends a QoS 1 PUBLISH to `out`; its PUBACK will carry the number that comes back.
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> anyhow::Result<u16> {
        let number = self.mqtt.acquire_packet_id().map_err(refused)?;
        let publish = v3_1_1::Publish::builder()
            .topic_name(topic)
            .and_then(|packet| {
                packet
                    .qos(Qos::AtLeastOnce)
                    .packet_id(number)
                    .payload(payload)
                    .build()
            })
            .map_err(refused)?;
        let events = self.mqtt.checked_send(publish);
        collect(events, out)?;
        Ok(number)
    }

    /// Sends what [`Session::publish`] appended.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Waits for the next bytes and returns the numbers that they acknowledge. May be dropped while it waits.
    pub(crate) async fn acknowledged(&mut self) -> anyhow::Result<Vec<u16>> {
        let mut numbers = Vec::new();
        for event in self.receive().await? {
            if let Event::NotifyPacketReceived(Packet::V3_1_1Puback(puback)) = event {
                numbers.push(puback.packet_id());
            }
        }
        Ok(numbers)
    }

    async fn receive(&mut self) -> anyhow::Result<Vec<Event>> {
        let mut input = [0; INPUT];
        let length = self.stream.read(&mut input).await?;
        if length == 0 {
            bail!("the hub closed the connection");
        }
        let mut cursor = Cursor::new(&input[..length]);
        let mut events = Vec::new();
        while cursor.position() < length as u64 {
            events.extend(self.mqtt.recv(&mut cursor));
        }
        match events
            .iter()
            .find(|event| matches!(event, Event::NotifyError(_)))
        {
            Some(error) => Err(anyhow!("the hub broke the protocol: {error}")),
            None => Ok(events),
        }
    }
}

/// Longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A read takes this many PUBACKs (4 bytes each) at once. It is part of every session's task, hence not larger.
const INPUT: usize = 512;

fn collect(events: Vec<Event>, out: &mut Vec<u8>) -> anyhow::Result<()> {
    for event in events {
        if let Event::RequestSendPacket { packet, .. } = event {
            out.extend_from_slice(&packet.to_continuous_buffer());
        } else if let Event::NotifyError(error) = event {
            return Err(refused(error));
        }
    }
    Ok(())
}

fn refused(error: MqttError) -> anyhow::Error {
    anyhow!("the MQTT library refused: {error:?}")
}
