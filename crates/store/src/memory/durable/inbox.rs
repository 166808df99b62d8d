//! Durable messages of the inbox.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        Engine, Location,
        cell::Cell,
        mailbox::{Change, Mailbox},
    },
    Told,
    record::{Arrived, Changed, Record},
    written,
};
use crate::{
    AppendError, ArrivalId, StoreError,
    log::{Kind, NotWritten},
};

impl Engine {
    /// Leaves the record of a message that has just come to the log.
    pub(in crate::memory) fn append_arrived(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        mailbox: &mut Mailbox,
        sequence: u64,
        undo: impl FnOnce(&Self, &mut Mailbox) + Send + 'static,
    ) -> Result<Told, StoreError> {
        let arrived = mailbox.message(sequence).ok_or(StoreError::Unavailable)?;
        let record = Record::Arrived(Arrived::of(cell, arrived)).encode();
        let told = self.append(cell, Kind::Promise, record, move |engine, cell, result| {
            engine.message_written(cell, sequence, result, undo);
        });
        if told.is_err() {
            mailbox.not_stored(sequence);
        }
        told
    }

    fn message_written(
        &self,
        cell: &Cell,
        sequence: u64,
        result: Result<Location, NotWritten>,
        undo: impl FnOnce(&Self, &mut Mailbox),
    ) {
        let mut mailbox = self.mailbox(cell);
        match result {
            Ok(location) => mailbox.stored(sequence, location),
            Err(_) => {
                mailbox.not_stored(sequence);
                undo(self, &mut mailbox);
            }
        }
        drop(mailbox);
        cell.changed.beat();
    }

    /// Waits until a message that is there is on the disk, if it is on its way. False if it did not get there.
    pub(in crate::memory) async fn arrival_written(
        &self,
        cell: &Cell,
        arrival: ArrivalId,
    ) -> Result<(), AppendError> {
        let is_on_its_way = cell.mailbox.lock().is_on_its_way(arrival);
        if is_on_its_way {
            self.barrier().await?;
        }
        Ok(())
    }

    /// Notes what a settlement did to a message, and says when that is on the disk.
    pub(in crate::memory) fn note_change(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        change: Change,
    ) -> Result<Told, StoreError> {
        let changed = Changed {
            identity: cell.identity.clone(),
            sequence: change.sequence,
            arrival: change.arrival,
            token: change.token,
            settlement: change.settlement,
            delivery_count: change.delivery_count,
            is_gone: change.is_gone,
            died: change.died,
            at: self.clock.timestamp(),
        };
        let record = Record::Changed(changed).encode();
        self.append(cell, Kind::Note, record, |_, _, _| {})
    }

    /// Waits until a settlement is on the disk, though not for ever: a full disk keeps it waiting.
    pub(in crate::memory) async fn change_written(told: Told) -> Result<(), StoreError> {
        tokio::time::timeout(PATIENCE, written(told))
            .await
            .unwrap_or(Err(StoreError::UnknownOutcome))
    }
}

impl Arrived {
    /// The record of a message that is offered.
    pub(super) fn of(cell: &Cell, message: &super::super::mailbox::Message) -> Self {
        Self {
            identity: cell.identity.clone(),
            sequence: message.sequence,
            arrival: message.arrival,
            token: message.token,
            arrived_at: message.arrived_at,
            expires_at: message.expires_at,
            delivery_count: message.delivery_count,
            message: Arc::clone(&message.message),
        }
    }
}

/// How long a settlement waits for a full disk before its outcome is called unknown.
const PATIENCE: Duration = Duration::from_secs(5);
