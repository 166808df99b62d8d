//! Durable entries of the outbox.

use std::{io, sync::Arc};

use iothub::{Identity, Timestamp};
use tokio::sync::oneshot;

use super::{
    super::{
        Engine, Location, Moment,
        book::{Dead, Name, Progress, Record as BookRecord, Reused},
        cell::Cell,
        lanes::{Entry, Fresh, Keeping, Lanes, Persist, Slip, Taken},
    },
    Told,
    record::{Record, Said, Settled, Stored, encode_work, said},
    written,
};
use crate::{
    EntryId, Lane, OutboxEntry, Outcome, PersistError, StoreError, Submission, SubmissionId,
    SubmitError, Ticket, Work,
    log::{Kind, NotWritten},
};

/// An entry on its way to the disk, as its submitter sees it. However that ends, the submitter wakes the session, which is to
/// send the entry now: it runs where sessions do, and is woken anyway. For the thread that writes to wake both would cost it
/// another wake-up across threads for each entry.
struct Landing<'a> {
    engine: &'a Engine,
    cell: &'a Arc<Cell>,
    told: Told,
}

impl Landing<'_> {
    async fn landed(mut self) -> Result<(), StoreError> {
        written(&mut self.told).await
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // If the entry is not there by now, the writer finds nobody to tell, and wakes the session itself.
        self.told.close();
        self.engine.announce(self.cell);
    }
}

/// How far a durable submission is.
enum Storing {
    /// It is known, and on the disk.
    Known(Ticket<Outcome>),
    /// It is on its way to the disk for somebody else.
    OnItsWay,
    /// It is on its way to the disk.
    Begun(Ticket<Outcome>, Told),
}

impl Engine {
    pub(in crate::memory) async fn submit_durable(
        self: &Arc<Self>,
        submission: Submission,
    ) -> Result<Ticket<Outcome>, SubmitError> {
        self.log()?;
        let work = encode_work(&submission.work).ok_or(StoreError::Volatile)?;
        let now = self.now();
        self.tidy_some(now);
        let cell = self.cell_or_new(&submission.identity);
        loop {
            match self.store(&cell, &submission, &work, now)? {
                Storing::Known(ticket) => return Ok(ticket),
                Storing::OnItsWay => self.barrier().await?,
                Storing::Begun(ticket, told) => {
                    let landing = Landing {
                        engine: self,
                        cell: &cell,
                        told,
                    };
                    landing.landed().await?;
                    return Ok(ticket);
                }
            }
        }
    }

    fn store(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        submission: &Submission,
        work: &[u8],
        now: Moment,
    ) -> Result<Storing, SubmitError> {
        let mut lanes = self.lanes(cell);
        let id = submission.id;
        let lane = submission.work.lane();
        match lanes.rejoin(id, submission.fingerprint, lane) {
            Err(Reused) => return Err(SubmitError::KeyReused),
            Ok(Some(ticket)) => {
                let entry = lanes.entry(id);
                let is_on_its_way = entry.is_some_and(|entry| entry.keeping().is_on_its_way());
                return Ok(if is_on_its_way {
                    Storing::OnItsWay
                } else {
                    Storing::Known(ticket)
                });
            }
            Ok(None) => {}
        }
        let freed = lanes.give_up_overdue(now);
        self.free_outbox_bytes(freed);
        let size = submission.work.size();
        let mut fresh = Fresh {
            id,
            fingerprint: submission.fingerprint,
            lane,
            work: None,
            keeping: Keeping::Storing,
            deadline: None,
            accepted_at: now.timestamp,
            size,
        };
        self.check_bounds(&mut lanes, &fresh, now)?;
        // Without room in memory it is on the disk alone.
        fresh.work = self.reserve(size).then(|| Arc::clone(&submission.work));
        let (entry, ticket, _) = lanes.push(fresh, now);
        let stored = Stored {
            identity: cell.identity.clone(),
            entry,
            submission: id,
            fingerprint: submission.fingerprint,
            accepted_at: now.timestamp,
            lane,
            size: size_of_entry(size),
            work,
        };
        let record = Record::Stored(stored).encode();
        let (tell, told) = oneshot::channel();
        let left = self.leave(cell, Kind::Promise, record, move |engine, cell, result| {
            let is_ready = engine.entry_written(cell, lane, entry, result);
            // If the submitter is gone, nobody else wakes the session.
            if tell.send(result.map(drop)).is_err() && is_ready {
                engine.announce(cell);
            }
        });
        match left {
            Ok(()) => Ok(Storing::Begun(ticket, told)),
            Err(error) => {
                self.entry_lost(&mut lanes, lane, entry);
                Err(error.into())
            }
        }
    }

