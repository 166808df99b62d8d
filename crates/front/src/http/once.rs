//! Requests with a key that are more, or less, than one submission: batches, settlements, answers to methods, syncs. What is
//! one submission is its own record, and needs nothing of this.
//!
//! ```text
//!   begin_key --Begun, Open--> carried out --answer_key (it is over), forget_key (it may be tried again)
//!             `-Answered-----> the same answer
//! ```
//!
//! Copies that are in flight at once take turns, and a request goes on if its client leaves, so that its answer is there for
//! the copy that comes next. A record that is open although nobody is at work on it is that of a process which was killed:
//! then the request is carried out once more, and what of it had happened bears the same names.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use api::Code;
use iothub::Identity;
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use store::{Answer, KeyError, KeyId, KeyState, Registry, StoreError};
use tokio::{sync::Mutex as Turn, time::timeout};
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug};

use super::problem::Refusal;
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

/// What a request came to, as it is remembered.
pub(super) trait Remembered: Send + Sized + 'static {
    /// Its short form.
    type Short: Serialize + DeserializeOwned;

    /// None if some of it may fare better when it is tried again: then nothing is remembered.
    fn shorten(&self, key: &WriteKey) -> Option<Self::Short>;

    /// The same again. None if the short form is not one of ours.
    fn restore(short: Self::Short, key: &WriteKey) -> Option<Self>;
}

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

    /// Carries a request out, once for its key.
    pub(super) async fn once<T: Remembered>(
        self: &Arc<Self>,
        identity: &Identity,
        key: Option<WriteKey>,
        request: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let Some(key) = key else {
            return request.await;
        };
        let (keys, identity) = (self.clone(), identity.clone());
        let carried_out = async move { keys.carry_out(&identity, &key, request).await };
        let carried_out = self.tasks.spawn(carried_out.in_current_span()).await;
        carried_out.map_err(|_| Refusal::new(Code::Internal, "the gateway failed"))?
    }

    async fn carry_out<T: Remembered>(
        &self,
        identity: &Identity,
        key: &WriteKey,
        request: impl Future<Output = Result<T, Refusal>> + Send,
    ) -> Result<T, Refusal> {
        let place = Place::among(&self.turns, identity, key);
        let Ok(_turn) = timeout(self.longest, place.turn.lock()).await else {
            let detail = "another copy of the request is under way";
            return Err(Refusal::new(Code::HubTimeout, detail));
        };
        if let KeyState::Answered(answer) = self.begin(identity, key).await? {
            let short = serde_json::from_slice(answer.as_bytes()).ok();
            return short
                .and_then(|short| T::restore(short, key))
                .ok_or_else(|| Refusal::new(Code::Internal, "the remembered answer is not read"));
        }
        let result = request.await;
        let short = result.as_ref().ok().and_then(|done| done.shorten(key));
        let short = short.map(|short| serde_json::to_vec(&short).unwrap_or_default());
        let noted = match short {
            Some(short) => self.note(identity, key, &short).await,
            None => self.registry.forget_key(identity, key.record()).await,
        };
        if let Err(error) = noted {
            debug!(%error, "the outcome of a key is not noted: a copy of the request is carried out again");
        }
        result
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

    async fn note(
        &self,
        identity: &Identity,
        key: &WriteKey,
        short: &[u8],
    ) -> Result<(), StoreError> {
        let Ok(answer) = Answer::new(short) else {
            // Left open: the key stays that of this request, and a copy is carried out again under the same names.
            return Ok(());
        };
        for _ in 1..ATTEMPTS {
            let noted = self
                .registry
                .answer_key(identity, key.record(), answer.clone());
            match noted.await {
                Err(StoreError::UnknownOutcome) => {}
                result => return result,
            }
        }
        self.registry
            .answer_key(identity, key.record(), answer)
            .await
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
