//! Receipts and keys of all devices.

use iothub::Identity;

use super::super::{
    Engine,
    book::{Name, Progress, Reused},
    outbox::KeysFull,
};
use crate::{Fingerprint, KeyError, KeyId, KeyState, Receipt, SessionState, SubmissionId};

impl Engine {
    pub(super) fn receipt(&self, identity: &Identity, id: SubmissionId) -> Option<Receipt> {
        let cell = self.cell(identity)?;
        let is_refused = cell.presence.lock().status().state == SessionState::Refused;
        cell.lanes.lock().receipt(id, is_refused)
    }

    pub(super) fn begin_key(
        &self,
        identity: &Identity,
        id: KeyId,
        fingerprint: Fingerprint,
    ) -> Result<KeyState, KeyError> {
        let now = self.now();
        self.tidy_some(now);
        let cell = self.cell_or_new(identity);
        let mut lanes = self.lanes(&cell);
        let name = Name::key(id);
        match lanes.book().check(name, Some(fingerprint)) {
            Ok(Some(record)) => return Ok(record.key_state()),
            Ok(None) => {}
            Err(Reused) => return Err(KeyError::Reused),
        }
        self.check_keys(&mut lanes, now)?;
        lanes.book_mut().open_key(id, fingerprint, now);
        Ok(KeyState::Begun)
    }

    /// Remembers how far a key's request has come, if it is open.
    pub(super) fn advance_key(&self, identity: &Identity, id: KeyId, progress: Progress) {
        if let Some(cell) = self.cell(identity)
            && let Some(record) = self.lanes(&cell).book_mut().get_mut(Name::key(id))
            && record.is_open()
        {
            record.progress = progress;
        }
    }

    pub(super) fn forget_key(&self, identity: &Identity, id: KeyId) {
        if let Some(cell) = self.cell(identity) {
            let mut lanes = self.lanes(&cell);
            let record = lanes.book().get(Name::key(id));
            if record.is_some_and(|record| record.is_open()) {
                lanes.book_mut().remove(Name::key(id));
            }
        }
    }
}

impl From<KeysFull> for KeyError {
    fn from(full: KeysFull) -> Self {
        match full {
            KeysFull::OfDevice { limit } => Self::TooMany { limit },
            KeysFull::InAll => Self::Full,
        }
    }
}