    /// Wakes the session that is to take what is there, or has one opened.
    pub(super) fn announce(&self, cell: &Arc<Cell>) {
        cell.submitted.ring();
        self.want(cell, self.clock.instant());
    }

    /// Leaves the record of an entry to the log.
    pub(super) fn append_stored(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        lanes: &Lanes,
        id: SubmissionId,
        work: &[u8],
        done: impl FnOnce(&Arc<Self>, &Arc<Cell>, Result<Location, NotWritten>) + Send + 'static,
    ) -> Result<Told, StoreError> {
        let entry = lanes.entry(id).ok_or(StoreError::Unavailable)?;
        let stored = Stored::of(cell, lanes, entry, work);
        self.append(cell, Kind::Promise, Record::Stored(stored).encode(), done)
    }

    /// An entry is on the disk, or is not going to be. True if a session may be waiting for it, which is to be told.
    pub(super) fn entry_written(
        &self,
        cell: &Cell,
        lane: Lane,
        entry: EntryId,
        result: Result<Location, NotWritten>,
    ) -> bool {
        let mut lanes = self.lanes(cell);
        let Ok(location) = result else {
            self.entry_lost(&mut lanes, lane, entry);
            return false;
        };
        let was_hidden = lanes.stored(lane, entry, location);
        if self.is_half_full() {
            self.free_outbox_bytes(lanes.let_go(lane, entry));
        }
        was_hidden
    }

    pub(super) fn entry_lost(&self, lanes: &mut Lanes, lane: Lane, entry: EntryId) {
        if let Some(entry) = lanes.not_stored(lane, entry) {
            self.free_outbox_bytes(entry.held_bytes());
        }
    }

    pub(in crate::memory) async fn persist_entry(
        self: &Arc<Self>,
        identity: &Identity,
        id: SubmissionId,
    ) -> Result<(), PersistError> {
        self.log()?;
        let cell = self.cell(identity).ok_or(PersistError::Unknown)?;
        loop {
            let told = {
                let mut lanes = self.lanes(&cell);
                let work = lanes.entry(id).and_then(Entry::work).map(encode_work);
                match (lanes.persist(id), work) {
                    (Persist::Unknown, _) => return Err(PersistError::Unknown),
                    (Persist::Done, _) => return Ok(()),
                    (Persist::OnItsWay, _) => None,
                    (Persist::Begun(lane, entry), Some(Some(work))) => {
                        let done = move |engine: &Arc<Self>, cell: &Arc<Cell>, result| {
                            // It may be taken all the time, so no session waits for this.
                            engine.entry_written(cell, lane, entry, result);
                        };
                        let told = self.append_stored(&cell, &lanes, id, &work, done);
                        if told.is_err() {
                            self.entry_lost(&mut lanes, lane, entry);
                        }
                        Some(told?)
                    }
                    (Persist::Begun(lane, entry), Some(None) | None) => {
                        self.entry_lost(&mut lanes, lane, entry);
                        return Err(StoreError::Volatile.into());
                    }
                }
            };
            match told {
                Some(told) => return Ok(written(told).await?),
                None => self.barrier().await?,
            }
        }
    }

