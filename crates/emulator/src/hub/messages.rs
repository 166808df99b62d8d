//! Cloud-to-device messages: sent by the service, queued, delivered over MQTT, completed by PUBACK. How a device receives
//! them over HTTPS stands in `device_api`.
//!
//! MQTT has neither reject nor abandon (the MQTT page). Without a PUBACK a message stays in flight for as long as the
//! connection lives; it is sent again on the next one.

use iothub::{
    CloudMessage, DeviceId, ErrorCode, Identity, Timestamp, limits,
    topic::{self, ToDevice},
};
use mqtt_protocol_core::mqtt::packet::Qos;

use super::{
    CloseReason, ConnectionId, Error, FeedbackStatus, Hub, Now, packet,
    queue::{Acknowledged, Queued},
    timers::Timer,
};

/// A message that was put into the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SentMessage {
    /// `iothub-sequencenumber`: running number within the device.
    pub sequence: u64,
    /// When it will expire.
    pub expires_at: Timestamp,
}

impl Hub {
    /// Puts a message into a device's queue, and delivers it if the device listens.
    ///
    /// # Errors
    ///
    /// Unknown device, full queue, too large, an expiry that cannot be read or has passed, or the day's quota is spent.
    pub fn send_message(
        &mut self,
        device_id: &DeviceId,
        mut message: CloudMessage,
        now: Now,
    ) -> Result<SentMessage, Error> {
        let ttl_end = now.utc.saturating_add(self.config.cloud_message_ttl);
        self.expire_messages(device_id, now);
        let device = self.registry.device_mut(device_id)?;
        if device.queue.len() >= limits::CLOUD_MESSAGE_QUEUE {
            return Err(Error::new(
                ErrorCode::DeviceMaximumQueueDepthExceeded,
                format!(
                    "The device has {} cloud-to-device messages in its queue.",
                    limits::CLOUD_MESSAGE_QUEUE
                ),
            ));
        }
        // Captured on the device side: always there, with a capital B.
        message.system.to = Some(format!("/devices/{device_id}/messages/deviceBound"));
        let topic = message_topic(device_id, &message);
        if message.size() > limits::CLOUD_MESSAGE_BYTES || !topic::fits(&topic) {
            return Err(Error::new(
                ErrorCode::MessageTooLarge,
                format!(
                    "A cloud-to-device message has at most {} bytes.",
                    limits::CLOUD_MESSAGE_BYTES
                ),
            ));
        }
        let expires_at = match (&message.system.expiry, message.expires_at()) {
            (None, _) => ttl_end,
            (Some(_), Some(at)) if at > now.utc => at,
            (Some(_), Some(_)) => return Err(bad_expiry("is in the past")),
            (Some(_), None) => return Err(bad_expiry("is no time in the form of RFC 3339")),
        };
        self.charge([message.size()], now)?;
        let device = self.registry.device_mut(device_id)?;
        let sequence = device.queue.push(message, now.utc, expires_at);
        let timer = Timer::Messages(device_id.clone());
        self.timers.set(now.instant_of(expires_at), timer);
        self.deliver_messages(device_id, now);
        Ok(SentMessage {
            sequence,
            expires_at,
        })
    }

    /// Empties a device's queue: `DELETE /devices/{id}/commands`. Returns how many messages there were.
    ///
    /// # Errors
    ///
    /// There is no such device.
    pub fn purge_messages(&mut self, device_id: &DeviceId, now: Now) -> Result<usize, Error> {
        let device = self.registry.device_mut(device_id)?;
        let purged = device.queue.purge();
        let count = purged.len();
        self.settle(device_id, purged, FeedbackStatus::Purged, now);
        Ok(count)
    }

    /// Sends what waits, as far as the window goes, if the device is connected and has subscribed.
    pub(super) fn deliver_messages(&mut self, device_id: &DeviceId, now: Now) {
        self.expire_messages(device_id, now);
        let Ok(device) = self.registry.device_mut(device_id) else {
            return;
        };
        let session = device.record.session.as_ref();
        let qos = session.and_then(|session| session.cloud_message_qos());
        let (Some(id), Some(qos)) = (device.record.connection, qos) else {
            return;
        };
        let open = self.connections.get_mut(&id).and_then(|c| c.as_open_mut());
        if open.is_none_or(|open| open.messages_held_until.is_some()) {
            return;
        }
        let mut completed = Vec::new();
        while let Some(delivery) = device.queue.next_delivery() {
            let topic = message_topic(device_id, delivery.message);
            let payload = &delivery.message.payload;
            let packet_id = delivery.packet_id;
            if qos == Qos::AtMostOnce {
                // The protocol gateway completes what goes out with QoS 0.
                self.outputs.transmit(id, packet::publish(&topic, payload));
                if let Acknowledged::Completed(queued) = device.queue.acknowledge(packet_id) {
                    completed.push(queued);
                }
            } else {
                let packet =
                    packet::publish_acknowledged(&topic, payload, packet_id, delivery.is_repeated);
                self.outputs.transmit(id, packet);
            }
        }
        self.settle(device_id, completed, FeedbackStatus::Success, now);
    }

