//! Durable keys.

use std::sync::Arc;

use iothub::Identity;

use super::{
    super::{
        Engine,
        book::{Name, Progress, Record as BookRecord, Reused},
        cell::Cell,
    },
    Told,
    record::{Key, Record},
    written,
};
use crate::{Fingerprint, KeyError, KeyId, KeyState, StoreError, log::Kind};

impl Engine {
    pub(in crate::memory) async fn begin_durable_key(
        self: &Arc<Self>,
        identity: &Identity,
        id: KeyId,
        fingerprint: Fingerprint,
    ) -> Result<KeyState, KeyError> {
        self.tidy_some(self.now());
        let cell = self.cell_or_new(identity);
        loop {
            let begun = self.try_begin_key(&cell, id, fingerprint)?;
            match begun {
                Ok(state) => return Ok(state),
                Err(None) => self.barrier().await?,
                Err(Some(told)) => {
                    written(told).await?;
                    return Ok(KeyState::Begun);
                }
            }
        }
    }

    /// What is known of a key; or, if it begins, who tells when that is on the disk; or nobody, if somebody else waits for
    /// that.
    fn try_begin_key(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        id: KeyId,
        fingerprint: Fingerprint,
    ) -> Result<Result<KeyState, Option<Told>>, KeyError> {
        let now = self.now();
        let name = Name::key(id);
        let mut lanes = self.lanes(cell);
        match lanes.book().check(name, Some(fingerprint)) {
            Err(Reused) => return Err(KeyError::Reused),
            Ok(Some(record)) if record.stored.is_none() => return Ok(Err(None)),
            Ok(Some(record)) => return Ok(Ok(record.key_state())),
            Ok(None) => {}
        }
        self.check_keys(&mut lanes, now)?;
        lanes.book_mut().open_key(id, fingerprint, now);
        let told = match lanes.book().get(name) {
            Some(record) => self.append_key(cell, id, record, Kind::Promise),
            None => Err(StoreError::Unavailable),
        };
        if told.is_err() {
            lanes.book_mut().remove(name);
        }
        Ok(Err(Some(told?)))
    }

    /// Remembers how far a key's request has come, if it is open, and says when that is on the disk.
    pub(in crate::memory) async fn advance_durable_key(
        self: &Arc<Self>,
        identity: &Identity,
        id: KeyId,
        progress: Progress,
    ) -> Result<(), StoreError> {
        let Some(cell) = self.cell(identity) else {
            return Ok(());
        };
        let told = {
            let mut lanes = self.lanes(&cell);
            let Some(record) = lanes.book_mut().get_mut(Name::key(id)) else {
                return Ok(());
            };
            if !record.is_open() {
                return Ok(());
            }
            record.progress = progress;
            let record = lanes.book().get(Name::key(id));
            record.map(|record| self.append_key(&cell, id, record, Kind::Note))
        };
        match told {
            Some(told) => Self::change_written(told?).await,
            None => Ok(()),
        }
    }

    pub(in crate::memory) fn forget_durable_key(
        self: &Arc<Self>,
        identity: &Identity,
        id: KeyId,
    ) -> Result<(), StoreError> {
        let Some(cell) = self.cell(identity) else {
            return Ok(());
        };
        let mut lanes = self.lanes(&cell);
        let record = lanes.book().get(Name::key(id));
        if record.is_some_and(BookRecord::is_open) {
            lanes.book_mut().remove(Name::key(id));
            let record = Record::KeyForgotten(cell.identity.clone(), id).encode();
            self.leave(&cell, Kind::Aside, record, |_, _, _| {})?;
        }
        Ok(())
    }

    /// Leaves the record of a key to the log.
    pub(super) fn append_key(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        id: KeyId,
        record: &BookRecord,
        kind: Kind,
    ) -> Result<Told, StoreError> {
        let name = Name::key(id);
        let key = Key::of(cell, id, record).encode();
        self.append(cell, kind, key, move |engine, cell, result| {
            let mut lanes = engine.lanes(cell);
            match result {
                Ok(location) => {
                    if let Some(record) = lanes.book_mut().get_mut(name) {
                        record.stored = Some(location);
                    }
                }
                // It never began.
                Err(_) if kind == Kind::Promise => {
                    lanes.book_mut().remove(name);
                }
                Err(_) => {}
            }
        })
    }
}

impl Key {
    /// The record of a key, as it is.
    pub(super) fn of(cell: &Cell, id: KeyId, record: &BookRecord) -> Record<'static> {
        Record::Key(Self {
            identity: cell.identity.clone(),
            id,
            fingerprint: record.fingerprint,
            began_at: record.began_at,
            state: record.key_state(),
        })
    }
}