    /// Notes what became of an entry that a restart would find, or that has a key. Nobody waits for that: if it is lost, the
    /// entry is sent again, by the restart or by a copy of its request.
    pub(in crate::memory) fn note_settled(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        lanes: &Lanes,
        entry: &Entry,
    ) {
        let id = entry.submission();
        let name = Name::submission(id);
        if self.log().is_err() {
            return;
        }
        let outlives =
            |record: &&BookRecord| entry.keeping().is_stored() || record.fingerprint.is_some();
        let Some(record) = lanes.book().get(name).filter(outlives) else {
            return;
        };
        let Progress::Settled(outcome, at) = &record.progress else {
            return;
        };
        let settled = Settled::of(cell, id, record, outcome, *at);
        let noted = self.leave(
            cell,
            Kind::Aside,
            Record::Settled(settled).encode(),
            move |engine, cell, result| {
                if let (Ok(location), Some(record)) =
                    (result, engine.lanes(cell).book_mut().get_mut(name))
                    && matches!(record.progress, Progress::Settled(..))
                {
                    record.stored = Some(location);
                }
            },
        );
        if let Err(error) = noted {
            tracing::debug!(%error, "an outcome is not noted: the entry is sent again after the restart");
        }
    }

    /// Reads what is on the disk alone. An entry whose record is damaged comes as its id.
    pub(in crate::memory) async fn read_taken(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        lane: Lane,
        taken: Vec<Taken>,
    ) -> Result<Vec<Result<OutboxEntry, EntryId>>, StoreError> {
        let (engine, cell) = (Arc::clone(self), Arc::clone(cell));
        let read = move || {
            let read = taken.into_iter().map(|taken| match taken {
                Taken::Held(entry) => Ok(Ok(entry)),
                Taken::Stored(location, slip) => engine.read_entry(&cell, lane, location, slip),
            });
            read.collect()
        };
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or(Err(StoreError::UnknownOutcome))
    }

    fn read_entry(
        &self,
        cell: &Cell,
        lane: Lane,
        mut location: Location,
        slip: Slip,
    ) -> Result<Result<OutboxEntry, EntryId>, StoreError> {
        loop {
            match self.read_work(location) {
                Ok(Some(work)) => return Ok(Ok(slip.with(Arc::new(work)))),
                Ok(None) => {
                    tracing::error!(
                        device = %cell.identity,
                        entry = slip.id.0,
                        segment = location.segment,
                        offset = location.offset,
                        "a stored entry is damaged: it is a dead letter"
                    );
                    return Ok(Err(slip.id));
                }
                Err(error) => {
                    // Its segment may have been cleaned meanwhile.
                    let moved = cell.lanes.lock().location_of(lane, slip.id);
                    match moved.filter(|moved| *moved != location) {
                        Some(moved) => location = moved,
                        None => {
                            tracing::error!(%error, "a stored entry cannot be read");
                            return Err(StoreError::UnknownOutcome);
                        }
                    }
                }
            }
        }
    }

    /// The work of an entry; `None` if it is damaged.
    fn read_work(&self, location: Location) -> io::Result<Option<Work>> {
        let Ok(log) = self.log() else {
            return Ok(None);
        };
        let bytes = log.read(location)?;
        Ok(bytes.as_deref().and_then(said).and_then(Said::into_work))
    }
}

impl<'a> Stored<'a> {
    /// The record of an entry that is to do this.
    pub(super) fn of(cell: &Cell, lanes: &Lanes, entry: &Entry, work: &'a [u8]) -> Self {
        let record = lanes.book().get(Name::submission(entry.submission()));
        Self {
            identity: cell.identity.clone(),
            entry: entry.id(),
            submission: entry.submission(),
            fingerprint: record.and_then(|record| record.fingerprint),
            accepted_at: entry.accepted_at(),
            lane: entry.lane(),
            size: size_of_entry(entry.size()),
            work,
        }
    }

    /// The record of a dead letter that was to do this.
    pub(super) fn of_dead(cell: &Cell, dead: &Dead, work: &'a [u8]) -> Self {
        Self {
            identity: cell.identity.clone(),
            entry: dead.id,
            submission: dead.submission,
            // Whoever replays it has it of the receipt.
            fingerprint: None,
            accepted_at: dead.accepted_at,
            lane: dead.lane,
            size: size_of_entry(dead.size),
            work,
        }
    }
}

impl Settled {
    /// The record of a receipt.
    pub(super) fn of(
        cell: &Cell,
        submission: SubmissionId,
        record: &BookRecord,
        outcome: &Outcome,
        at: Timestamp,
    ) -> Self {
        Self {
            identity: cell.identity.clone(),
            submission,
            fingerprint: record.fingerprint,
            accepted_at: record.began_at,
            at,
            outcome: outcome.clone(),
        }
    }
}

fn size_of_entry(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
