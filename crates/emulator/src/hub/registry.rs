//! The identity registry ("Understand the identity registry in your IoT hub"; semantics measured on a live hub).

mod authentication;
mod bulk;
mod modules;
mod record;

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use iothub::{DeviceId, ErrorCode, Identity, ModuleId, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::{
    authentication::{Authentication, DeviceKeys, Thumbprints},
    bulk::{BulkAction, BulkIdentity, BulkItem, BulkTwin},
    modules::{ModuleInfo, ModuleSpec},
};
pub(super) use self::{modules::Module, record::Record};
use super::{
    Capacity, CloseReason, ConnectionId, Error, Hub, IfMatch, Now, Random, files::Uploads,
    queue::Queue,
};

/// Whether a device may connect.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceStatus {
    /// It may.
    #[default]
    Enabled,
    /// It may not; a connection that is up is closed.
    Disabled,
}

/// What an identity is created with or replaced by.
#[derive(Clone, Default, Debug)]
pub struct DeviceSpec {
    /// Whether it may connect.
    pub status: DeviceStatus,
    /// The operator's note.
    pub status_reason: Option<String>,
    /// How it shows who it is; without it the hub makes a fresh pair of keys, on an update too.
    pub authentication: Option<Authentication>,
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
    /// How it shows who it is: with secrets.
    pub authentication: Authentication,
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

/// All identities, by id.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Registry {
    devices: BTreeMap<DeviceId, Device>,
    /// Moves whenever something may be changed.
    #[serde(skip)]
    revision: u64,
}

/// A device, with what only a device has, and with its modules: they come and go with it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    pub(super) record: Record,
    pub(super) status: DeviceStatus,
    pub(super) status_reason: Option<String>,
    pub(super) status_updated_at: Option<Timestamp>,
    pub(super) queue: Queue,
    /// Forgotten with the storage, which is memory.
    #[serde(skip)]
    pub(super) uploads: Uploads,
    pub(super) modules: BTreeMap<ModuleId, Module>,
}

impl Registry {
    /// # Errors
    ///
    /// There is no such device.
    pub(super) fn device(&self, id: &DeviceId) -> Result<&Device, Error> {
        let device = self.devices.get(id);
        device.ok_or_else(|| Error::device_not_found(id))
    }

    /// # Errors
    ///
    /// There is no such device.
    pub(super) fn device_mut(&mut self, id: &DeviceId) -> Result<&mut Device, Error> {
        self.revision += 1;
        self.devices
            .get_mut(id)
            .ok_or_else(|| Error::device_not_found(id))
    }

    /// What device and module have in common.
    ///
    /// # Errors
    ///
    /// There is no such device, or no such module of it.
    pub(super) fn record(&self, id: &Identity) -> Result<&Record, Error> {
        let device = self.device(id.device_id())?;
        match id.module_id() {
            None => Ok(&device.record),
            Some(module) => Ok(&device.module(id.device_id(), module)?.record),
        }
    }

    /// Like [`Registry::record`].
    ///
    /// # Errors
    ///
    /// There is no such device, or no such module of it.
    pub(super) fn record_mut(&mut self, id: &Identity) -> Result<&mut Record, Error> {
        let device = self.device_mut(id.device_id())?;
        match id.module_id() {
            None => Ok(&mut device.record),
            Some(module) => Ok(&mut device.module_mut(id.device_id(), module)?.record),
        }
    }

    /// The devices from an id on, ordered by id.
    pub(super) fn range(
        &self,
        start: Bound<&DeviceId>,
    ) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.devices.range::<DeviceId, _>((start, Bound::Unbounded))
    }

    /// Moves with each change, and perhaps without one.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Something that is remembered with the identities may be changed.
    pub(super) const fn touch(&mut self) {
        self.revision += 1;
    }

    /// Makes of a registry that was written while connections were up one that has none.
    pub(super) fn end_connections(&mut self) {
        for device in self.devices.values_mut() {
            let modules = device.modules.values_mut().map(|module| &mut module.record);
            for record in std::iter::once(&mut device.record).chain(modules) {
                record.session.take_if(|session| session.is_clean);
            }
        }
    }

    /// All devices, ordered by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.devices.iter()
    }
}

