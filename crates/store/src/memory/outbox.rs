//! The outbox of all devices: bounds, wake-ups, readers.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use async_trait::async_trait;
use iothub::Identity;

use super::{
    Engine, Memory, Moment,
    book::{Dead, Reused},
    cell::Cell,
    counted::Counted,
    lanes::{Bounds, Fresh, Keeping, Lanes, ReaderId, Settled, Taken, is_bounded},
    partitioned::page_of,
};
use crate::{
    EntryId, Failure, GivenUp, Lane, LaneSet, Outbox, OutboxDeadLetter, OutboxEntry, OutboxReader,
    Outcome, Page, Partition, PersistError, ReplayError, SessionLease, Stock, StoreError,
    Submission, SubmissionId, SubmitError, Survival, Ticket, Work,
};

#[async_trait]
impl Outbox for Memory {
    fn is_durable(&self) -> bool {
        self.0.log().is_ok()
    }

    async fn submit(&self, submission: Submission) -> Result<Ticket<Outcome>, SubmitError> {
        let engine = &self.0;
        let Survival::Ephemeral { deadline } = submission.survival else {
            return engine.submit_durable(submission).await;
        };
        let now = engine.now();
        engine.tidy_some(now);
        let cell = engine.cell_or_new(&submission.identity);
        let fresh = Fresh {
            id: submission.id,
            fingerprint: submission.fingerprint,
            lane: submission.work.lane(),
            size: submission.work.size(),
            work: Some(submission.work),
            keeping: Keeping::Ephemeral,
            deadline: Some(deadline),
            accepted_at: now.timestamp,
        };
        let (ticket, was_empty) = engine.put(&cell, fresh, now)?;
        if was_empty {
            cell.submitted.ring();
        }
        engine.want(&cell, now.instant);
        Ok(ticket)
    }

    async fn persist(&self, identity: &Identity, id: SubmissionId) -> Result<(), PersistError> {
        self.0.persist_entry(identity, id).await
    }

    async fn take_back(&self, identity: &Identity, id: SubmissionId) -> Result<bool, StoreError> {
        let engine = &self.0;
        let Some(cell) = engine.cells.get(identity) else {
            return Ok(false);
        };
        let (entry, is_not_sent) = engine.lanes(&cell).take_back(id, engine.now());
        if let Some(entry) = entry {
            let freed = entry.held_bytes();
            engine.outbox_bytes.fetch_sub(freed, Ordering::Relaxed);
            entry.resolve(Err(Failure::NoSession));
        }
        Ok(is_not_sent)
    }

    async fn open(
        &self,
        lease: &SessionLease,
        identity: &Identity,
    ) -> Result<Box<dyn OutboxReader>, StoreError> {
        let engine = &self.0;
        let cell = engine.cell_or_new(identity);
        let standing = engine.tenures.standing(lease, cell.partition)?;
        let id = cell.lanes.lock().open();
        drop(standing);
        // The older reader may wait; it is to learn that it is out.
        cell.submitted.ring();
        Ok(Box::new(Reader {
            engine: Arc::clone(engine),
            cell,
            lease: lease.clone(),
            id,
        }))
    }

