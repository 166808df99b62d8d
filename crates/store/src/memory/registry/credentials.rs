//! Sealed credentials of all devices.
//!
//! A credential *stands* from the moment on at which it survives a restart, and until another one does: one that is on its way
//! to the disk may not get there, and what was promised rests on the one before. Each has a number of its own, and of two
//! records of an identity the one with the higher number counts, in whatever order the cleaner has left them.

use std::collections::BTreeMap;

use iothub::{Identity, Timestamp};
use parking_lot::Mutex;

use super::super::{Location, Memory};
use crate::{SealedCredential, StoreError};

/// The newest sealed credential of each identity that has one.
#[derive(Default)]
pub(in crate::memory) struct Credentials(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    standing: BTreeMap<Identity, Numbered>,
    /// Above every number that was ever given.
    next: u64,
}

/// A credential, and which one it is.
#[derive(Clone)]
pub(in crate::memory) struct Numbered {
    pub(in crate::memory) number: u64,
    pub(in crate::memory) credential: SealedCredential,
    /// Where it is on the disk, if there is one.
    pub(in crate::memory) stored: Option<Location>,
}

impl Credentials {
    /// Gives one the next number and leaves it to `leave`, under the lock. It does not stand yet. No more than `limit`
    /// identities have one.
    pub(in crate::memory) fn put<T>(
        &self,
        identity: &Identity,
        credential: SealedCredential,
        limit: usize,
        now: Timestamp,
        leave: impl FnOnce(&Numbered) -> Result<T, StoreError>,
    ) -> Result<(Numbered, T), StoreError> {
        let mut slots = self.0.lock();
        let standing = &mut slots.standing;
        if standing.len() >= limit && !standing.contains_key(identity) {
            standing.retain(|_, numbered| numbered.credential.expires_at() > now);
            if standing.len() >= limit {
                return Err(StoreError::StorageFull);
            }
        }
        let numbered = Numbered {
            number: slots.next,
            credential,
            stored: None,
        };
        let left = leave(&numbered)?;
        slots.next += 1;
        Ok((numbered, left))
    }

    /// This one survives from here on, or is found after a restart. It stands unless a newer one does.
    pub(in crate::memory) fn stands(&self, identity: Identity, numbered: Numbered) {
        let mut slots = self.0.lock();
        slots.next = slots.next.max(numbered.number + 1);
        let standing = slots.standing.get(&identity);
        if standing.is_none_or(|standing| standing.number <= numbered.number) {
            slots.standing.insert(identity, numbered);
        }
    }

    pub(in crate::memory) fn get(
        &self,
        identity: &Identity,
        now: Timestamp,
    ) -> Option<SealedCredential> {
        let slots = self.0.lock();
        let standing = slots.standing.get(identity);
        let standing = standing.filter(|standing| standing.credential.expires_at() > now);
        standing.map(|standing| standing.credential.clone())
    }

    /// Forgets this one, if it stands; `leave` is told its number, under the lock.
    pub(in crate::memory) fn forget(
        &self,
        identity: &Identity,
        credential: &SealedCredential,
        leave: impl FnOnce(u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut slots = self.0.lock();
        if let Some(standing) = slots.standing.get(identity)
            && standing.credential == *credential
        {
            leave(standing.number)?;
            slots.standing.remove(identity);
        }
        Ok(())
    }

    /// One with this number, or a lower one, was forgotten.
    pub(in crate::memory) fn forgotten(&self, identity: &Identity, number: u64) {
        let mut slots = self.0.lock();
        slots.next = slots.next.max(number + 1);
        let standing = slots.standing.get(identity);
        if standing.is_some_and(|standing| standing.number <= number) {
            slots.standing.remove(identity);
        }
    }

    /// Where those are that are not over; the others are forgotten.
    pub(in crate::memory) fn stored_at(&self, now: Timestamp) -> Vec<(Identity, Location)> {
        let mut slots = self.0.lock();
        let standing = &mut slots.standing;
        standing.retain(|_, numbered| numbered.credential.expires_at() > now);
        let stored = standing
            .iter()
            .filter_map(|(identity, numbered)| Some((identity.clone(), numbered.stored?)));
        stored.collect()
    }

    /// Leaves the one that stands and is at this place to `leave`, under the lock, so that none that is left later is older.
    /// False if there is none.
    pub(in crate::memory) fn leave_again(
        &self,
        identity: &Identity,
        place: Location,
        leave: impl FnOnce(&Numbered),
    ) -> bool {
        let slots = self.0.lock();
        let standing = slots.standing.get(identity);
        let standing = standing.filter(|standing| standing.stored == Some(place));
        standing.map(leave).is_some()
    }

    /// It is at another place now.
    pub(in crate::memory) fn moved(&self, identity: &Identity, from: Location, to: Location) {
        if let Some(standing) = self.0.lock().standing.get_mut(identity)
            && standing.stored == Some(from)
        {
            standing.stored = Some(to);
        }
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
        let (numbered, ()) = credentials.put(identity, credential, limit, now, |_| Ok(()))?;
        credentials.stands(identity.clone(), numbered);
        Ok(())
    }

    pub(super) fn forget_this_credential(
        &self,
        identity: &Identity,
        credential: &SealedCredential,
    ) -> Result<(), StoreError> {
        let credentials = &self.0.records.credentials;
        credentials.forget(identity, credential, |number| {
            self.0.leave_forgotten_credential(identity, number)
        })
    }
}
