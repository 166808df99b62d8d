//! Which sessions this node holds.
//!
//! A device that is wanted and has no session gets one: a task that lives until the session has ended. Never two for one
//! device, never more than the configuration allows. When all places are taken, the first device that waits gets that of the
//! session that has been idle for longest; the others wait in the store, which is not asked for the next one meanwhile.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use iothub::Identity;
use store::StoreError;
use tokio::{select, task::JoinSet};
use tokio_util::task::JoinMap;

use crate::{
    driver::drive,
    node::{Node, now},
    place::Place,
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
        waiting: VecDeque::new(),
        sessions: JoinMap::new(),
        places: HashMap::new(),
        has_warned: false,
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
    places: HashMap<Identity, Arc<Place>>,
    /// Devices that became wanted while the task of their last session was about to end.
    wanted_again: HashSet<Identity>,
    /// Devices for which there is no place: one that the store has named, and those whose session has just ended.
    waiting: VecDeque<Identity>,
    /// Whether it has been said that there are too few places.
    has_warned: bool,
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
                identity = &mut wanted, if self.waiting.is_empty() => {
                    wanted.set(next_wanted(&node));
                    self.admit(identity);
                }
                () = tokio::time::sleep(LOOK_FOR_IDLE), if !self.waiting.is_empty() => {
                    self.make_room();
                }
                Some((identity, result)) = self.sessions.join_next() => {
                    if result.is_err() {
                        tracing::error!(device = %identity, "the session's task has failed");
                    }
                    self.places.remove(&identity);
                    if self.wanted_again.remove(&identity) || self.pinned.contains(&identity) {
                        self.waiting.push_back(identity);
                    }
                    self.admit_waiting();
                }
            }
        }
        while let Some((identity, result)) = self.sessions.join_next().await {
            if result.is_err() {
                tracing::error!(device = %identity, "the session's task has failed");
            }
        }
    }

    /// A device is wanted.
    fn admit(&mut self, identity: Identity) {
        if self.sessions.contains_key(&identity) {
            self.wanted_again.insert(identity);
            return;
        }
        self.waiting.push_back(identity);
        self.admit_waiting();
    }

    fn admit_waiting(&mut self) {
        while self.sessions.len() < self.max_sessions {
            let Some(identity) = self.waiting.pop_front() else {
                return;
            };
            self.start(identity);
        }
        self.make_room();
    }

    /// Asks the session that has been idle for longest for its place, if a device waits for one. Until it has ended it
    /// stays the one that is asked.
    fn make_room(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if !self.has_warned {
            self.has_warned = true;
            let limit = self.max_sessions;
            tracing::warn!(
                limit,
                "as many sessions as this node may hold; devices wait"
            );
        }
        let places = self.places.values();
        let idle = places.filter_map(|place| Some((place.idle_since()?, place)));
        if let Some((_, place)) = idle.min_by_key(|(since, _)| *since) {
            place.ask_for();
        }
    }

    /// Starts the session of a device that has none.
    fn start(&mut self, identity: Identity) {
        let place = Arc::new(Place::default());
        self.places.insert(identity.clone(), Arc::clone(&place));
        let session = drive(Arc::clone(&self.node), identity.clone(), place);
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

/// How often a session that has become idle is looked for while a device waits for its place.
const LOOK_FOR_IDLE: Duration = Duration::from_millis(250);

/// Wait before the store is asked again that failed to answer.
const RETRY: Duration = Duration::from_millis(500);
