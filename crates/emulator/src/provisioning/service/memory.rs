//! What a provisioning service remembers from one life to the next: enrollments with their keys, and registrations.
//!
//! Forgotten are connections and what was counted within a minute. A registration that was on its way to a hub has failed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Group, GroupId, Individual, RegistrationId, Service, enrollment::Record,
    registration::Registration,
};

#[derive(Serialize)]
struct Remembered<'a> {
    individuals: &'a BTreeMap<RegistrationId, Record<Individual>>,
    groups: &'a BTreeMap<GroupId, Record<Group>>,
    registrations: &'a BTreeMap<RegistrationId, Registration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recalled {
    individuals: BTreeMap<RegistrationId, Record<Individual>>,
    groups: BTreeMap<GroupId, Record<Group>>,
    registrations: BTreeMap<RegistrationId, Registration>,
}

impl Service {
    /// The version of what [`Service::remembered`] writes.
    pub(crate) const VERSION: u32 = 1;

    /// Moves with each change of what is remembered, and perhaps without one.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// All that it remembers, as JSON: with secrets.
    #[must_use]
    pub fn remembered(&self) -> Vec<u8> {
        let remembered = Remembered {
            individuals: &self.individuals,
            groups: &self.groups,
            registrations: &self.registrations,
        };
        serde_json::to_vec(&remembered)
            .expect("maps with text keys, texts and numbers have a JSON form")
    }

    /// Becomes a service that remembers this, in place of what it knows. An enrollment may name a hub that is not linked any
    /// more; its devices are refused until it is again.
    ///
    /// # Errors
    ///
    /// It is not what [`Service::remembered`] has written. Nothing has changed then.
    pub fn recall(&mut self, json: &[u8]) -> serde_json::Result<()> {
        let Recalled {
            individuals,
            groups,
            mut registrations,
        } = serde_json::from_slice(json)?;
        registrations.values_mut().for_each(Registration::resume);
        self.individuals = individuals;
        self.groups = groups;
        self.registrations = registrations;
        self.revision += 1;
        Ok(())
    }
}
