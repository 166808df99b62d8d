//! Dead letters of both boxes: what they said, their replay, their end.
//!
//! ```text
//!   dead --replay--> its successor is storing ---(flushed)---> it waits, and the letter is gone
//!    |  ^                    `-------------------(no room)----.
//!    |  `------------------------------------------------------'
//!    `--discard--> gone
//! ```
//!
//! What ends a dead letter is a record that follows its own, and in a replay that of its successor: a crash between the
//! two leaves both, never neither.

use std::sync::Arc;

use iothub::{CloudMessage, Identity};

use super::{
    super::{
        Engine, Location, book,
        cell::Cell,
        lanes::{self, Lanes},
        mailbox::{self, Mailbox},
        partitioned::page_of,
        token::Token,
    },
    Told,
    record::{Arrived, Record, Said, encode_work, said},
    written,
};
use crate::{
    ArrivalId, ConnectionEpoch, EntryId, OutboxDeadLetter, Page, Partition, ReplayError,
    Settlement, StoreError, Work, log::Kind,
};

/// A dead letter of one of the boxes.
pub(in crate::memory) trait Letter: Send + Sized + 'static {
    /// What it is called within its device.
    type Name: Copy + Send + 'static;
    /// What it says.
    type Said: Send + 'static;

    /// Looks for it.
    fn find(cell: &Cell, name: Self::Name) -> Option<Self>;

    /// Where its record is, if it has one.
    fn stored(&self) -> Option<Location>;

    /// What its record says, if it is one of this box.
    fn said(said: Said) -> Option<Self::Said>;
}

/// What the record of a message says that is tied to its connection, and so has none.
pub(in crate::memory) struct Tied(Arrived);

/// A dead letter, and what it said unless that was not kept or is damaged.
pub(in crate::memory) type Read<L> = (L, Option<<L as Letter>::Said>);

impl Letter for book::Dead {
    type Name = EntryId;
    type Said = Work;

    fn find(cell: &Cell, name: EntryId) -> Option<Self> {
        let lanes = cell.lanes.lock();
        lanes.book().dead().find(|dead| dead.id == name).cloned()
    }

    fn stored(&self) -> Option<Location> {
        Some(self.stored)
    }

    fn said(said: Said) -> Option<Work> {
        said.into_work()
    }
}

impl Letter for mailbox::Dead {
    type Name = u64;
    type Said = Arc<CloudMessage>;

    fn find(cell: &Cell, name: u64) -> Option<Self> {
        cell.mailbox.lock().find_dead(name).cloned()
    }

    fn stored(&self) -> Option<Location> {
        self.stored
    }

    fn said(said: Said) -> Option<Arc<CloudMessage>> {
        said.into_message()
    }
}

impl Engine {
    /// Reads a dead letter; `None` if there is none.
    pub(in crate::memory) async fn dead_letter<L: Letter>(
        self: &Arc<Self>,
        identity: &Identity,
        name: L::Name,
    ) -> Result<Option<Read<L>>, StoreError> {
        let Some(cell) = self.cell(identity) else {
            return Ok(None);
        };
        let engine = Arc::clone(self);
        tokio::task::spawn_blocking(move || engine.read_dead_letter(&cell, name))
            .await
            .unwrap_or(Err(StoreError::UnknownOutcome))
    }

    fn read_dead_letter<L: Letter>(
        &self,
        cell: &Cell,
        name: L::Name,
    ) -> Result<Option<Read<L>>, StoreError> {
        let mut tried = None;
        loop {
            let Some(letter) = L::find(cell, name) else {
                return Ok(None);
            };
            let Some(stored) = letter.stored() else {
                return Ok(Some((letter, None)));
            };
            match self.log()?.read(stored) {
                Ok(record) => {
                    let said = record.as_deref().and_then(said).and_then(L::said);
                    return Ok(Some((letter, said)));
                }
                // Its segment may have been cleaned meanwhile.
                Err(_) if tried != Some(stored) => tried = Some(stored),
                Err(error) => {
                    tracing::error!(%error, "a dead letter cannot be read");
                    return Err(StoreError::Unavailable);
                }
            }
        }
    }

