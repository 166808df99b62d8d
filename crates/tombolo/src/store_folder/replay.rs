//! Putting dead letters back.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Result, bail};
use api::admin::Side;
use iothub::Identity;
use store::embedded;
use store::{EntryId, Partition, ReplayError, Store, StoreError};

use super::{counted, explained, must_be_there, say_if_it_takes_long};
use crate::cli::WhichArgs;

/// A dead letter that is asked for.
struct Letter {
    identity: Identity,
    side: Side,
    id: u64,
}

/// Puts dead letters back, the oldest of each device first. One that cannot be put back does not stop the others.
pub(super) fn replay(folder: &Path, which: &WhichArgs) -> Result<()> {
    must_be_there(folder)?;
    say_if_it_takes_long(folder)?;
    let opened = embedded::open_unbounded(folder).map_err(|error| explained(error, folder))?;
    let replayed = crate::to_the_end(replay_all(&opened.store, which));
    opened.keeper.close();
    if opened.keeper.has_failed() {
        bail!(
            "the disk has failed: look at it, then try again; what was put back is found, or is a dead letter still"
        );
    }
    replayed
}

async fn replay_all(store: &Store, which: &WhichArgs) -> Result<()> {
    let letters = letters(store, which).await?;
    let mut failed = 0;
    let mut out = io::stdout().lock();
    for letter in &letters {
        let Letter { identity, side, id } = letter;
        let side = side.as_str();
        match letter.replay(store).await {
            Ok(()) => writeln!(out, "{side:<6}  {identity}  {id} waits again")?,
            Err(error) => {
                failed += 1;
                writeln!(
                    out,
                    "{side:<6}  {identity}  {id} stays a dead letter: {error}"
                )?;
            }
        }
    }
    let put_back = letters.len() as u64 - failed;
    writeln!(
        io::stderr(),
        "{} put back{}",
        counted(put_back, "dead letter is", "dead letters are"),
        if put_back == 0 {
            ""
        } else {
            ": start the gateway, which sends them on their way"
        }
    )?;
    if failed > 0 {
        bail!(
            "{} could not be put back",
            counted(failed, "dead letter", "dead letters")
        );
    }
    Ok(())
}

async fn letters(store: &Store, which: &WhichArgs) -> Result<Vec<Letter>, StoreError> {
    let mut letters = Vec::new();
    for partition in (0..Partition::COUNT).filter_map(Partition::from_number) {
        for side in [Side::Outbox, Side::Inbox] {
            if which.side.is_some_and(|asked| asked != side) {
                continue;
            }
            let mut after = None;
            loop {
                let (page, next) = page(store, side, partition, after.as_deref()).await?;
                let asked = page.into_iter().filter(|(of, _)| which.has(of));
                letters.extend(asked.map(|(identity, id)| Letter { identity, side, id }));
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
    }
    Ok(letters)
}

async fn page(
    store: &Store,
    side: Side,
    partition: Partition,
    after: Option<&str>,
) -> Result<(Vec<(Identity, u64)>, Option<String>), StoreError> {
    Ok(match side {
        Side::Outbox => {
            let page = store.outbox.dead_letters(partition, after).await?;
            let letters = page.items.into_iter();
            let letters = letters.map(|letter| (letter.identity, letter.id.0));
            (letters.collect(), page.next)
        }
        Side::Inbox => {
            let page = store.inbox.dead_letters(partition, after).await?;
            let letters = page.items.into_iter();
            let letters = letters.map(|letter| (letter.identity, letter.sequence));
            (letters.collect(), page.next)
        }
    })
}

impl Letter {
    async fn replay(&self, store: &Store) -> Result<(), ReplayError> {
        match self.side {
            Side::Outbox => store.outbox.replay(&self.identity, EntryId(self.id)).await,
            Side::Inbox => store.inbox.replay(&self.identity, self.id).await,
        }
    }
}
