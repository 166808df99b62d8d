//! Requests with a key that are more, or less, than one submission: batches, settlements, answers to methods, syncs. What is
//! one submission is its own record, and needs nothing of this.
//!
//! ```text
//!   begin_key --Begun-------> carried out ------+--> answer_key  it is over
//!             --Open(notes)-> the rest of it ---+--> note_key    some of it is done, the rest may be tried again
//!             --Answered----> the same answer   `--> forget_key  nothing is done
//! ```
//!
//! Copies that are in flight at once take turns, and a request goes on if its client leaves, so that its answer is there for
//! the copy that comes next. A record that is open although nobody is at work on it is that of a process which was killed:
//! then the request is carried out once more, and what of it had happened bears the same names.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use api::Code;
use iothub::Identity;
use parking_lot::Mutex;
use store::{KeyError, KeyId, KeyState, Registry, StoreError};
use tokio::{sync::Mutex as Turn, time::timeout};
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug};

use super::{
    problem::Refusal,
    remembered::{Memory, Remembered, recall},
};
use crate::devices::WriteKey;

/// The records of keys.
pub(crate) struct Keys {
    registry: Arc<dyn Registry>,
    tasks: TaskTracker,
    /// Requests in flight have a place here, so their number has a bound.
    turns: Turns,
    longest: Duration,
}

/// The turn of each request that is in flight.
type Turns = Mutex<HashMap<(Identity, KeyId), Arc<Turn<()>>>>;

impl Keys {
    /// `longest`: how long a copy waits for the one before it.
    pub(crate) fn new(registry: Arc<dyn Registry>, tasks: TaskTracker, longest: Duration) -> Self {
        Self {
            registry,
            tasks,
            turns: Mutex::default(),
            longest,
        }
    }

    /// Carries a request out, once for its key. `request` is told what is known of it: that stands.
    pub(super) async fn once<T: Remembered, F>(
        self: &Arc<Self>,
        identity: &Identity,
        key: Option<WriteKey>,
        request: impl FnOnce(T::Known) -> F + Send + 'static,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let Some(key) = key else {
            return request(T::Known::default()).await;
        };
        let (keys, identity) = (self.clone(), identity.clone());
        let carried_out = async move { keys.carry_out(&identity, &key, request).await };
        let carried_out = self.tasks.spawn(carried_out.in_current_span()).await;
        carried_out.map_err(|_| Refusal::new(Code::Internal, "the gateway failed"))?
    }

    async fn carry_out<T: Remembered, F>(
        &self,
        identity: &Identity,
        key: &WriteKey,
        request: impl FnOnce(T::Known) -> F + Send,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>> + Send,
    {
        let place = Place::among(&self.turns, identity, key);
        let Ok(_turn) = timeout(self.longest, place.turn.lock()).await else {
            let detail = "another copy of the request is under way";
            return Err(Refusal::new(Code::HubTimeout, detail));
        };
        let names = key.part_names();
        let unread = || Refusal::new(Code::Internal, "what is remembered of the key is not read");
        let known = match self.begin(identity, key).await? {
            KeyState::Begun | KeyState::Open(None) => T::Known::default(),
            KeyState::Open(Some(notes)) => recall::<T>(&notes, &names).ok_or_else(unread)?,
            KeyState::Answered(answer) => {
                let known = recall::<T>(&answer, &names).ok_or_else(unread)?;
                return T::whole(known).ok_or_else(unread);
            }
        };
        let result = request(known).await;
        let memory = match &result {
            Ok(done) => Memory::of(done, &names),
            Err(_) => Memory::Nothing,
        };
        if let Err(error) = self.remember(identity, key, memory).await {
            debug!(%error, "the outcome of a key is not noted: a copy of the request is carried out again");
        }
        result
    }

    /// Remembers again if the answer was lost.
    async fn remember(
        &self,
        identity: &Identity,
        key: &WriteKey,
        memory: Memory,
    ) -> Result<(), StoreError> {
        let (registry, id) = (&self.registry, key.record());
        let remember = async || match &memory {
            Memory::Nothing => registry.forget_key(identity, id).await,
            Memory::Part(notes) => registry.note_key(identity, id, notes.clone()).await,
            Memory::All(answer) => registry.answer_key(identity, id, answer.clone()).await,
            Memory::Begun => Ok(()),
        };
        for _ in 1..ATTEMPTS {
            match remember().await {
                Err(StoreError::UnknownOutcome) => {}
                result => return result,
            }
        }
        remember().await
    }

    /// Begins again if the answer was lost.
    async fn begin(&self, identity: &Identity, key: &WriteKey) -> Result<KeyState, KeyError> {
        let begin = || {
            let registry = &self.registry;
            registry.begin_key(identity, key.record(), key.fingerprint())
        };
        for _ in 1..ATTEMPTS {
            match begin().await {
                Err(KeyError::Store(StoreError::UnknownOutcome)) => {}
                result => return result,
            }
        }
        begin().await
    }
}

/// A request's place among its copies; gone with the last of them.
struct Place<'a> {
    turns: &'a Turns,
    name: (Identity, KeyId),
    turn: Arc<Turn<()>>,
}

impl<'a> Place<'a> {
    fn among(turns: &'a Turns, identity: &Identity, key: &WriteKey) -> Self {
        let name = (identity.clone(), key.record());
        let turn = turns.lock().entry(name.clone()).or_default().clone();
        Self { turns, name, turn }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        // The map's and our own: nobody else has one, and nobody gets one without the map.
        if Arc::strong_count(&self.turn) == 2 {
            turns.remove(&self.name);
        }
    }
}

/// How often a call of the store is made whose answer is lost.
const ATTEMPTS: u32 = 3;
