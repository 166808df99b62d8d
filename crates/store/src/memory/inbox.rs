//! The inbox of all devices: leases and wake-ups.

use std::time::Duration;

use async_trait::async_trait;
use iothub::Identity;

use super::{
    Engine, Memory,
    cell::Cell,
    mailbox::{Mailbox, Owner},
    partitioned::page_of,
    token::Token,
};
use crate::{
    AppendError, Arrival, ArrivalId, Conclusion, ConnectionEpoch, DeadLetter, DeliveryLease,
    Desired, Inbox, InboxView, LockToken, MethodRequestId, Page, Partition, SessionLease,
    SettleError, Settlement, StoreError, Ticket,
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
        let now = self.0.now();
        self.0.tidy_some(now);
        let token = Token::random()?;
        self.0.change(lease, identity, |cell, mailbox| {
            mailbox.append(self.0.owner_of(cell), id, arrival, token, now)
        })?
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
                cell.mailbox.lock().read(self.0.owner_of(&cell), now)
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
        Ok(cell.mailbox.lock().receive(owner, token, lock, now))
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
        let ticket = cell.mailbox.lock().settle(owner, token, settlement, now)?;
        cell.changed.beat();
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
        cell.mailbox.lock().claim_method(owner, request, now)?;
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
            let mut mailbox = cell.mailbox.lock();
            letters.extend(mailbox.dead_letters(now).iter().map(|letter| {
                // No id has a space; the width makes the text's order that of the numbers.
                let key = format!("{} {:020}", letter.identity, letter.sequence);
                (key, letter.clone())
            }));
        }
        Ok(page_of(letters, after))
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
        let standing = self.tenures.standing(lease, cell.partition)?;
        let answer = change(&cell, &mut cell.mailbox.lock());
        drop(standing);
        cell.changed.beat();
        Ok(answer)
    }

    fn owner_of<'a>(&'a self, cell: &'a Cell) -> Owner<'a> {
        Owner {
            identity: &cell.identity,
            config: &self.config,
        }
    }
}
