//! Demand, attendance and status of all devices.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Instant,
};

use async_trait::async_trait;
use iothub::Identity;
use parking_lot::Mutex;

use super::{
    Engine, Memory, cell::Cell, partitioned::page_of, presence::AttendantId, pulse::Pulse,
};
use crate::{
    Demand, Needs, NeedsNow, NeedsWatch, NodeId, Page, Partition, SessionLease, SessionState,
    Signals, Status, StoreError, Watch,
};

/// The devices that want a session, in the order in which they began to.
pub(super) struct Wanted {
    /// A cell is in it once; its presence knows.
    cells: Mutex<VecDeque<Arc<Cell>>>,
    pulse: Pulse,
}

impl Wanted {
    pub(super) fn new() -> Self {
        Self {
            cells: Mutex::default(),
            pulse: Pulse::default(),
        }
    }

    /// Lets all nodes look again.
    pub(super) fn wake(&self) {
        self.pulse.beat();
    }

    fn push(&self, cell: Arc<Cell>) {
        self.cells.lock().push_back(cell);
        self.pulse.beat();
    }

    fn pop(&self, is_ours: impl Fn(&Cell) -> bool) -> Option<Arc<Cell>> {
        let mut cells = self.cells.lock();
        let at = cells.iter().position(|cell| is_ours(cell))?;
        cells.remove(at)
    }
}

impl Engine {
    /// Queues a device that has a need or entries, unless somebody attends.
    pub(super) fn want(&self, cell: &Arc<Cell>, now: Instant) {
        let mut presence = cell.presence.lock();
        let is_wanted = presence.is_needed() || cell.lanes.lock().unsettled() > 0;
        let is_queued = is_wanted && presence.enqueue(now, self.tenures.duration());
        // The queue is never locked under another lock: `hand_out` looks at tenures with the queue in its hand.
        drop(presence);
        if is_queued {
            self.wanted.push(Arc::clone(cell));
        }
    }

    /// A partition has another owner: sessions of the older one no longer keep its devices from being wanted.
    pub(super) fn hand_over(&self, partition: Partition, owner: &NodeId, now: Instant) {
        for cell in self.cells.in_partition(partition) {
            cell.presence.lock().hand_over(owner);
            self.want(&cell, now);
        }
        // What was queued already may be another node's now.
        self.wanted.wake();
    }

    fn hand_out(&self, node: &NodeId) -> Option<Identity> {
        let now = self.clock.instant();
        let is_ours = |cell: &Cell| self.tenures.is_free_for(node, cell.partition, now);
        while let Some(cell) = self.wanted.pop(is_ours) {
            let mut presence = cell.presence.lock();
            let is_wanted = presence.is_needed() || {
                let mut lanes = cell.lanes.lock();
                let freed = lanes.give_up_overdue(self.now());
                self.outbox_bytes.fetch_sub(freed, Ordering::Relaxed);
                lanes.unsettled() > 0
            };
            if presence.dequeue(is_wanted, node, now) {
                return Some(cell.identity.clone());
            }
        }
        None
    }
}

#[async_trait]
impl Signals for Memory {
    async fn demand(&self, identity: &Identity, needs: Needs) -> Result<Demand, StoreError> {
        let now = self.0.now();
        self.0.tidy_some(now);
        let cell = self.0.cell_or_new(identity);
        cell.presence.lock().begin(needs);
        cell.needs.ring();
        self.0.want(&cell, now.instant);
        let clock = Arc::clone(&self.0.clock);
        Ok(Demand::new(move || {
            cell.presence.lock().end(needs, clock.instant());
            cell.needs.ring();
        }))
    }

    async fn next_wanted(&self, node: &NodeId) -> Result<Identity, StoreError> {
        let wanted = &self.0.wanted;
        loop {
            let seen = wanted.pulse.count();
            if let Some(identity) = self.0.hand_out(node) {
                return Ok(identity);
            }
            wanted.pulse.after(seen).await;
        }
    }

    async fn attend(
        &self,
        lease: &SessionLease,
        identity: &Identity,
    ) -> Result<Box<dyn NeedsWatch>, StoreError> {
        let cell = self.0.cell_or_new(identity);
        let standing = self.0.tenures.standing(lease, cell.partition)?;
        let attendant = cell.presence.lock().attend();
        drop(standing);
        Ok(Box::new(Attendant {
            engine: Arc::clone(&self.0),
            cell,
            attendant,
            seen: None,
        }))
    }

    async fn set_status(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        status: Status,
    ) -> Result<(), StoreError> {
        let cell = self.0.cell_or_new(identity);
        let _standing = self.0.tenures.standing(lease, cell.partition)?;
        if cell.presence.lock().set_status(status) {
            cell.changed.beat();
        }
        Ok(())
    }

    async fn status(&self, identity: &Identity) -> Result<Status, StoreError> {
        let cell = self.0.cell(identity);
        Ok(cell.map_or_else(Status::default, |cell| {
            cell.presence.lock().status().clone()
        }))
    }

    async fn statuses(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<(Identity, Status)>, StoreError> {
        let cells = self.0.cells.in_partition(partition).into_iter();
        let open = cells
            .map(|cell| {
                let status = cell.presence.lock().status().clone();
                (cell.identity.to_string(), (cell.identity.clone(), status))
            })
            .filter(|(_, (_, status))| status.state != SessionState::Closed);
        Ok(page_of(open.collect(), after))
    }

    async fn watch(&self, identity: &Identity) -> Result<Box<dyn Watch>, StoreError> {
        let cell = self.0.cell_or_new(identity);
        let seen = cell.changed.count();
        Ok(Box::new(Watcher { cell, seen }))
    }
}

struct Watcher {
    cell: Arc<Cell>,
    seen: u64,
}

#[async_trait]
impl Watch for Watcher {
    async fn changed(&mut self) {
        self.seen = self.cell.changed.after(self.seen).await;
    }
}

struct Attendant {
    engine: Arc<Engine>,
    cell: Arc<Cell>,
    attendant: AttendantId,
    /// None before the first look, so that the first wait is over at once.
    seen: Option<u64>,
}

impl NeedsWatch for Attendant {
    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let needs = &self.cell.needs;
        let count = match self.seen {
            None => needs.count(),
            Some(seen) => ready!(needs.poll_after(seen, cx)),
        };
        self.seen = Some(count);
        Poll::Ready(())
    }

    fn current(&mut self) -> NeedsNow {
        self.seen = Some(self.cell.needs.count());
        self.cell.presence.lock().needs()
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        self.cell.presence.lock().leave(self.attendant);
        self.engine.want(&self.cell, self.engine.clock.instant());
    }
}
