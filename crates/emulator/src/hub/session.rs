//! What outlives a connection: the subscriptions.
//!
//! With clean session 0 *every* subscription persists, not only that for cloud-to-device messages: the Python SDK
//! reconnects without a single SUBSCRIBE and expects answers to its twin GET at once (captured), the Node and Java SDKs
//! subscribe some topics again and not others. Sessions do not expire: Microsoft documents no lifetime.

use std::collections::BTreeMap;

use iothub::{Identity, MethodName, limits, topic::Filter};
use mqtt_protocol_core::mqtt::packet::Qos;
use serde::{Deserialize, Serialize};

use super::{CloseReason, ConnectionId, Error, Hub, Now, packet};

/// The session of a device or module as the emulator shows it to people and tests. A real hub shows none of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Whether a connection is up.
    pub is_connected: bool,
    /// How many connections the hub has accepted.
    pub connections: u64,
    /// The topic filters, as the client would write them.
    pub subscriptions: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    #[serde(with = "super::snapshot::subscriptions")]
    subscriptions: BTreeMap<Filter, Qos>,
    /// Clean session 1: the end of the connection is the end of this.
    pub(super) is_clean: bool,
}

impl Session {
    pub(super) fn new(is_clean: bool) -> Self {
        Self {
            subscriptions: BTreeMap::new(),
            is_clean,
        }
    }

    pub(super) fn has(&self, filter: &Filter) -> bool {
        self.subscriptions.contains_key(filter)
    }

    /// The QoS that cloud-to-device messages were subscribed with.
    pub(super) fn cloud_message_qos(&self) -> Option<Qos> {
        self.subscriptions.get(&Filter::CloudMessages).copied()
    }

    pub(super) fn takes_method(&self, name: &MethodName) -> bool {
        self.has(&Filter::Methods) || self.has(&Filter::Method(name.clone()))
    }
}

impl Hub {
    /// What a device or module has subscribed to, connected or not.
    ///
    /// # Errors
    ///
    /// There is no such device or module.
    pub fn session_info(&self, id: &Identity) -> Result<SessionInfo, Error> {
        let record = self.registry.record(id)?;
        let filters = record.session.iter().flat_map(|s| s.subscriptions.keys());
        Ok(SessionInfo {
            is_connected: record.connection.is_some(),
            connections: record.connections,
            subscriptions: filters.map(|filter| filter.encode(id)).collect(),
        })
    }

    pub(super) fn on_subscribe(
        &mut self,
        id: ConnectionId,
        packet_id: u16,
        filters: Vec<(String, Qos)>,
        now: Now,
    ) -> Result<(), CloseReason> {
        let identity = self.speaker(id)?;
        let session = self.session_mut(&identity).ok_or(CloseReason::NoConnect)?;
        // A SUBSCRIBE that ends the connection leaves nothing in the session.
        let mut subscriptions = session.subscriptions.clone();
        let mut granted = Vec::with_capacity(filters.len());
        for (filter, qos) in filters {
            // A filter that is not allowed closes the connection (azure-iot-middleware-freertos PR 89).
            let filter =
                Filter::parse(&filter, &identity).map_err(|_| CloseReason::FilterNotAllowed)?;
            // The MQTT page: QoS 2 is never granted.
            let qos = match qos {
                Qos::AtMostOnce => Qos::AtMostOnce,
                Qos::AtLeastOnce | Qos::ExactlyOnce => Qos::AtLeastOnce,
            };
            subscriptions.insert(filter, qos);
            granted.push(qos);
        }
        // "Understand and invoke direct methods" names the limit; what happens beyond it is not documented.
        if subscriptions.len() > limits::SUBSCRIPTIONS {
            return Err(CloseReason::TooManySubscriptions);
        }
        session.subscriptions = subscriptions;
        self.outputs
            .transmit(id, packet::suback(packet_id, &granted));
        self.deliver_messages(identity.device_id(), now);
        self.deliver_calls(&identity, now);
        Ok(())
    }

    pub(super) fn on_unsubscribe(
        &mut self,
        id: ConnectionId,
        packet_id: u16,
        filters: &[String],
        now: Now,
    ) -> Result<(), CloseReason> {
        let identity = self.speaker(id)?;
        let is_ignored = self.faults.on_unsubscribe(&identity, now);
        let session = self.session_mut(&identity).ok_or(CloseReason::NoConnect)?;
        for filter in filters {
            let filter =
                Filter::parse(filter, &identity).map_err(|_| CloseReason::FilterNotAllowed)?;
            if !is_ignored {
                session.subscriptions.remove(&filter);
            }
        }
        self.outputs.transmit(id, packet::unsuback(packet_id));
        Ok(())
    }

    fn session_mut(&mut self, id: &Identity) -> Option<&mut Session> {
        self.registry.record_mut(id).ok()?.session.as_mut()
    }
}