    pub(super) fn on_puback(
        &mut self,
        id: ConnectionId,
        packet_id: u16,
        now: Now,
    ) -> Result<(), CloseReason> {
        let identity = self.speaker(id)?;
        let device_id = identity.device_id();
        let Ok(device) = self.registry.device_mut(device_id) else {
            return Ok(());
        };
        if identity.module_id().is_some() {
            return Ok(());
        }
        match device.queue.acknowledge(packet_id) {
            Acknowledged::Completed(queued) => {
                self.settle(device_id, [queued], FeedbackStatus::Success, now);
                self.deliver_messages(device_id, now);
                Ok(())
            }
            // The protocol gateway enforces the order of MQTT-4.6.0-2; the .NET SDK keeps it (issue 157).
            Acknowledged::OutOfOrder => Err(CloseReason::PubackOutOfOrder),
            // Of a message that was purged meanwhile, or of none: .NET acknowledges QoS 0 with packet id 0.
            Acknowledged::Unknown => Ok(()),
        }
    }

    /// The connection is gone: the device's, which has a queue, or a module's, which has none.
    pub(super) fn on_messages_interrupted(&mut self, identity: &Identity, now: Now) {
        let device_id = identity.device_id();
        let Ok(device) = self.registry.device_mut(device_id) else {
            return;
        };
        if identity.module_id().is_some() {
            return;
        }
        let dead = device.queue.interrupt(
            self.config.count_lost_deliveries,
            self.config.cloud_message_deliveries,
        );
        self.settle(device_id, dead, FeedbackStatus::DeliveryCountExceeded, now);
        // What was in flight could not expire.
        self.expire_messages(device_id, now);
    }

    /// Fires at the end of a lock or at the expiry of a message, or earlier: no timer reaches further than a day, and the
    /// wall clock may be set.
    pub(super) fn on_messages_timer(&mut self, device_id: DeviceId, now: Now) {
        self.deliver_messages(&device_id, now);
        let Ok(device) = self.registry.device(&device_id) else {
            return;
        };
        let expiry = device.queue.next_expiry().map(|at| now.instant_of(at));
        let next = [expiry, device.queue.next_unlock()];
        if let Some(next) = next.into_iter().flatten().min() {
            self.timers.set(next, Timer::Messages(device_id));
        }
    }

    /// Gives back what was locked for too long, and takes out what has expired.
    pub(super) fn expire_messages(&mut self, device_id: &DeviceId, now: Now) {
        let Ok(device) = self.registry.device_mut(device_id) else {
            return;
        };
        device.queue.unlock(now.at);
        let expired = device.queue.expire(now.utc);
        self.settle(device_id, expired, FeedbackStatus::Expired, now);
    }

    /// Messages that have left the queue: their senders hear of it if they asked.
    pub(super) fn settle(
        &mut self,
        device_id: &DeviceId,
        messages: impl IntoIterator<Item = Queued>,
        status: FeedbackStatus,
        now: Now,
    ) {
        let Ok(device) = self.registry.device(device_id) else {
            return;
        };
        for queued in messages {
            tracing::debug!(
                device = %device_id,
                sequence = queued.sequence,
                deliveries = queued.delivery_count,
                ?status,
                "cloud-to-device message settled"
            );
            if status.is_wanted(queued.message.ack) {
                let id = queued.message.system.message_id;
                self.feedback
                    .push(device_id, &device.record.generation_id, id, status, now);
            }
        }
    }
}

/// The topic with its bag, which is never empty: the .NET SDK reads it without a check.
fn message_topic(device_id: &DeviceId, message: &CloudMessage) -> String {
    let device = device_id.clone();
    let bag = message.to_bag();
    ToDevice::CloudMessage { device, bag }.encode()
}

fn bad_expiry(what: &str) -> Error {
    Error::new(
        ErrorCode::ArgumentInvalid,
        format!("The expiry of the message {what}."),
    )
}