    async fn said_to_replay<L: Letter>(
        self: &Arc<Self>,
        identity: &Identity,
        name: L::Name,
    ) -> Result<L::Said, ReplayError> {
        let letter = self.dead_letter::<L>(identity, name).await?;
        let (_, said) = letter.ok_or(ReplayError::Unknown)?;
        said.ok_or(ReplayError::NotKept)
    }

    /// Dead letters of the outbox.
    pub(in crate::memory) fn unsent(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Page<OutboxDeadLetter> {
        let mut letters = Vec::new();
        for cell in self.cells.in_partition(partition) {
            let lanes = cell.lanes.lock();
            letters.extend(lanes.book().dead().map(|dead| {
                // No id has a space; the width makes the text's order that of the numbers.
                let key = format!("{} {:020}", cell.identity, dead.id.0);
                (key, dead.to_letter(&cell.identity))
            }));
        }
        page_of(letters, after)
    }

    pub(in crate::memory) async fn replay_unsent(
        self: &Arc<Self>,
        identity: &Identity,
        id: EntryId,
    ) -> Result<(), ReplayError> {
        let work = self.said_to_replay::<book::Dead>(identity, id).await?;
        let encoded = encode_work(&work).ok_or(ReplayError::NotKept)?;
        let cell = self.cell(identity).ok_or(ReplayError::Unknown)?;
        let told = self.begin_replay(&cell, id, work, &encoded)?;
        Ok(written(told).await?)
    }

    fn begin_replay(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        id: EntryId,
        work: Work,
        encoded: &[u8],
    ) -> Result<Told, ReplayError> {
        let mut lanes = self.lanes(cell);
        let (entries, bytes) = lanes.bounded();
        let size = work.size();
        let config = &self.config;
        if entries >= config.outbox_entries || bytes.saturating_add(size) > config.outbox_bytes {
            return Err(ReplayError::Full);
        }
        let dead = lanes.book_mut().exhume(id).ok_or(ReplayError::Unknown)?;
        let (submission, lane) = (dead.submission, dead.lane);
        // Its receipt says again that it waits.
        let record = lanes.book_mut().remove(book::Name::submission(submission));
        let fresh = lanes::Fresh {
            id: submission,
            fingerprint: record.and_then(|record| record.fingerprint),
            lane,
            work: self.reserve(size).then(|| Arc::new(work)),
            keeping: lanes::Keeping::Storing,
            deadline: None,
            accepted_at: dead.accepted_at,
            size,
        };
        let (entry, _, _) = lanes.push(fresh, self.now());
        let again = dead.clone();
        let told = self.append_stored(
            cell,
            &lanes,
            submission,
            encoded,
            move |engine, cell, result| {
                if engine.entry_written(cell, lane, entry, result) {
                    engine.announce(cell);
                }
                if result.is_err() {
                    engine.bury_again(&mut engine.lanes(cell), again);
                }
            },
        );
        if told.is_err() {
            self.entry_lost(&mut lanes, lane, entry);
            self.bury_again(&mut lanes, dead);
        }
        Ok(told?)
    }

    pub(in crate::memory) async fn discard_unsent(
        self: &Arc<Self>,
        identity: &Identity,
        id: EntryId,
    ) -> Result<bool, StoreError> {
        let Some(cell) = self.cell(identity) else {
            return Ok(false);
        };
        let told = {
            let mut lanes = self.lanes(&cell);
            let Some(dead) = lanes.book_mut().exhume(id) else {
                return Ok(false);
            };
            let record = Record::Discarded(cell.identity.clone(), id).encode();
            let told = self.append(&cell, Kind::Note, record, |_, _, _| {});
            if told.is_err() {
                self.bury_again(&mut lanes, dead);
            }
            told?
        };
        Self::change_written(told).await?;
        Ok(true)
    }

    fn bury_again(&self, lanes: &mut Lanes, dead: book::Dead) {
        lanes.bury(dead, self.config.dead_letters);
    }

    /// A message that is tied to its connection, if a settlement with this token may make a dead letter of it and there is
    /// a disk to keep that.
    pub(in crate::memory) fn tied_that_may_die(
        &self,
        cell: &Cell,
        mailbox: &Mailbox,
        token: Token,
        settlement: Settlement,
    ) -> Option<Tied> {
        if settlement == Settlement::Complete || self.log().is_err() {
            return None;
        }
        let mut messages = mailbox.messages();
        let has_token = |message: &&mailbox::Message| message.tokens().any(|own| own == token);
        let message = messages.find(|message| message.is_tied && has_token(message))?;
        Some(Tied(Arrived::of(cell, message)))
    }

    /// Keeps what a message said if it is a dead letter now: the hub hears that it is done with, so nobody else has it.
    /// Nobody waits for that, as a device's word about a message of the hub's needs no disk.
    pub(in crate::memory) fn keep_dead_letter(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        mailbox: &Mailbox,
        Tied(arrived): Tied,
    ) {
        let sequence = arrived.sequence;
        let Some(dead) = mailbox.find_dead(sequence) else {
            return;
        };
        let arrived = Arrived {
            delivery_count: dead.letter.delivery_count,
            ..arrived
        };
        let record = Record::DeadMessage(arrived, dead.reason, dead.letter.at).encode();
        let kept = self.leave(cell, Kind::Aside, record, move |engine, cell, result| {
            if let Ok(location) = result {
                engine.mailbox(cell).stored(sequence, location);
            }
        });
        if let Err(error) = kept {
            tracing::debug!(%error, "what a dead letter said is not kept");
        }
    }

    pub(in crate::memory) async fn replay_message(
        self: &Arc<Self>,
        identity: &Identity,
        sequence: u64,
    ) -> Result<(), ReplayError> {
        let said = self.said_to_replay::<mailbox::Dead>(identity, sequence);
        let message = said.await?;
        let cell = self.cell(identity).ok_or(ReplayError::Unknown)?;
        let fresh = mailbox::Fresh {
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
            keeping: mailbox::Keeping::Storing,
        };
        let told = self.begin_replay_of_message(&cell, sequence, fresh)?;
        Ok(written(told).await?)
    }

    fn begin_replay_of_message(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        sequence: u64,
        fresh: mailbox::Fresh,
    ) -> Result<Told, ReplayError> {
        let mut mailbox = self.mailbox(cell);
        if mailbox.find_dead(sequence).is_none() {
            return Err(ReplayError::Unknown);
        }
        let offered = mailbox.offer(self.owner_of(cell), fresh, self.now());
        let offered = offered.map_err(|_| ReplayError::Full)?;
        let again = offered.fresh.ok_or(ReplayError::Full)?;
        let dead = mailbox.exhume(sequence).ok_or(ReplayError::Unknown)?;
        let undo = dead.clone();
        let told = self.append_arrived(cell, &mut mailbox, again, move |engine, mailbox| {
            engine.bury_message_again(mailbox, undo);
        });
        match told {
            Ok(told) => {
                if let Err(error) = self.note_change(cell, dead.settled_for_good()) {
                    tracing::debug!(%error, "a dead letter that is replayed is still one after the restart");
                }
                Ok(told)
            }
            Err(error) => {
                self.bury_message_again(&mut mailbox, dead);
                Err(error.into())
            }
        }
    }

    pub(in crate::memory) async fn discard_message(
        self: &Arc<Self>,
        identity: &Identity,
        sequence: u64,
    ) -> Result<bool, StoreError> {
        let Some(cell) = self.cell(identity) else {
            return Ok(false);
        };
        let told = {
            let mut mailbox = self.mailbox(&cell);
            let Some(dead) = mailbox.exhume(sequence) else {
                return Ok(false);
            };
            if self.log().is_err() {
                return Ok(true);
            }
            let told = self.note_change(&cell, dead.settled_for_good());
            if told.is_err() {
                self.bury_message_again(&mut mailbox, dead);
            }
            told?
        };
        Self::change_written(told).await?;
        Ok(true)
    }

    fn bury_message_again(&self, mailbox: &mut Mailbox, dead: mailbox::Dead) {
        mailbox.bury(self.config.dead_letters, dead);
    }
}

impl book::Dead {
    /// The letter, as an operator sees it.
    pub(in crate::memory) fn to_letter(&self, identity: &Identity) -> OutboxDeadLetter {
        OutboxDeadLetter {
            identity: identity.clone(),
            id: self.id,
            submission: self.submission,
            lane: self.lane,
            bytes: self.size,
            accepted_at: self.accepted_at,
            attempts: self.attempts,
            failure: self.failure.clone(),
            at: self.at,
        }
    }
}
