//! Durable messages of the inbox.

use std::{sync::Arc, time::Duration};

use iothub::{CloudMessage, Identity};

use super::{
    super::{
        Engine, Location,
        cell::Cell,
        mailbox::{Change, Dead, Fresh, Keeping, Mailbox},
        token::Token,
    },
    Told,
    record::{Arrived, Changed, Record},
    written,
};
use crate::{
    AppendError, ArrivalId, ConnectionEpoch, ReplayError, StoreError,
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

    /// What a dead letter said; `None` if there is none, or its record is damaged.
    pub(in crate::memory) async fn read_dead(
        self: &Arc<Self>,
        identity: &Identity,
        sequence: u64,
    ) -> Result<Option<Arc<CloudMessage>>, StoreError> {
        let Some(cell) = self.cell(identity) else {
            return Ok(None);
        };
        let engine = Arc::clone(self);
        let read = move || {
            let mut tried = None;
            loop {
                let found = cell.mailbox.lock().dead_stored_at(sequence);
                let Some(found) = found else {
                    return Ok(None);
                };
                match engine.log()?.read(found) {
                    Ok(bytes) => return Ok(bytes.as_deref().and_then(message_of)),
                    // Its segment may have been cleaned meanwhile.
                    Err(_) if tried != Some(found) => tried = Some(found),
                    Err(error) => {
                        tracing::error!(%error, "a dead letter cannot be read");
                        return Err(StoreError::Unavailable);
                    }
                }
            }
        };
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or(Err(StoreError::UnknownOutcome))
    }

    pub(in crate::memory) async fn replay_dead(
        self: &Arc<Self>,
        identity: &Identity,
        sequence: u64,
    ) -> Result<(), ReplayError> {
        let cell = self.cell(identity).ok_or(ReplayError::Unknown)?;
        let is_there = cell.mailbox.lock().is_dead(sequence);
        let message = match (self.read_dead(identity, sequence).await?, is_there) {
            (Some(message), _) => message,
            (None, true) => return Err(ReplayError::NotKept),
            (None, false) => return Err(ReplayError::Unknown),
        };
        let fresh = Fresh {
            // No connection brings it: the hub has been told long ago.
            arrival: ArrivalId {
                connection: ConnectionEpoch(0),
                number: sequence,
            },
            token: Token::random()?,
            message,
            delivery_count: 0,
            arrived_at: self.clock.timestamp(),
            expires_at: None,
            is_tied: false,
            keeping: Keeping::Storing,
        };
        let told = self.begin_replay_of_message(&cell, sequence, fresh)?;
        Ok(written(told).await?)
    }

    fn begin_replay_of_message(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        sequence: u64,
        fresh: Fresh,
    ) -> Result<Told, ReplayError> {
        let mut mailbox = self.mailbox(cell);
        if !mailbox.is_dead(sequence) {
            return Err(ReplayError::Unknown);
        }
        let offered = mailbox.offer(self.owner_of(cell), fresh);
        let offered = offered.map_err(|_| ReplayError::Full)?;
        let again = offered.fresh.ok_or(ReplayError::Full)?;
        let dead = mailbox.exhume(sequence).ok_or(ReplayError::Unknown)?;
        let undo = dead.clone();
        let told = self.append_arrived(cell, &mut mailbox, again, move |engine, mailbox| {
            engine.bury_message_again(mailbox, undo);
        });
        match told {
            Ok(told) => {
                self.note_exhumed(cell, &dead);
                Ok(told)
            }
            Err(error) => {
                self.bury_message_again(&mut mailbox, dead);
                Err(error.into())
            }
        }
    }

    /// Notes that a dead letter is none any more. The record follows that of its successor: a crash between the two
    /// leaves both.
    fn note_exhumed(self: &Arc<Self>, cell: &Arc<Cell>, dead: &Dead) {
        let change = dead.settled_for_good();
        if let Err(error) = self.note_change(cell, change) {
            tracing::debug!(%error, "a dead letter that is replayed is still one after the restart");
        }
    }

    fn bury_message_again(&self, mailbox: &mut Mailbox, dead: Dead) {
        mailbox.bury(self.config.dead_letters, dead);
    }
}

fn message_of(record: &[u8]) -> Option<Arc<CloudMessage>> {
    match Record::decode(record)? {
        Record::Arrived(arrived) | Record::DeadMessage(arrived, ..) => Some(arrived.message),
        Record::Stored(_)
        | Record::Settled(_)
        | Record::Dead(..)
        | Record::Key(_)
        | Record::KeyForgotten(..)
        | Record::Changed(_)
        | Record::Barrier => None,
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
