//! The identity registry ("Understand the identity registry in your IoT hub"; semantics measured on a live hub).

use std::{collections::BTreeSet, sync::Arc};

use iothub::{DeviceId, ErrorCode, Timestamp, sas::Key};

use super::{
    CallId, CloseReason, ConnectionId, Error, Hub, IfMatch, Now, Random, queue::Queue,
    session::Session, twin::TwinRecord,
};

/// Whether a device may connect.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum DeviceStatus {
    /// It may.
    #[default]
    Enabled,
    /// It may not; a connection that is up is closed.
    Disabled,
}

/// The two symmetric keys of a device; either signs.
#[derive(Clone, Debug)]
pub struct DeviceKeys {
    /// One.
    pub primary: Key,
    /// The other.
    pub secondary: Key,
}

/// What an identity is created with or replaced by.
#[derive(Clone, Default, Debug)]
pub struct DeviceSpec {
    /// Whether it may connect.
    pub status: DeviceStatus,
    /// The operator's note.
    pub status_reason: Option<String>,
    /// The keys; without them the hub makes a fresh pair, on an update too.
    pub keys: Option<DeviceKeys>,
}

/// An identity as the registry shows it.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// Its id.
    pub device_id: DeviceId,
    /// Differs from that of an earlier device with the same id.
    pub generation_id: Arc<str>,
    /// Moves with each change of the identity, not of the twin.
    pub etag: String,
    /// Whether an MQTT connection is up.
    pub is_connected: bool,
    /// When that changed last.
    pub connection_updated_at: Option<Timestamp>,
    /// Whether it may connect.
    pub status: DeviceStatus,
    /// The operator's note.
    pub status_reason: Option<String>,
    /// When the status changed last.
    pub status_updated_at: Option<Timestamp>,
    /// Last connect, disconnect or telemetry.
    pub last_activity_at: Option<Timestamp>,
    /// Cloud-to-device messages that wait or are in flight.
    pub cloud_messages: usize,
    /// The keys: secrets.
    pub keys: DeviceKeys,
}

/// Numbers over all devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Devices that may connect.
    pub enabled: usize,
    /// Devices that may not.
    pub disabled: usize,
    /// Devices with a connection.
    pub connected: usize,
}

/// All that the hub keeps for one device.
pub(super) struct Device {
    pub(super) generation_id: Arc<str>,
    pub(super) etag: String,
    pub(super) status: DeviceStatus,
    pub(super) status_reason: Option<String>,
    pub(super) status_updated_at: Option<Timestamp>,
    pub(super) keys: DeviceKeys,
    pub(super) connection_updated_at: Option<Timestamp>,
    pub(super) last_activity_at: Option<Timestamp>,
    pub(super) twin: TwinRecord,
    pub(super) queue: Queue,
    /// What outlives a connection; none before the first one, and after one with clean session 1.
    pub(super) session: Option<Session>,
    pub(super) connection: Option<ConnectionId>,
    /// How many connections there have been.
    pub(super) connections: u64,
    /// Direct methods that wait for this device to connect or to answer.
    pub(super) calls: BTreeSet<CallId>,
}

impl Hub {
    /// Creates a device: `PUT` without `If-Match`.
    ///
    /// # Errors
    ///
    /// It exists, or the hub is full.
    pub fn create_device(
        &mut self,
        id: &DeviceId,
        spec: DeviceSpec,
        now: Now,
    ) -> Result<DeviceInfo, Error> {
        if self.devices.contains_key(id) {
            return Err(Error::new(
                ErrorCode::DeviceAlreadyExists,
                format!("A device with ID '{id}' is already registered."),
            ));
        }
        if self.devices.len() >= DEVICES {
            return Err(Error::new(
                ErrorCode::TooManyDevices,
                format!("The hub has {DEVICES} devices."),
            ));
        }
        let device = Device::new(spec, &mut self.random, now);
        self.devices.insert(id.clone(), device);
        self.device(id)
    }

