//! Which sessions this node holds.
//!
//! A device that is wanted and has no session gets one: a task that lives until the session has ended. Never two for one
//! device, never more than the configuration allows; what exceeds that waits in the store, which is asked for the next device
//! only when there is room.

use std::{collections::HashSet, num::NonZeroUsize, pin::pin, sync::Arc, time::Duration};

use iothub::Identity;
use store::StoreError;
use tokio::{select, task::JoinSet};
use tokio_util::task::JoinMap;
use tracing::Instrument as _;

use crate::{
    driver::drive,
    node::{Node, now},
};

/// Holds sessions until the node stops and all of them have ended.
pub(crate) async fn run(node: Arc<Node>, max_sessions: NonZeroUsize, pinned: Vec<Identity>) {
    let mut helpers = JoinSet::new();
    for hub in node.hubs.values().cloned() {
        helpers.spawn(async move { hub.turnstile.run().await });
    }
    let tokens = Arc::clone(node.credentials.tokens());
    helpers.spawn(async move {
        loop {
            tokio::time::sleep(TIDY).await;
            tokens.tidy(now());
        }
    });
    let leases = Arc::clone(&node.leases);
    helpers.spawn(async move { leases.run().await });

    Manager {
        max_sessions: max_sessions.get(),
        pinned: pinned.iter().cloned().collect(),
        wanted_again: HashSet::new(),
        sessions: JoinMap::new(),
        node: Arc::clone(&node),
    }
    .run(pinned)
    .await;

    helpers.shutdown().await;
    node.leases.release_all().await;
}

struct Manager {
    node: Arc<Node>,
    max_sessions: usize,
    pinned: HashSet<Identity>,
    sessions: JoinMap<Identity, ()>,
    /// Devices that became wanted while the task of their last session was about to end.
    wanted_again: HashSet<Identity>,
}

impl Manager {
    async fn run(mut self, pinned: Vec<Identity>) {
        for identity in pinned {
            self.start(identity);
        }
        let node = Arc::clone(&self.node);
        // Kept while other things happen: a device that was handed out and dropped would be missed.
        let mut wanted = pin!(next_wanted(&node));
        loop {
            select! {
                () = node.stop.cancelled() => break,
                identity = &mut wanted, if self.sessions.len() < self.max_sessions => {
                    wanted.set(next_wanted(&node));
                    self.start(identity);
                }
                Some((identity, result)) = self.sessions.join_next() => {
                    if result.is_err() {
                        tracing::error!(device = %identity, "the session's task has failed");
                    }
                    if self.wanted_again.remove(&identity) || self.pinned.contains(&identity) {
                        self.start(identity);
                    }
                }
            }
        }
        while let Some((identity, result)) = self.sessions.join_next().await {
            if result.is_err() {
                tracing::error!(device = %identity, "the session's task has failed");
            }
        }
    }

    fn start(&mut self, identity: Identity) {
        if self.sessions.contains_key(&identity) {
            self.wanted_again.insert(identity);
            return;
        }
        let span = tracing::info_span!("session", device = %identity);
        let session = drive(Arc::clone(&self.node), identity.clone()).instrument(span);
        self.sessions.spawn(identity, session);
    }
}

async fn next_wanted(node: &Node) -> Identity {
    loop {
        match node.store.signals.next_wanted(&node.id).await {
            Ok(identity) => return identity,
            Err(StoreError::UnknownOutcome) => {}
            Err(error) => tracing::debug!(%error, "the store does not say which device is wanted"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// How often devices' tokens that nobody needs any more are looked for.
const TIDY: Duration = Duration::from_secs(15);

/// Wait before the store is asked again that failed to answer.
const RETRY: Duration = Duration::from_millis(500);
