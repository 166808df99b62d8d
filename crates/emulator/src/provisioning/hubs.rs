//! The hubs that devices are assigned to.

use iothub::{DeviceId, ErrorCode, HubName};
use serde_json::{Map, Value};

use super::service::{Assignment, Departure};
use crate::{
    HubHandle,
    hub::{Authentication, DeviceSpec, Error, Hub, IfMatch, Now, TwinChange},
};

/// The hubs that are linked to a provisioning service.
pub(super) struct Hubs(Vec<HubHandle>);

/// What a twin takes along from one hub to another.
#[derive(Default)]
struct Luggage {
    tags: Map<String, Value>,
    desired: Map<String, Value>,
    reported: Map<String, Value>,
}

impl Hubs {
    pub(super) const fn new(hubs: Vec<HubHandle>) -> Self {
        Self(hubs)
    }

    pub(super) fn names(&self) -> Vec<HubName> {
        self.0.iter().map(|hub| hub.name().clone()).collect()
    }

    /// Makes a device known to its hub, and unknown to the one where it was before.
    ///
    /// In this order: a device that is refused by its new hub stays at its old one.
    ///
    /// # Errors
    ///
    /// What the hub says.
    pub(super) fn settle(&self, assignment: &Assignment) -> Result<(), Error> {
        let Assignment { hub, device, .. } = assignment;
        let moved = assignment
            .departure
            .as_ref()
            .filter(|departure| departure.takes_twin)
            .and_then(|departure| self.pack(departure));
        let luggage = moved.unwrap_or_else(|| Luggage {
            tags: assignment.twin.tags.clone(),
            desired: assignment.twin.desired.clone(),
            reported: Map::new(),
        });
        self.hub(hub)?
            .with_hub(|hub, now| arrive(hub, device, &assignment.authentication, luggage, now))?;
        if let Some(departure) = &assignment.departure
            && let Ok(hub) = self.hub(&departure.hub)
        {
            // An operator may have deleted it already.
            let _ =
                hub.with_hub(|hub, now| hub.delete_device(&departure.device, &IfMatch::Any, now));
        }
        Ok(())
    }

    /// The twin that a device leaves behind; none if its hub knows it no more.
    fn pack(&self, departure: &Departure) -> Option<Luggage> {
        let hub = self.hub(&departure.hub).ok()?;
        let mut twin = hub.with_hub(|hub, _| {
            let identity = hub.identity(departure.device.clone(), None);
            hub.twin(&identity).ok()
        })?;
        let section = |value: Value| {
            let Value::Object(mut section) = value else {
                return Map::new();
            };
            section.retain(|key, _| !key.starts_with('$'));
            section
        };
        let properties = &mut twin["properties"];
        Some(Luggage {
            desired: section(properties["desired"].take()),
            reported: section(properties["reported"].take()),
            tags: section(twin["tags"].take()),
        })
    }

    fn hub(&self, name: &HubName) -> Result<&HubHandle, Error> {
        self.0
            .iter()
            .find(|hub| hub.name() == name)
            .ok_or_else(|| Error {
                code: ErrorCode::ServerError,
                message: format!("The hub {name} is not linked to this provisioning service."),
            })
    }
}

/// Creates a device with its twin. If the hub knows it already, it gets the authentication of its enrollment and keeps the rest.
fn arrive(
    hub: &mut Hub,
    device: &DeviceId,
    authentication: &Authentication,
    luggage: Luggage,
    now: Now,
) -> Result<(), Error> {
    let spec = DeviceSpec {
        authentication: Some(authentication.clone()),
        ..DeviceSpec::default()
    };
    if let Ok(known) = hub.device(device) {
        let spec = DeviceSpec {
            status: known.status,
            status_reason: known.status_reason,
            ..spec
        };
        return hub
            .update_device(device, spec, &IfMatch::Any, now)
            .map(drop);
    }
    hub.create_device(device, spec, now)?;
    let identity = hub.identity(device.clone(), None);
    let Luggage {
        tags,
        desired,
        reported,
    } = luggage;
    if !tags.is_empty() || !desired.is_empty() {
        let change = TwinChange::Replace { tags, desired };
        hub.update_twin(&identity, change, None, now)?;
    }
    if !reported.is_empty() {
        hub.restore_reported(&identity, &reported, now)?;
    }
    Ok(())
}
