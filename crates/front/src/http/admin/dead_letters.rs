//! What the gateway has given up: reading it, sending it on its way again, removing it.

use api::{
    Code, Delivery, ItemResult,
    admin::{Content, DeadLetters, Kept, ReplayResult, Replayed, Side},
};
use http::StatusCode;
use iothub::Identity;
use store::{EntryId, Page, Partition, ReplayError, StoreError};

use super::{Admin, Query, walk::Walk};
use crate::{
    http::{
        answer::{self, Answer},
        problem::{self, Refusal},
    },
    shown,
};

impl Admin {
    /// Those of all devices.
    pub(super) async fn list_dead_letters(
        &self,
        side: Side,
        query: &Query<'_>,
    ) -> Result<Answer, Refusal> {
        let mut walk = Walk::over_all(query)?;
        let mut dead_letters = Vec::new();
        while let Some((partition, after)) = walk.next_page() {
            let page = self.letters(side, partition, after).await?;
            walk.took(page.items.len(), page.next);
            dead_letters.extend(page.items.into_iter().map(|(_, letter)| letter));
        }
        Ok(answer::json(&DeadLetters {
            dead_letters,
            next: walk.rest(),
        }))
    }

    /// Those of one device.
    pub(super) async fn list_dead_letters_of(
        &self,
        identity: &Identity,
        side: Side,
        query: &Query<'_>,
    ) -> Result<Answer, Refusal> {
        let walk = Walk::over_one(identity, query)?;
        let (dead_letters, next) = self.letters_of(identity, side, walk).await?;
        Ok(answer::json(&DeadLetters { dead_letters, next }))
    }

    pub(super) async fn read_dead_letter(
        &self,
        identity: &Identity,
        side: Side,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let id = number(id)?;
        let letter = match side {
            Side::Outbox => {
                let read = self.store.outbox.dead_letter(identity, EntryId(id)).await?;
                read.map(|(letter, work)| Kept {
                    content: work.as_ref().and_then(shown::work),
                    ..shown::unsent(&letter)
                })
            }
            Side::Inbox => {
                let read = self.store.inbox.dead_letter(identity, id).await?;
                read.map(|(letter, message)| Kept {
                    content: message.as_deref().map(Content::from),
                    ..shown::unread(&letter)
                })
            }
        };
        Ok(answer::json(&letter.ok_or_else(no_such_letter)?))
    }

    pub(super) async fn replay(
        &self,
        identity: &Identity,
        side: Side,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let replayed = self.replay_one(identity, side, number(id)?).await;
        replayed.map_err(|error| problem::replay(side, error))?;
        let delivery = delivery(side);
        let status = StatusCode::from_u16(delivery.status()).unwrap_or(StatusCode::NO_CONTENT);
        Ok(answer::delivered(answer::empty(status), delivery))
    }

    /// Replays what an answer holds of a device's dead letters, the oldest first. One that cannot be replayed does not stop
    /// the others.
    pub(super) async fn replay_all(
        &self,
        identity: &Identity,
        side: Side,
    ) -> Result<Answer, Refusal> {
        let walk = Walk::over_one(identity, &Query(""))?;
        let (letters, rest) = self.letters_of(identity, side, walk).await?;
        let mut results = Vec::with_capacity(letters.len());
        for letter in letters {
            let result = match self.replay_one(identity, side, letter.id).await {
                Ok(()) => ItemResult {
                    receipt: letter.receipt,
                    ..ItemResult::delivered(delivery(side))
                },
                Err(error) => problem::replay(side, error).into_item(),
            };
            results.push(ReplayResult {
                id: letter.id,
                result,
            });
        }
        Ok(answer::json(&Replayed {
            results,
            more: rest.is_some(),
        }))
    }

    pub(super) async fn discard(
        &self,
        identity: &Identity,
        side: Side,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let id = number(id)?;
        let is_discarded = match side {
            Side::Outbox => self.store.outbox.discard(identity, EntryId(id)).await?,
            Side::Inbox => self.store.inbox.discard(identity, id).await?,
        };
        if !is_discarded {
            return Err(no_such_letter());
        }
        tracing::info!(device = %identity, r#box = side.as_str(), id, "a dead letter is discarded");
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    async fn replay_one(
        &self,
        identity: &Identity,
        side: Side,
        id: u64,
    ) -> Result<(), ReplayError> {
        match side {
            Side::Outbox => self.store.outbox.replay(identity, EntryId(id)).await?,
            Side::Inbox => self.store.inbox.replay(identity, id).await?,
        }
        tracing::info!(device = %identity, r#box = side.as_str(), id, "a dead letter is replayed");
        Ok(())
    }

    /// A device's dead letters, and where the rest of them is.
    async fn letters_of(
        &self,
        identity: &Identity,
        side: Side,
        mut walk: Walk,
    ) -> Result<(Vec<Kept>, Option<String>), Refusal> {
        let mut own = Vec::new();
        while let Some((partition, after)) = walk.next_page() {
            let page = self.letters(side, partition, after).await?;
            let before = own.len();
            let letters = page.items.into_iter();
            own.extend(letters.filter_map(|(of, letter)| (of == *identity).then_some(letter)));
            walk.took(own.len() - before, page.next);
        }
        Ok((own, walk.rest()))
    }

    async fn letters(
        &self,
        side: Side,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<(Identity, Kept)>, StoreError> {
        Ok(match side {
            Side::Outbox => {
                let page = self.store.outbox.dead_letters(partition, after).await?;
                shown_page(page, |letter| {
                    let shown = shown::unsent(&letter);
                    (letter.identity, shown)
                })
            }
            Side::Inbox => {
                let page = self.store.inbox.dead_letters(partition, after).await?;
                shown_page(page, |letter| {
                    let shown = shown::unread(&letter);
                    (letter.identity, shown)
                })
            }
        })
    }
}

fn shown_page<T>(page: Page<T>, show: impl Fn(T) -> (Identity, Kept)) -> Page<(Identity, Kept)> {
    Page {
        items: page.items.into_iter().map(show).collect(),
        next: page.next,
    }
}

/// How far a dead letter is that was replayed: one for the hub waits on the disk, one for the device is offered.
const fn delivery(side: Side) -> Delivery {
    match side {
        Side::Outbox => Delivery::Stored,
        Side::Inbox => Delivery::Gateway,
    }
}

fn number(id: &str) -> Result<u64, Refusal> {
    id.parse().map_err(|_| no_such_letter())
}

fn no_such_letter() -> Refusal {
    Refusal::new(
        Code::NotFound,
        "the device has no such dead letter, or no longer",
    )
}
