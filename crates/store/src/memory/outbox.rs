//! The outbox of all devices: bounds, wake-ups, readers.

use std::sync::{Arc, atomic::Ordering};

use async_trait::async_trait;
use iothub::Identity;

use super::{
    Engine, Memory, Moment,
    cell::Cell,
    lanes::{Ephemeral, Lanes, ReaderId, is_bounded},
    partitioned::page_of,
};
use crate::{
    EntryId, Lane, Outbox, OutboxEntry, OutboxReader, Outcome, Page, Partition, SessionLease,
    StoreError, Submission, SubmissionId, SubmitError, Survival, Ticket,
};

#[async_trait]
impl Outbox for Memory {
    async fn submit(&self, submission: Submission) -> Result<Ticket<Outcome>, SubmitError> {
        let engine = &self.0;
        let Survival::Ephemeral { deadline } = submission.survival else {
            return Err(StoreError::Volatile.into());
        };
        let now = engine.now();
        engine.tidy_some(now);
        let cell = engine.cell_or_new(&submission.identity);
        let ephemeral = Ephemeral {
            id: submission.id,
            size: submission.work.size(),
            work: submission.work,
            deadline,
        };
        let (ticket, was_empty) = engine.put(&cell, ephemeral, now)?;
        if was_empty {
            cell.submitted.beat();
        }
        engine.want(&cell, now.instant);
        Ok(ticket)
    }

    async fn persist(&self, _identity: &Identity, _id: SubmissionId) -> Result<(), StoreError> {
        Err(StoreError::Volatile)
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
        cell.submitted.beat();
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
}

impl Engine {
    /// Puts an entry into a device's lane, or finds it there. The second answer is whether a reader may have to wake.
    fn put(
        &self,
        cell: &Cell,
        submission: Ephemeral,
        now: Moment,
    ) -> Result<(Ticket<Outcome>, bool), SubmitError> {
        let in_all = self.outbox_bytes.load(Ordering::Relaxed);
        if in_all.saturating_add(submission.size) > self.config.outbox_bytes_in_all {
            // Other devices' entries may be overdue without anybody having met them.
            self.tidy_all(now);
        }
        let mut lanes = cell.lanes.lock();
        if let Some(ticket) = lanes.rejoin(submission.id) {
            return Ok((ticket, false));
        }
        let freed = lanes.give_up_overdue(now.instant);
        self.outbox_bytes.fetch_sub(freed, Ordering::Relaxed);
        let (entries, bytes) = lanes.bounded();
        let is_full = entries >= self.config.outbox_entries
            || bytes.saturating_add(submission.size) > self.config.outbox_bytes;
        if is_full && is_bounded(submission.work.lane()) {
            return Err(SubmitError::DeviceFull { entries, bytes });
        }
        if !self.reserve(submission.size) {
            return Err(SubmitError::Full);
        }
        Ok(lanes.push(submission, now.timestamp))
    }

    /// Takes bytes from the bound of all devices, if there are as many left.
    fn reserve(&self, size: usize) -> bool {
        let bound = self.config.outbox_bytes_in_all;
        let before = self.outbox_bytes.fetch_add(size, Ordering::Relaxed);
        let fits = before.saturating_add(size) <= bound;
        if !fits {
            self.outbox_bytes.fetch_sub(size, Ordering::Relaxed);
        }
        fits
    }
}

struct Reader {
    engine: Arc<Engine>,
    cell: Arc<Cell>,
    lease: SessionLease,
    id: ReaderId,
}

#[async_trait]
impl OutboxReader for Reader {
    async fn ready(&mut self) {
        loop {
            let seen = self.cell.submitted.count();
            {
                let lanes = self.cell.lanes.lock();
                // A reader that is out is to learn it from `take`.
                if lanes.is_ready() || !lanes.is_open_for(self.id) {
                    return;
                }
            }
            self.cell.submitted.after(seen).await;
        }
    }

    async fn take(&mut self, lane: Lane, max: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        let now = self.engine.clock.instant();
        let (entries, freed) = self.with_lanes(|lanes| lanes.take(lane, max, now))?;
        self.engine.outbox_bytes.fetch_sub(freed, Ordering::Relaxed);
        Ok(entries)
    }

    async fn settle(&mut self, id: EntryId, outcome: Outcome) -> Result<(), StoreError> {
        let now = self.engine.clock.instant();
        if let Some(entry) = self.with_lanes(|lanes| lanes.settle(id, &outcome, now))? {
            self.engine
                .outbox_bytes
                .fetch_sub(entry.size(), Ordering::Relaxed);
            entry.resolve(outcome);
        }
        Ok(())
    }
}

impl Reader {
    /// Works on the lanes if this is still their reader, and its lease stands.
    fn with_lanes<T>(&self, work: impl FnOnce(&mut Lanes) -> T) -> Result<T, StoreError> {
        let _standing = self
            .engine
            .tenures
            .standing(&self.lease, self.cell.partition)?;
        let mut lanes = self.cell.lanes.lock();
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
