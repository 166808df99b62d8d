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
    durable::written,
    mailbox::{Dead, Mailbox, Owner},
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
    async fn append(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        id: ArrivalId,
        arrival: Arrival,
    ) -> Result<Ticket<Settlement>, AppendError> {
        let engine = &self.0;
        let now = engine.now();
        engine.tidy_some(now);
        let token = Token::random()?;
        let is_kept = engine.log().is_ok();
        let cell = engine.cell_or_new(identity);
        let appended = engine.change_cell(lease, &cell, |mailbox| {
            let owner = engine.owner_of(&cell);
            engine.check_inbox_bytes(&arrival)?;
            let is_tied = arrival.is_tied();
            let appended = mailbox.append(owner, id, arrival, token, is_kept, now)?;
            let told = match appended.fresh.filter(|_| is_kept && !is_tied) {
                Some(sequence) => {
                    Some(engine.append_arrived(&cell, mailbox, sequence, |_, _| {})?)
                }
                None => None,
            };
            Ok::<_, AppendError>((appended.ticket, told))
        })?;
        let (ticket, told) = appended?;
        match told {
            Some(told) => written(told).await?,
            None => engine.arrival_written(&cell, id).await?,
        }
        Ok(ticket)
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
            let (ticket, change) = mailbox.settle(owner, token, settlement, now)?;
            let told = change.map(|change| self.0.note_change(&cell, change));
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
