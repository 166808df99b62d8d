//! What a device or module does over HTTPS: it sends telemetry, receives cloud-to-device messages one by one under a lock,
//! and settles them. Twins and direct methods are not to be had there.
//!
//! HTTPS shares everything with MQTT: the queue, in which a message is either in flight or locked, the log of telemetry, the
//! keys. But it makes no device "connected": there is no session.

use std::{sync::Arc, time::Duration};

use iothub::{CloudMessage, DeviceId, ErrorCode, Identity, Telemetry, Timestamp, limits};

use super::{AuthScope, Error, FeedbackStatus, Hub, Now, Proof, telemetry::Stamps, timers::Timer};

/// Proof that a request speaks for a device or module: what [`Hub::authorize_caller`] gives.
#[derive(Clone, Debug)]
pub struct Caller {
    identity: Identity,
    scope: AuthScope,
}

/// A cloud-to-device message under a lock.
#[derive(Clone, Debug)]
pub struct LockedMessage {
    /// What settles it: a GUID.
    pub lock: String,
    /// Running number within the device.
    pub sequence: u64,
    /// How often it was abandoned before.
    pub delivery_count: u32,
    /// When it came.
    pub enqueued_at: Timestamp,
    /// The message.
    pub message: CloudMessage,
}

/// What a device says of a message that it has received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settlement {
    /// It is done.
    Complete,
    /// It shall come again.
    Abandon,
    /// It is a dead letter.
    Reject,
}

impl Hub {
    /// Judges what a request of the device API brings: its `Authorization` header, or the certificate of its connection.
    ///
    /// An SDK that was given another host name signs that name; `hosts` are the names that this hub is reached by.
    ///
    /// # Errors
    ///
    /// Always the same one: unknown, disabled, wrong and expired are not told apart.
    pub fn authorize_caller(
        &mut self,
        identity: Identity,
        proof: Proof<'_>,
        hosts: &[String],
        now: Now,
    ) -> Result<Caller, Error> {
        match self.authorize_device(&identity, proof, hosts, now) {
            Ok(access) => {
                let record = self.registry.record_mut(&identity)?;
                record.newest_token = record.newest_token.max(access.expires_at);
                Ok(Caller {
                    identity,
                    scope: access.scope,
                })
            }
            Err(why) => {
                tracing::info!(device = %identity.client_id(), %why, "refused a device");
                Err(Error::new(
                    ErrorCode::IotHubUnauthorizedAccess,
                    "Unauthorized",
                ))
            }
        }
    }

    /// Takes telemetry: all messages, or none. Whether a real hub's batch is atomic is not documented.
    ///
    /// # Errors
    ///
    /// A message over its limit, the day's quota is spent, or the identity has been deleted meanwhile.
    pub fn take_telemetry(
        &mut self,
        caller: &Caller,
        messages: Vec<Telemetry>,
        now: Now,
    ) -> Result<(), Error> {
        messages.iter().try_for_each(check)?;
        self.charge(messages.iter().map(Telemetry::size), now)?;
        let record = self.registry.record_mut(&caller.identity)?;
        record.last_activity_at = Some(now.utc);
        let stamps = Stamps {
            identity: caller.identity.clone(),
            generation_id: Arc::clone(&record.generation_id),
            scope: caller.scope,
            model_id: None,
        };
        for message in messages {
            self.telemetry.push(&stamps, message, now);
        }
        Ok(())
    }

    /// Locks the next cloud-to-device message, if one waits.
    ///
    /// # Errors
    ///
    /// The caller is a module, has been deleted meanwhile, or the time is not 1 to 300 s.
    pub fn receive_message(
        &mut self,
        caller: &Caller,
        lock: Duration,
        now: Now,
    ) -> Result<Option<LockedMessage>, Error> {
        let device_id = caller.device(NO_MESSAGES)?;
        if !limits::CLOUD_MESSAGE_LOCK_S.contains(&lock.as_secs()) {
            return Err(Error::new(
                ErrorCode::ArgumentInvalid,
                format!(
                    "A message is locked for {} to {} seconds.",
                    limits::CLOUD_MESSAGE_LOCK_S.start(),
                    limits::CLOUD_MESSAGE_LOCK_S.end()
                ),
            ));
        }
        self.expire_messages(device_id, now);
        let token = self.random.guid();
        let until = now.at + lock;
        let device = self.registry.device_mut(device_id)?;
        device.record.last_activity_at = Some(now.utc);
        let Some(queued) = device.queue.lock(&token, until) else {
            return Ok(None);
        };
        self.timers.set(until, Timer::Messages(device_id.clone()));
        Ok(Some(LockedMessage {
            lock: token,
            sequence: queued.sequence,
            delivery_count: queued.delivery_count,
            enqueued_at: queued.enqueued_at,
            message: queued.message.clone(),
        }))
    }

    /// Settles a message that was received.
    ///
    /// # Errors
    ///
    /// The lock has ended or never was, or the caller is a module or has been deleted meanwhile.
    pub fn settle_message(
        &mut self,
        caller: &Caller,
        lock: &str,
        settlement: Settlement,
        now: Now,
    ) -> Result<(), Error> {
        let device_id = caller.device(NO_MESSAGES)?;
        self.expire_messages(device_id, now);
        let most = self.config.cloud_message_deliveries;
        let queue = &mut self.registry.device_mut(device_id)?.queue;
        let (settled, status) = match settlement {
            Settlement::Complete => (queue.take_locked(lock).map(Some), FeedbackStatus::Success),
            Settlement::Reject => (queue.take_locked(lock).map(Some), FeedbackStatus::Rejected),
            Settlement::Abandon => (
                queue.abandon(lock, most),
                FeedbackStatus::DeliveryCountExceeded,
            ),
        };
        let Some(out) = settled else {
            return Err(Error::new(
                ErrorCode::DeviceMessageLockLost,
                "The lock on the message is lost: its time is over, or the message is settled.",
            ));
        };
        self.settle(device_id, out, status, now);
        // What was given back may go over MQTT.
        self.deliver_messages(device_id, now);
        Ok(())
    }
}

impl Caller {
    /// For what devices alone have.
    ///
    /// # Errors
    ///
    /// The caller is a module: `refusal` says what it has not.
    pub(super) fn device(&self, refusal: &str) -> Result<&DeviceId, Error> {
        match self.identity.module_id() {
            None => Ok(self.identity.device_id()),
            Some(_) => Err(Error::new(ErrorCode::InvalidOperation, refusal)),
        }
    }
}

/// "Create and read IoT Hub messages".
fn check(message: &Telemetry) -> Result<(), Error> {
    if message.size() > limits::TELEMETRY_BYTES {
        return Err(Error::new(
            ErrorCode::MessageTooLarge,
            format!("A message has at most {} bytes.", limits::TELEMETRY_BYTES),
        ));
    }
    let id = message.system.message_id.as_deref().unwrap_or_default();
    if id.len() > limits::MESSAGE_ID_LENGTH {
        return Err(Error::new(
            ErrorCode::ArgumentInvalid,
            format!(
                "A message id has at most {} characters.",
                limits::MESSAGE_ID_LENGTH
            ),
        ));
    }
    Ok(())
}

/// "Understand cloud-to-device messaging".
const NO_MESSAGES: &str = "A module has no cloud-to-device messages.";