    /// Replaces an identity: `PUT` with `If-Match`. Left out keys are made afresh; the twin and the queue stay.
    ///
    /// # Errors
    ///
    /// There is no such device, or its entity tag is another one.
    pub fn update_device(
        &mut self,
        id: &DeviceId,
        spec: DeviceSpec,
        if_match: &IfMatch,
        now: Now,
    ) -> Result<DeviceInfo, Error> {
        let device = self
            .devices
            .get_mut(id)
            .ok_or_else(|| Error::device_not_found(id))?;
        if_match.check(&device.etag)?;
        if device.status != spec.status {
            device.status_updated_at = Some(now.utc);
        }
        device.status = spec.status;
        device.status_reason = spec.status_reason;
        device.keys = spec
            .keys
            .unwrap_or_else(|| DeviceKeys::mint(&mut self.random));
        device.etag = self.random.etag();
        if device.status == DeviceStatus::Disabled
            && let Some(connection) = device.connection
        {
            // azure-iot-sdk-c issue 2300: a disabled device loses its connection.
            self.close(connection, CloseReason::DeviceDisabled, now);
        }
        self.device(id)
    }

    /// Deletes a device with its twin, queue and session (live hub).
    ///
    /// # Errors
    ///
    /// There is no such device, or its entity tag is another one.
    pub fn delete_device(
        &mut self,
        id: &DeviceId,
        if_match: &IfMatch,
        now: Now,
    ) -> Result<(), Error> {
        let device = self
            .devices
            .get(id)
            .ok_or_else(|| Error::device_not_found(id))?;
        if_match.check(&device.etag)?;
        if let Some(connection) = device.connection {
            self.close(connection, CloseReason::DeviceDeleted, now);
        }
        let calls = self.devices.remove(id).map(|device| device.calls);
        for call in calls.into_iter().flatten() {
            self.finish_call(call, Err(Error::device_not_found(id)));
        }
        Ok(())
    }

    /// One identity.
    ///
    /// # Errors
    ///
    /// There is no such device.
    pub fn device(&self, id: &DeviceId) -> Result<DeviceInfo, Error> {
        let device = self
            .devices
            .get(id)
            .ok_or_else(|| Error::device_not_found(id))?;
        Ok(self.info(id, device))
    }

    /// The first `top` identities by id.
    #[must_use]
    pub fn devices(&self, top: usize) -> Vec<DeviceInfo> {
        self.devices
            .iter()
            .take(top)
            .map(|(id, device)| self.info(id, device))
            .collect()
    }

    /// Numbers over all devices.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let count = |is: fn(&Device) -> bool| self.devices.values().filter(|d| is(d)).count();
        Statistics {
            enabled: count(|d| d.status == DeviceStatus::Enabled),
            disabled: count(|d| d.status == DeviceStatus::Disabled),
            connected: count(|d| d.connection.is_some()),
        }
    }

    fn info(&self, id: &DeviceId, device: &Device) -> DeviceInfo {
        DeviceInfo {
            device_id: id.clone(),
            generation_id: Arc::clone(&device.generation_id),
            etag: device.etag.clone(),
            is_connected: device.connection.is_some(),
            connection_updated_at: device.connection_updated_at,
            status: device.status,
            status_reason: device.status_reason.clone(),
            status_updated_at: device.status_updated_at,
            last_activity_at: self.last_activity(device),
            cloud_messages: device.queue.len(),
            keys: device.keys.clone(),
        }
    }

    /// While a connection is up it knows better than the device: telemetry stamps the connection alone.
    pub(super) fn last_activity(&self, device: &Device) -> Option<Timestamp> {
        let connection = device.connection.and_then(|id| self.connections.get(&id));
        connection
            .and_then(|connection| connection.last_activity_at())
            .max(device.last_activity_at)
    }
}

impl Device {
    fn new(spec: DeviceSpec, random: &mut Random, now: Now) -> Self {
        Self {
            // Eighteen digits ("Understand the identity registry"), here the time and a random number.
            generation_id: format!(
                "{:09}{}",
                now.utc.unix_seconds() % 1_000_000_000,
                random.number()
            )
            .into(),
            etag: random.etag(),
            status: spec.status,
            status_reason: spec.status_reason,
            status_updated_at: None,
            keys: spec.keys.unwrap_or_else(|| DeviceKeys::mint(random)),
            connection_updated_at: None,
            last_activity_at: None,
            twin: TwinRecord::new(now),
            queue: Queue::default(),
            session: None,
            connection: None,
            connections: 0,
            calls: BTreeSet::new(),
        }
    }
}

impl DeviceKeys {
    fn mint(random: &mut Random) -> Self {
        Self {
            primary: random.key(),
            secondary: random.key(),
        }
    }
}

/// Devices of a hub ("IoT Hub quotas and throttling").
const DEVICES: usize = 1_000_000;
