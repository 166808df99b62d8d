//! What is known of devices.

use api::admin::{Address, DeviceStock, DeviceStocks};
use iothub::Identity;
use store::{InboxEntry, StoreError};

use super::{
    Admin, Query, not_served,
    shown::{ShownDevice, ShownInbox},
    stock::shown,
    walk::Walk,
};
use crate::http::{
    answer::{self, Answer},
    problem::Refusal,
};

impl Admin {
    pub(super) async fn show_device(&self, identity: &Identity) -> Result<Answer, Refusal> {
        let record = self
            .store
            .registry
            .device(identity)
            .await?
            .ok_or_else(not_served)?;
        let status = self.store.signals.status(identity).await?;
        let view = self.store.inbox.read(identity).await?;
        let stock = self.stock_of(identity).await?;
        let messages = view
            .entries
            .iter()
            .filter(|entry| matches!(entry, InboxEntry::Message(_)))
            .count();
        Ok(answer::json(&ShownDevice {
            identity: Address::from(identity),
            custody: record.custody,
            method_policy: record.method_policy,
            pinned: record.is_pinned,
            session: status.into(),
            outbox: stock.outbox,
            inbox: ShownInbox {
                stock: stock.inbox,
                methods: view.entries.len() - messages,
                desired_version: view.desired.map(|desired| desired.section.version.0),
            },
        }))
    }

    /// Devices whose entries wait, with what they have.
    pub(super) async fn list_backlog(&self, query: &Query<'_>) -> Result<Answer, Refusal> {
        let mut walk = Walk::over_all(query)?;
        let mut devices = Vec::new();
        while let Some((partition, after)) = walk.next_page() {
            let page = self.store.outbox.backlog(partition, after).await?;
            walk.took(page.items.len(), page.next);
            for identity in page.items {
                devices.push(self.stock_of(&identity).await?);
            }
        }
        Ok(answer::json(&DeviceStocks {
            devices,
            next: walk.rest(),
        }))
    }

    async fn stock_of(&self, identity: &Identity) -> Result<DeviceStock, StoreError> {
        Ok(DeviceStock {
            of: Address::from(identity),
            outbox: shown(self.store.outbox.stock_of(identity).await?),
            inbox: shown(self.store.inbox.stock_of(identity).await?),
        })
    }
}