    async fn backlog(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<Identity>, StoreError> {
        let cells = self.0.cells.in_partition(partition).into_iter();
        let waiting = cells
            .filter(|cell| cell.lanes.lock().has_waiting())
            .map(|cell| (cell.identity.to_string(), cell.identity.clone()));
        Ok(page_of(waiting.collect(), after))
    }

    async fn dead_letters(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<OutboxDeadLetter>, StoreError> {
        Ok(self.0.unsent(partition, after))
    }

    async fn dead_letter(
        &self,
        identity: &Identity,
        id: EntryId,
    ) -> Result<Option<(OutboxDeadLetter, Option<Work>)>, StoreError> {
        let read = self.0.dead_letter::<Dead>(identity, id).await?;
        Ok(read.map(|(dead, work)| (dead.to_letter(identity), work)))
    }

    async fn replay(&self, identity: &Identity, id: EntryId) -> Result<(), ReplayError> {
        self.0.replay_unsent(identity, id).await
    }

    async fn discard(&self, identity: &Identity, id: EntryId) -> Result<bool, StoreError> {
        self.0.discard_unsent(identity, id).await
    }

    async fn stock(&self, partition: Partition) -> Result<Stock, StoreError> {
        let cells = self.0.cells.in_partition(partition).into_iter();
        Ok(cells.map(|cell| cell.lanes.lock().stock()).sum())
    }

    async fn stock_of(&self, identity: &Identity) -> Result<Stock, StoreError> {
        let cell = self.0.cell(identity);
        Ok(cell.map_or_else(Stock::default, |cell| cell.lanes.lock().stock()))
    }
}

impl Engine {
    /// Puts an entry into a device's lane, or finds it there. The second answer is whether a reader may have to wake.
    fn put(
        &self,
        cell: &Cell,
        fresh: Fresh,
        now: Moment,
    ) -> Result<(Ticket<Outcome>, bool), SubmitError> {
        let in_all = self.outbox_bytes.load(Ordering::Relaxed);
        if in_all.saturating_add(fresh.size) > self.config.outbox_bytes_in_all {
            // Other devices' entries may be overdue without anybody having met them.
            self.tidy_all(now);
        }
        let mut lanes = self.lanes(cell);
        match lanes.rejoin(fresh.id, fresh.fingerprint, fresh.lane) {
            Ok(Some(ticket)) => return Ok((ticket, false)),
            Ok(None) => {}
            Err(Reused) => return Err(SubmitError::KeyReused),
        }
        let freed = lanes.give_up_overdue(now);
        self.outbox_bytes.fetch_sub(freed, Ordering::Relaxed);
        self.check_bounds(&mut lanes, &fresh, now)?;
        if !self.reserve(fresh.size) {
            return Err(SubmitError::Full);
        }
        let (_, ticket, was_empty) = lanes.push(fresh, now);
        Ok((ticket, was_empty))
    }

    /// Checks that a device may have one more entry.
    pub(super) fn check_bounds(
        &self,
        lanes: &mut Lanes,
        fresh: &Fresh,
        now: Moment,
    ) -> Result<(), SubmitError> {
        let (entries, bytes) = lanes.bounded();
        let is_full = entries >= self.config.outbox_entries
            || bytes.saturating_add(fresh.size) > self.config.outbox_bytes;
        if is_full && is_bounded(fresh.lane) {
            return Err(SubmitError::DeviceFull { entries, bytes });
        }
        if fresh.fingerprint.is_some() {
            self.check_keys(lanes, now).map_err(|full| match full {
                KeysFull::OfDevice { limit } => SubmitError::TooManyKeys { limit },
                KeysFull::InAll => SubmitError::Full,
            })?;
        }
        Ok(())
    }

    /// Checks that a device may have one more key.
    pub(super) fn check_keys(&self, lanes: &mut Lanes, now: Moment) -> Result<(), KeysFull> {
        lanes.book_mut().forget(now.instant);
        if lanes.book().keyed() >= self.config.keys {
            let limit = self.config.keys;
            return Err(KeysFull::OfDevice { limit });
        }
        if self.keys.load(Ordering::Relaxed) >= self.config.keys_in_all {
            return Err(KeysFull::InAll);
        }
        Ok(())
    }

    /// The lanes of a device, locked.
    pub(super) fn lanes<'a>(&'a self, cell: &'a Cell) -> Counted<'a, Lanes> {
        Counted::lock(&cell.lanes, &self.keys)
    }

    /// Whether what is on the disk is to leave its room in memory to what is not.
    pub(super) fn is_half_full(&self) -> bool {
        self.outbox_bytes.load(Ordering::Relaxed) > self.config.outbox_bytes_in_all / 2
    }

    /// Gives back bytes to the bound of all devices.
    pub(super) fn free_outbox_bytes(&self, bytes: usize) {
        self.outbox_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes bytes from the bound of all devices, if there are as many left.
    pub(super) fn reserve(&self, size: usize) -> bool {
        let bound = self.config.outbox_bytes_in_all;
        let before = self.outbox_bytes.fetch_add(size, Ordering::Relaxed);
        let fits = before.saturating_add(size) <= bound;
        if !fits {
            self.outbox_bytes.fetch_sub(size, Ordering::Relaxed);
        }
        fits
    }
}

/// Which bound of keys is reached.
pub(super) enum KeysFull {
    OfDevice { limit: usize },
    InAll,
}

struct Reader {
    engine: Arc<Engine>,
    cell: Arc<Cell>,
    lease: SessionLease,
    id: ReaderId,
}

#[async_trait]
impl OutboxReader for Reader {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<LaneSet> {
        self.cell.submitted.listen(cx);
        let lanes = self.cell.lanes.lock();
        // A reader that is out is to learn it from `take`.
        let ready = if lanes.is_open_for(self.id) {
            lanes.ready()
        } else {
            LaneSet::ALL
        };
        if ready.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(ready)
        }
    }

    async fn take(&mut self, lane: Lane, max: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        let now = self.engine.now();
        let (taken, freed) = self.with_lanes(|lanes| lanes.take(lane, max, now))?;
        self.engine.outbox_bytes.fetch_sub(freed, Ordering::Relaxed);
        if taken.iter().all(Taken::is_held) {
            return Ok(taken.into_iter().filter_map(Taken::into_held).collect());
        }
        let mut entries = Vec::with_capacity(taken.len());
        for read in self.engine.read_taken(&self.cell, lane, taken).await? {
            match read {
                Ok(entry) => entries.push(entry),
                Err(damaged) => self.settle(damaged, Err(Failure::Damaged)).await?,
            }
        }
        Ok(entries)
    }

    async fn settle(&mut self, id: EntryId, outcome: Outcome) -> Result<(), StoreError> {
        if outcome.is_ok() && self.with_lanes(|lanes| lanes.is_after_a_noted_patch(id))? {
            self.engine.barrier().await?;
            self.with_lanes(Lanes::patches_are_flushed)?;
        }
        self.with_lanes(|lanes| self.settle_in(lanes, id, outcome))
    }

    async fn give_up(&mut self, id: EntryId, failure: Failure) -> Result<GivenUp, StoreError> {
        // Looked at and settled under one lock: it may become durable at any moment.
        self.with_lanes(|lanes| {
            if lanes.is_to_be_kept(id) {
                return GivenUp::Kept;
            }
            self.settle_in(lanes, id, Err(failure));
            GivenUp::Settled
        })
    }
}

impl Reader {
    /// Settles, and resolves tickets while the lanes are locked: whoever sees there that an entry is settled, as one does who
    /// wants it persisted, finds its ticket resolved.
    fn settle_in(&self, lanes: &mut Lanes, id: EntryId, outcome: Outcome) {
        let bounds = Bounds {
            receipts: self.engine.config.keys,
            dead_letters: self.engine.config.dead_letters,
        };
        match lanes.settle(id, &outcome, bounds, self.engine.now()) {
            Settled::Nothing => {}
            Settled::PutBack => self.cell.submitted.ring(),
            Settled::Gone(entry) => {
                self.engine.note_settled(&self.cell, lanes, &entry);
                self.engine.free_outbox_bytes(entry.held_bytes());
                entry.resolve(outcome);
            }
        }
    }

    /// Works on the lanes if this is still their reader, and its lease stands.
    fn with_lanes<T>(&self, work: impl FnOnce(&mut Lanes) -> T) -> Result<T, StoreError> {
        let _standing = self
            .engine
            .tenures
            .standing(&self.lease, self.cell.partition)?;
        let mut lanes = self.engine.lanes(&self.cell);
        if lanes.is_open_for(self.id) {
            Ok(work(&mut lanes))
        } else {
            Err(StoreError::Stale)
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.cell.lanes.lock().close(self.id) {
            let now = self.engine.clock.instant();
            self.engine.want(&self.cell, now);
        }
    }
}
