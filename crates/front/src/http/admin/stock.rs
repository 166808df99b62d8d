//! What is stored, of all devices together.

use api::admin::Side;
use store::{Partition, Stock, StoreError};

use super::{Admin, now};
use crate::http::{
    answer::{self, Answer},
    problem::Refusal,
};

impl Admin {
    pub(super) async fn show_store(&self) -> Result<Answer, Refusal> {
        Ok(answer::json(&api::admin::Store {
            outbox: shown(self.stock(Side::Outbox).await?),
            inbox: shown(self.stock(Side::Inbox).await?),
            disk: (self.report_disk)(),
        }))
    }

    /// Brings the metrics of what is stored up to date. What cannot be found out stays what it was.
    pub(super) async fn measure_stock(&self) {
        for side in [Side::Outbox, Side::Inbox] {
            match self.stock(side).await {
                Ok(stock) => self.metrics.stock(side, &stock, now()),
                Err(error) => tracing::debug!(%error, "what is stored is not measured"),
            }
        }
        if let Some(disk) = (self.report_disk)() {
            self.metrics.disk(&disk);
        }
    }

    async fn stock(&self, side: Side) -> Result<Stock, StoreError> {
        let mut all = Stock::default();
        for partition in (0..Partition::COUNT).filter_map(Partition::from_number) {
            all = all
                + match side {
                    Side::Outbox => self.store.outbox.stock(partition).await?,
                    Side::Inbox => self.store.inbox.stock(partition).await?,
                };
            // There may be many devices, and others have work as well.
            tokio::task::yield_now().await;
        }
        Ok(all)
    }
}

pub(super) fn shown(stock: Stock) -> api::admin::Stock {
    let Stock {
        waiting,
        bytes,
        oldest,
        dead_letters,
    } = stock;
    api::admin::Stock {
        waiting,
        bytes,
        oldest,
        dead_letters,
    }
}
