//! The inbox of all devices: leases and wake-ups.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use iothub::{CloudMessage, Identity};

use super::{
    Engine, Memory,
    cell::Cell,
    counted::Counted,
    durable::{Told, written},
    mailbox::{Dead, Mailbox, Noted, Owner},
    partitioned::page_of,
    token::Token,
};
use crate::{
    AppendError, Arrival, ArrivalId, Conclusion, ConnectionEpoch, DeadLetter, DeliveryLease,
    Desired, Inbox, InboxView, LockToken, MethodRequestId, Page, Partition, ReplayError,
    SessionLease, SettleError, Settlement, Stock, StoreError, Ticket,
};

#[async_trait]
impl Inbox for Memory {
    async fn append_all(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        arrivals: Vec<(ArrivalId, Arrival)>,
    ) -> Result<Vec<Ticket<Settlement>>, AppendError> {
        let engine = &self.0;
        engine.tidy_some(engine.now());
        let cell = engine.cell_or_new(identity);
        // All are left to the log before the first is waited for: it flushes them together.
        let mut begun = Vec::with_capacity(arrivals.len());
        for (id, arrival) in arrivals {
            match engine.begin_append(lease, &cell, id, arrival) {
                Ok((ticket, told)) => begun.push((id, ticket, told)),
                Err(error) if begun.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        let mut tickets = Vec::with_capacity(begun.len());
        for (id, ticket, told) in begun {
            let is_there = match told {
                Some(told) => written(told).await.map_err(AppendError::from),
                None => engine.arrival_written(&cell, id).await,
            };
            match is_there {
                Ok(()) => tickets.push(ticket),
                Err(error) if tickets.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(tickets)
    }

    async fn set_desired(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        desired: Option<Desired>,
    ) -> Result<(), StoreError> {
        self.0
            .change(lease, identity, |_, mailbox| mailbox.set_desired(desired))
    }

    async fn withdraw(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        connection: ConnectionEpoch,
    ) -> Result<(), StoreError> {
        let now = self.0.now();
        self.0.change(lease, identity, |_, mailbox| {
            mailbox.withdraw(connection, now);
        })
    }

    async fn conclude(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        id: ArrivalId,
        conclusion: Conclusion,
    ) -> Result<(), StoreError> {
        let now = self.0.now();
        self.0.change(lease, identity, |_, mailbox| {
            mailbox.conclude(id, conclusion, now);
        })
    }

    async fn read(&self, identity: &Identity) -> Result<InboxView, StoreError> {
        let now = self.0.now();
        Ok(self
            .0
            .cell(identity)
            .map_or_else(InboxView::default, |cell| {
                self.0.mailbox(&cell).read(self.0.owner_of(&cell), now)
            }))
    }

    async fn receive(
        &self,
        identity: &Identity,
        lock: Duration,
    ) -> Result<Option<DeliveryLease>, StoreError> {
        let Some(cell) = self.0.cell(identity) else {
            return Ok(None);
        };
        let now = self.0.now();
        let token = Token::random()?;
        let owner = self.0.owner_of(&cell);
        Ok(self.0.mailbox(&cell).receive(owner, token, lock, now))
    }

    async fn settle(
        &self,
        identity: &Identity,
        token: &LockToken,
        settlement: Settlement,
    ) -> Result<Ticket<Conclusion>, SettleError> {
        let token = Token::parse(token).ok_or(SettleError::Unknown)?;
        let cell = self.0.cell(identity).ok_or(SettleError::Unknown)?;
        let now = self.0.now();
        let owner = self.0.owner_of(&cell);
        let (ticket, told) = {
            let mut mailbox = self.0.mailbox(&cell);
            let tied = self.0.tied_that_may_die(&cell, &mailbox, token, settlement);
            let (ticket, noted) = mailbox.settle(owner, token, settlement, now)?;
            if let Some(tied) = tied {
                self.0.keep_dead_letter(&cell, &mailbox, tied);
            }
            let told = match noted {
                Noted::Change(change) => Some(self.0.note_change(&cell, change)),
                Noted::Before => self.0.leave_barrier().transpose(),
                Noted::Nothing => None,
            };
            (ticket, told)
        };
        cell.changed.beat();
        if let Some(told) = told {
            Engine::change_written(told?).await?;
        }
        Ok(ticket)
    }

    async fn claim_method(
        &self,
        identity: &Identity,
        request: &MethodRequestId,
    ) -> Result<(), SettleError> {
        let cell = self.0.cell(identity).ok_or(SettleError::Lost)?;
        let now = self.0.now();
        let owner = self.0.owner_of(&cell);
        self.0.mailbox(&cell).claim_method(owner, request, now)?;
        cell.changed.beat();
        Ok(())
    }

    async fn dead_letters(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<DeadLetter>, StoreError> {
        let mut letters = Vec::new();
        let now = self.0.now();
        for cell in self.0.cells.in_partition(partition) {
            let mut mailbox = self.0.mailbox(&cell);
            letters.extend(mailbox.dead(now).iter().map(|dead| {
                // No id has a space; the width makes the text's order that of the numbers.
                let key = format!("{} {:020}", dead.letter.identity, dead.letter.sequence);
                (key, dead.letter.clone())
            }));
        }
        Ok(page_of(letters, after))
    }

    async fn dead_letter(
        &self,
        identity: &Identity,
        sequence: u64,
    ) -> Result<Option<(DeadLetter, Option<Arc<CloudMessage>>)>, StoreError> {
        let read = self.0.dead_letter::<Dead>(identity, sequence).await?;
        Ok(read.map(|(dead, message)| (dead.letter, message)))
    }

    async fn replay(&self, identity: &Identity, sequence: u64) -> Result<(), ReplayError> {
        self.0.replay_message(identity, sequence).await
    }

    async fn discard(&self, identity: &Identity, sequence: u64) -> Result<bool, StoreError> {
        self.0.discard_message(identity, sequence).await
    }

    async fn stock(&self, partition: Partition) -> Result<Stock, StoreError> {
        let now = self.0.now();
        let cells = self.0.cells.in_partition(partition).into_iter();
        Ok(cells.map(|cell| self.0.mailbox(&cell).stock(now)).sum())
    }

    async fn stock_of(&self, identity: &Identity) -> Result<Stock, StoreError> {
        let now = self.0.now();
        let cell = self.0.cell(identity);
        Ok(cell.map_or_else(Stock::default, |cell| self.0.mailbox(&cell).stock(now)))
    }
}

impl Engine {
    /// Changes a device's mailbox under a lease that stands, and wakes who watches.
    fn change<T>(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        change: impl FnOnce(&Cell, &mut Mailbox) -> T,
    ) -> Result<T, StoreError> {
        let cell = self.cell_or_new(identity);
        self.change_cell(lease, &cell, |mailbox| change(&cell, mailbox))
    }

    /// Puts an arrival in, and leaves it to the log if it is to be on the disk; then somebody tells when it is.
    fn begin_append(
        self: &Arc<Self>,
        lease: &SessionLease,
        cell: &Arc<Cell>,
        id: ArrivalId,
        arrival: Arrival,
    ) -> Result<(Ticket<Settlement>, Option<Told>), AppendError> {
        let token = Token::random()?;
        let (now, is_kept) = (self.now(), self.log().is_ok());
        self.change_cell(lease, cell, |mailbox| {
            self.check_inbox_bytes(&arrival)?;
            let is_tied = arrival.is_tied();
            let appended = mailbox.append(self.owner_of(cell), id, arrival, token, is_kept, now)?;
            let told = match appended.fresh.filter(|_| is_kept && !is_tied) {
                Some(sequence) => Some(self.append_arrived(cell, mailbox, sequence, |_, _| {})?),
                None => None,
            };
            Ok((appended.ticket, told))
        })?
    }

    fn change_cell<T>(
        &self,
        lease: &SessionLease,
        cell: &Cell,
        change: impl FnOnce(&mut Mailbox) -> T,
    ) -> Result<T, StoreError> {
        let standing = self.tenures.standing(lease, cell.partition)?;
        let answer = change(&mut self.mailbox(cell));
        drop(standing);
        cell.changed.beat();
        Ok(answer)
    }

    /// The mailbox of a device, locked.
    pub(super) fn mailbox<'a>(&'a self, cell: &'a Cell) -> Counted<'a, Mailbox> {
        Counted::lock(&cell.mailbox, &self.inbox_bytes)
    }

    /// Checks that a message has room among those of all devices.
    fn check_inbox_bytes(&self, arrival: &Arrival) -> Result<(), AppendError> {
        let size = match arrival {
            Arrival::Message { message, .. } => message.size(),
            Arrival::Method { .. } => 0,
        };
        let in_all = self.inbox_bytes.load(Ordering::Relaxed);
        if in_all.saturating_add(size) > self.config.inbox_bytes_in_all {
            return Err(AppendError::Full);
        }
        Ok(())
    }

    pub(super) fn owner_of<'a>(&'a self, cell: &'a Cell) -> Owner<'a> {
        Owner {
            identity: &cell.identity,
            config: &self.config,
        }
    }
}