impl Hub {
    /// The name of a device of this hub, or of a module of it, whether there is one or not.
    #[must_use]
    pub fn identity(&self, device: DeviceId, module: Option<ModuleId>) -> Identity {
        let hub = self.config.name.clone();
        match module {
            None => Identity::device(hub, device),
            Some(module) => Identity::module(hub, device, module),
        }
    }

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
        if self.registry.devices.contains_key(id) {
            return Err(Error::new(
                ErrorCode::DeviceAlreadyExists,
                format!("A device with ID '{id}' is already registered."),
            ));
        }
        let most = self.config.capacity.map_or(DEVICES, Capacity::devices);
        if self.registry.devices.len() >= most {
            return Err(Error::new(
                ErrorCode::TooManyDevices,
                format!("The hub has {most} devices, as many as it may have."),
            ));
        }
        let device = Device::new(spec, &mut self.random, now);
        self.registry.touch();
        self.registry.devices.insert(id.clone(), device);
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
        let device = self.registry.device_mut(id)?;
        if_match.check(&device.record.etag)?;
        if device.status != spec.status {
            device.status_updated_at = Some(now.utc);
        }
        device.status = spec.status;
        device.status_reason = spec.status_reason;
        device.record.replace(spec.authentication, &mut self.random);
        if device.status == DeviceStatus::Disabled {
            // azure-iot-sdk-c issue 2300: a disabled device loses its connection. Its modules cannot connect either.
            for connection in device.connections() {
                self.close(connection, CloseReason::DeviceDisabled, now);
            }
        }
        self.device(id)
    }

    /// Deletes a device with its twin, modules, queue and sessions (live hub).
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
        let device = self.registry.device(id)?;
        if_match.check(&device.record.etag)?;
        for connection in device.connections() {
            self.close(connection, CloseReason::IdentityDeleted, now);
        }
        self.registry.touch();
        let Some(device) = self.registry.devices.remove(id) else {
            return Ok(());
        };
        let modules = device.modules.into_values().map(|module| module.record);
        for record in std::iter::once(device.record).chain(modules) {
            for call in record.calls {
                self.finish_call(call, Err(Error::device_not_found(id)), now);
            }
        }
        Ok(())
    }

    /// One identity.
    ///
    /// # Errors
    ///
    /// There is no such device.
    pub fn device(&self, id: &DeviceId) -> Result<DeviceInfo, Error> {
        Ok(self.info(id, self.registry.device(id)?))
    }

    /// The first `top` devices by id.
    #[must_use]
    pub fn devices(&self, top: usize) -> Vec<DeviceInfo> {
        self.registry
            .iter()
            .take(top)
            .map(|(id, device)| self.info(id, device))
            .collect()
    }

    /// Numbers over all devices.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let count = |is: fn(&Device) -> bool| self.registry.iter().filter(|(_, d)| is(d)).count();
        Statistics {
            enabled: count(|d| d.status == DeviceStatus::Enabled),
            disabled: count(|d| d.status == DeviceStatus::Disabled),
            connected: count(|d| d.record.connection.is_some()),
        }
    }

    fn info(&self, id: &DeviceId, device: &Device) -> DeviceInfo {
        let record = &device.record;
        DeviceInfo {
            device_id: id.clone(),
            generation_id: Arc::clone(&record.generation_id),
            etag: record.etag.clone(),
            is_connected: record.connection.is_some(),
            connection_updated_at: record.connection_updated_at,
            status: device.status,
            status_reason: device.status_reason.clone(),
            status_updated_at: device.status_updated_at,
            last_activity_at: self.last_activity(record),
            cloud_messages: device.queue.len(),
            authentication: record.authentication.clone(),
        }
    }

    /// While a connection is up it knows better than the record: telemetry stamps the connection alone.
    pub(super) fn last_activity(&self, record: &Record) -> Option<Timestamp> {
        let connection = record.connection.and_then(|id| self.connections.get(&id));
        connection
            .and_then(|connection| connection.last_activity_at())
            .max(record.last_activity_at)
    }
}

impl Device {
    fn new(spec: DeviceSpec, random: &mut Random, now: Now) -> Self {
        Self {
            record: Record::new(spec.authentication, random, now),
            status: spec.status,
            status_reason: spec.status_reason,
            status_updated_at: None,
            queue: Queue::default(),
            uploads: Uploads::default(),
            modules: BTreeMap::new(),
        }
    }

    /// The connections of the device and its modules.
    pub(super) fn connections(&self) -> Vec<ConnectionId> {
        let modules = self.modules.values().map(|module| &module.record);
        let records = std::iter::once(&self.record).chain(modules);
        records.filter_map(|record| record.connection).collect()
    }
}

/// Devices of a hub ("IoT Hub quotas and throttling").
pub(super) const DEVICES: usize = 1_000_000;
