//! Sealed credentials of all devices.

use std::collections::BTreeMap;

use iothub::{Identity, Timestamp};
use parking_lot::Mutex;

use super::super::{Location, Memory};
use crate::{SealedCredential, StoreError};

/// The newest sealed credential of each identity that has one.
#[derive(Default)]
pub(in crate::memory) struct Credentials(Mutex<BTreeMap<Identity, Slot>>);

struct Slot {
    credential: SealedCredential,
    /// Where it is on the disk, if it is.
    stored: Option<Location>,
}

impl Credentials {
    /// Puts one into the place of the one before; `leave` leaves it to whoever keeps it, under the lock, so that what is left
    /// last stands last. There are `limit` at most.
    pub(in crate::memory) fn put<T>(
        &self,
        identity: &Identity,
        credential: SealedCredential,
        limit: usize,
        now: Timestamp,
        leave: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut slots = self.0.lock();
        if slots.len() >= limit && !slots.contains_key(identity) {
            slots.retain(|_, slot| slot.credential.expires_at() > now);
            if slots.len() >= limit {
                return Err(StoreError::StorageFull);
            }
        }
        let left = leave()?;
        slots.insert(
            identity.clone(),
            Slot {
                credential,
                stored: None,
            },
        );
        Ok(left)
    }

    pub(in crate::memory) fn get(
        &self,
        identity: &Identity,
        now: Timestamp,
    ) -> Option<SealedCredential> {
        let slots = self.0.lock();
        let slot = slots.get(identity);
        let slot = slot.filter(|slot| slot.credential.expires_at() > now);
        slot.map(|slot| slot.credential.clone())
    }

    /// It is on the disk. A newer one may have come meanwhile.
    pub(in crate::memory) fn stored(
        &self,
        identity: &Identity,
        credential: &SealedCredential,
        at: Location,
    ) {
        if let Some(slot) = self.0.lock().get_mut(identity)
            && slot.credential == *credential
        {
            slot.stored = Some(at);
        }
    }

    /// It did not get to the disk.
    pub(in crate::memory) fn not_stored(&self, identity: &Identity, credential: &SealedCredential) {
        let mut slots = self.0.lock();
        if slots
            .get(identity)
            .is_some_and(|slot| slot.stored.is_none() && slot.credential == *credential)
        {
            slots.remove(identity);
        }
    }

    /// As the disk has it; one that is over is forgotten.
    pub(in crate::memory) fn restore(
        &self,
        identity: Identity,
        credential: SealedCredential,
        at: Location,
        now: Timestamp,
    ) {
        let mut slots = self.0.lock();
        if credential.expires_at() <= now {
            slots.remove(&identity);
            return;
        }
        let stored = Some(at);
        slots.insert(identity, Slot { credential, stored });
    }

    /// Where those are that are not over; the others are forgotten.
    pub(in crate::memory) fn stored_at(&self, now: Timestamp) -> Vec<(Identity, Location)> {
        let mut slots = self.0.lock();
        slots.retain(|_, slot| slot.credential.expires_at() > now);
        let stored = slots
            .iter()
            .filter_map(|(identity, slot)| Some((identity.clone(), slot.stored?)));
        stored.collect()
    }

    /// The one that is at this place on the disk.
    pub(in crate::memory) fn at(
        &self,
        identity: &Identity,
        place: Location,
        now: Timestamp,
    ) -> Option<SealedCredential> {
        let slots = self.0.lock();
        let slot = slots.get(identity)?;
        let is_it = slot.stored == Some(place) && slot.credential.expires_at() > now;
        is_it.then(|| slot.credential.clone())
    }
}

impl Memory {
    pub(super) async fn keep_credential(
        &self,
        identity: &Identity,
        credential: SealedCredential,
    ) -> Result<(), StoreError> {
        if self.0.log().is_ok() {
            return self.0.put_durable_credential(identity, credential).await;
        }
        let now = self.0.clock.timestamp();
        let limit = self.0.config.sealed_credentials;
        let credentials = &self.0.records.credentials;
        credentials.put(identity, credential, limit, now, || Ok(()))
    }
}
