//! Many identities in one request: `POST /devices` ("Service - Bulk Registry - Update Registry"; the modes are those of
//! "Import and export IoT Hub device identities in bulk").
//!
//! Each item stands alone: what one of them breaks is said of that one, and the others are done.

use std::collections::BTreeSet;

use iothub::{DeviceId, ErrorCode, Identity, ModuleId};
use serde_json::{Map, Value};

use super::{DeviceSpec, ModuleSpec};
use crate::hub::{Error, Hub, IfMatch, Now, TwinChange};

/// One item of a bulk request.
#[derive(Clone, Debug)]
pub struct BulkItem {
    /// The device, or the device that the module belongs to.
    pub device: DeviceId,
    /// The module, if it is one.
    pub module: Option<ModuleId>,
    /// What shall be done.
    pub action: BulkAction,
}

/// What an item of a bulk request does: its `importMode`.
#[derive(Clone, Debug)]
pub enum BulkAction {
    /// `create`: there must be none.
    Create(BulkIdentity),
    /// `update` and `updateIfMatchETag`: there must be one.
    Update(BulkIdentity, IfMatch),
    /// `createOrUpdate` and `createOrUpdateIfMatchETag`: the condition is for one that is there.
    CreateOrUpdate(BulkIdentity, IfMatch),
    /// `delete` and `deleteIfMatchETag`.
    Delete(IfMatch),
    /// `updateTwin` and `updateTwinIfMatchETag`.
    UpdateTwin(BulkTwin),
}

/// The identity that an item writes.
#[derive(Clone, Default, Debug)]
pub struct BulkIdentity {
    /// For a device; for a module its authentication alone.
    pub spec: DeviceSpec,
    /// For a module: who looks after it.
    pub managed_by: Option<String>,
    /// What of the twin is written with it.
    pub twin: Option<BulkTwin>,
}

/// What an item merges into a twin.
#[derive(Clone, Debug)]
pub struct BulkTwin {
    /// The condition on the twin, which is apart from that on the identity.
    pub if_match: IfMatch,
    /// Patch of the tags.
    pub tags: Option<Map<String, Value>>,
    /// Patch of the desired properties.
    pub desired: Option<Map<String, Value>>,
}

impl Hub {
    /// Works through a bulk request. Items that could not be read come as the error that they are; the answers stand in the
    /// order of the items.
    ///
    /// # Errors
    ///
    /// There are more than 100 items.
    pub fn apply_bulk(
        &mut self,
        items: Vec<Result<BulkItem, Error>>,
        now: Now,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        if items.len() > BULK {
            return Err(Error::new(
                ErrorCode::ArgumentInvalid,
                format!("A bulk request has at most {BULK} items."),
            ));
        }
        let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
        for item in items.iter().flatten() {
            let name = (item.device.clone(), item.module.clone());
            if !seen.insert(name.clone()) {
                repeated.insert(name);
            }
        }
        let apply = |item: Result<BulkItem, Error>| {
            let item = item?;
            if repeated.contains(&(item.device.clone(), item.module.clone())) {
                return Err(Error::new(
                    ErrorCode::DeviceDefinedMultipleTimes,
                    format!("{} is defined more than once.", item.name()),
                ));
            }
            self.apply_item(item, now)
        };
        Ok(items.into_iter().map(apply).collect())
    }

    fn apply_item(&mut self, item: BulkItem, now: Now) -> Result<(), Error> {
        let identity = self.identity(item.device, item.module);
        match item.action {
            BulkAction::Create(new) => self.create(&identity, new, now),
            BulkAction::Update(new, if_match) => self.replace(&identity, new, &if_match, now),
            BulkAction::CreateOrUpdate(new, if_match) => {
                if self.registry.record(&identity).is_ok() {
                    self.replace(&identity, new, &if_match, now)
                } else {
                    self.create(&identity, new, now)
                }
            }
            BulkAction::Delete(if_match) => self.delete(&identity, &if_match, now),
            BulkAction::UpdateTwin(twin) => self.merge_twin(&identity, twin, now),
        }
    }

    fn create(&mut self, identity: &Identity, new: BulkIdentity, now: Now) -> Result<(), Error> {
        let device = identity.device_id();
        match identity.module_id() {
            None => self.create_device(device, new.spec, now).map(drop)?,
            Some(module) => {
                let spec = ModuleSpec {
                    managed_by: new.managed_by,
                    authentication: new.spec.authentication,
                };
                self.create_module(device, module, spec, now).map(drop)?;
            }
        }
        let Some(twin) = new.twin else { return Ok(()) };
        self.merge_twin(identity, twin, now).inspect_err(|_| {
            // An item is done as a whole or not at all. It was created just now, so nobody can have changed it.
            let _ = self.delete(identity, &IfMatch::Any, now);
        })
    }

    fn replace(
        &mut self,
        identity: &Identity,
        new: BulkIdentity,
        if_match: &IfMatch,
        now: Now,
    ) -> Result<(), Error> {
        let device = identity.device_id();
        match identity.module_id() {
            None => self
                .update_device(device, new.spec, if_match, now)
                .map(drop)?,
            Some(module) => {
                let spec = ModuleSpec {
                    managed_by: new.managed_by,
                    authentication: new.spec.authentication,
                };
                self.update_module(device, module, spec, if_match)
                    .map(drop)?;
            }
        }
        // "Import and export IoT Hub device identities in bulk": the twin is handled apart from the identity.
        new.twin
            .map_or(Ok(()), |twin| self.merge_twin(identity, twin, now))
    }

    fn delete(&mut self, identity: &Identity, if_match: &IfMatch, now: Now) -> Result<(), Error> {
        let device = identity.device_id();
        match identity.module_id() {
            None => self.delete_device(device, if_match, now),
            Some(module) => self.delete_module(device, module, if_match, now),
        }
    }

    fn merge_twin(&mut self, identity: &Identity, twin: BulkTwin, now: Now) -> Result<(), Error> {
        let change = TwinChange::Merge {
            tags: twin.tags,
            desired: twin.desired,
        };
        self.update_twin(identity, change, Some(&twin.if_match), now)
            .map(drop)
    }
}

impl BulkItem {
    fn name(&self) -> String {
        match &self.module {
            None => format!("Device {}", self.device),
            Some(module) => format!("Module {module} of device {}", self.device),
        }
    }
}

/// Items of one request ("Service - Bulk Registry - Update Registry").
const BULK: usize = 100;
