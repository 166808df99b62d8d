//! Modules: identities below a device, with keys, twin and session of their own, and without cloud-to-device messages.

use std::sync::Arc;

use iothub::{DeviceId, ErrorCode, ModuleId, Timestamp, limits};
use serde::{Deserialize, Serialize};

use super::{Authentication, Device, Record};
use crate::hub::{CloseReason, Error, Hub, IfMatch, Now};

/// What a module is created with or replaced by.
#[derive(Clone, Default, Debug)]
pub struct ModuleSpec {
    /// Who looks after it: `iotEdge` on an Edge device.
    pub managed_by: Option<String>,
    /// How it shows who it is; without it the hub makes a fresh pair of keys, on an update too.
    pub authentication: Option<Authentication>,
}

/// A module as the registry shows it.
#[derive(Clone, Debug)]
pub struct ModuleInfo {
    /// Its id.
    pub module_id: ModuleId,
    /// Who looks after it.
    pub managed_by: Option<String>,
    /// The device that it belongs to.
    pub device_id: DeviceId,
    /// Differs from that of an earlier module with the same id.
    pub generation_id: Arc<str>,
    /// Moves with each change of the identity, not of the twin.
    pub etag: String,
    /// Whether an MQTT connection is up.
    pub is_connected: bool,
    /// When that changed last.
    pub connection_updated_at: Option<Timestamp>,
    /// Last connect, disconnect or telemetry.
    pub last_activity_at: Option<Timestamp>,
    /// How it shows who it is: with secrets.
    pub authentication: Authentication,
}

/// All that the hub keeps for one module.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::hub) struct Module {
    pub(in crate::hub) record: Record,
    managed_by: Option<String>,
}

impl Device {
    /// # Errors
    ///
    /// The device, whose id is `own`, has no such module.
    pub(in crate::hub) fn module(&self, own: &DeviceId, id: &ModuleId) -> Result<&Module, Error> {
        self.modules
            .get(id)
            .ok_or_else(|| Error::module_not_found(own, id))
    }

    /// # Errors
    ///
    /// The device, whose id is `own`, has no such module.
    pub(super) fn module_mut(
        &mut self,
        own: &DeviceId,
        id: &ModuleId,
    ) -> Result<&mut Module, Error> {
        self.modules
            .get_mut(id)
            .ok_or_else(|| Error::module_not_found(own, id))
    }
}

impl Hub {
    /// Creates a module: `PUT` without `If-Match`.
    ///
    /// # Errors
    ///
    /// There is no such device, the module exists, or the device has as many as it may.
    pub fn create_module(
        &mut self,
        device_id: &DeviceId,
        id: &ModuleId,
        spec: ModuleSpec,
        now: Now,
    ) -> Result<ModuleInfo, Error> {
        let device = self.registry.device_mut(device_id)?;
        if device.modules.contains_key(id) {
            return Err(Error::new(
                ErrorCode::ModuleAlreadyExistsOnDevice,
                format!(
                    "Device {device_id} in IotHub {} already contains Module {id}.",
                    self.config.name
                ),
            ));
        }
        if device.modules.len() >= limits::MODULES {
            return Err(Error::new(
                ErrorCode::TooManyModulesOnDevice,
                format!(
                    "The device {device_id} has {} modules, as many as it may have.",
                    limits::MODULES
                ),
            ));
        }
        let module = Module {
            record: Record::new(spec.authentication, &mut self.random, now),
            managed_by: spec.managed_by,
        };
        device.modules.insert(id.clone(), module);
        self.module(device_id, id)
    }

    /// Replaces a module's identity: `PUT` with `If-Match`. Left out keys are made afresh; the twin stays.
    ///
    /// # Errors
    ///
    /// There is no such device or module, or its entity tag is another one.
    pub fn update_module(
        &mut self,
        device_id: &DeviceId,
        id: &ModuleId,
        spec: ModuleSpec,
        if_match: &IfMatch,
    ) -> Result<ModuleInfo, Error> {
        let device = self.registry.device_mut(device_id)?;
        let module = device.module_mut(device_id, id)?;
        if_match.check(&module.record.etag)?;
        module.managed_by = spec.managed_by;
        module.record.replace(spec.authentication, &mut self.random);
        self.module(device_id, id)
    }

    /// Deletes a module with its twin and session.
    ///
    /// # Errors
    ///
    /// There is no such device or module, or its entity tag is another one.
    pub fn delete_module(
        &mut self,
        device_id: &DeviceId,
        id: &ModuleId,
        if_match: &IfMatch,
        now: Now,
    ) -> Result<(), Error> {
        let module = self.registry.device(device_id)?.module(device_id, id)?;
        if_match.check(&module.record.etag)?;
        if let Some(connection) = module.record.connection {
            self.close(connection, CloseReason::IdentityDeleted, now);
        }
        let removed = self.registry.device_mut(device_id)?.modules.remove(id);
        let calls = removed.map(|module| module.record.calls);
        for call in calls.into_iter().flatten() {
            self.finish_call(call, Err(Error::module_not_found(device_id, id)), now);
        }
        Ok(())
    }

    /// One module.
    ///
    /// # Errors
    ///
    /// There is no such device or module.
    pub fn module(&self, device_id: &DeviceId, id: &ModuleId) -> Result<ModuleInfo, Error> {
        let module = self.registry.device(device_id)?.module(device_id, id)?;
        Ok(self.module_info(device_id, id, module))
    }

    /// All modules of a device, by id.
    ///
    /// # Errors
    ///
    /// There is no such device.
    pub fn modules(&self, device_id: &DeviceId) -> Result<Vec<ModuleInfo>, Error> {
        let modules = self.registry.device(device_id)?.modules.iter();
        Ok(modules
            .map(|(id, module)| self.module_info(device_id, id, module))
            .collect())
    }

    fn module_info(&self, device_id: &DeviceId, id: &ModuleId, module: &Module) -> ModuleInfo {
        let record = &module.record;
        ModuleInfo {
            module_id: id.clone(),
            managed_by: module.managed_by.clone(),
            device_id: device_id.clone(),
            generation_id: Arc::clone(&record.generation_id),
            etag: record.etag.clone(),
            is_connected: record.connection.is_some(),
            connection_updated_at: record.connection_updated_at,
            last_activity_at: self.last_activity(record),
            authentication: record.authentication.clone(),
        }
    }
}
