//! Writes that may be stored.
//!
//! ```text
//!   with a key, or asynchronous:  submit(durable) ----------------------------------> hub | stored
//!   any other:                    submit(ephemeral) --in time--> hub
//!                                    |--time is over--> persist --------------------> stored
//!                                    `--failed, not for good--> submit(durable) anew -> stored
//! ```
//!
//! So a write that the hub takes in time costs no work on the disk, unless it has a key: then its record has to be there
//! before anything leaves. What cannot be stored, because the engine keeps nothing or the gateway could not deliver it, ends
//! as an error.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use iothub::{Identity, Timestamp};
use store::{
    Done, Failure, Fingerprint, Outcome, PersistError, StoreError, Submission, SubmissionId,
    Survival, TicketLost, Work,
};

use super::{
    Devices, Error,
    entry::{ATTEMPTS, UnderWay},
    terms::{PartNames, Reached, Terms},
};

/// What an entry is called in the outbox.
#[derive(Clone, Copy)]
pub(super) struct Names {
    /// What it is called first.
    pub(super) first: SubmissionId,
    /// What it is called when it is stored after its session has failed it; none if it may not be stored.
    pub(super) again: Option<SubmissionId>,
}

impl Devices {
    /// Whether a write on these terms can be stored.
    pub(super) fn can_store(&self, terms: &Terms) -> bool {
        terms.may_be_stored && self.store.outbox.is_durable()
    }

    /// Keeps the newest token of a device that is passed through; whether one is kept that lasts for a while.
    pub(crate) async fn keeps_token(&self, identity: &Identity) -> bool {
        match self.store.judge.keep(identity).await {
            Ok(until) => lasts(until),
            Err(error) => {
                tracing::debug!(%error, "a token is not kept");
                false
            }
        }
    }

    /// Until when the token lasts that is kept of such a device.
    pub(crate) async fn token_kept_until(&self, identity: &Identity) -> Option<Timestamp> {
        let until = self.store.judge.kept_until(identity).await;
        until.ok().flatten()
    }

    /// Whether what is stored now can be delivered without the device: the gateway has a key for it, or keeps a token of its own
    /// that lasts for a while. Asked right before something is stored, for the hub may have refused the token meanwhile.
    async fn is_deliverable(&self, identity: &Identity) -> bool {
        let device = self.store.registry.device(identity).await;
        if device.is_ok_and(|device| device.is_some_and(|device| !device.is_passed_through)) {
            return true;
        }
        self.keeps_token(identity).await
    }

    /// What a write of one entry is called.
    pub(super) fn names(&self, terms: &Terms) -> Names {
        let first = match &terms.key {
            Some(key) => key.submission(),
            None => self.ids.next(),
        };
        Names {
            first,
            again: self.can_store(terms).then(|| self.ids.next()),
        }
    }

    /// What the part in this place of a request is called: by its own name if the request has a key, so that a copy finds it.
    pub(super) fn names_of_part(&self, terms: &Terms, names: &PartNames, place: usize) -> Names {
        let named = |part: fn(&PartNames, usize) -> SubmissionId| match &terms.key {
            Some(_) => part(names, place),
            None => self.ids.next(),
        };
        Names {
            first: named(PartNames::first),
            again: self.can_store(terms).then(|| named(PartNames::again)),
        }
    }

    /// Submits one entry, and waits until it has reached the hub or is stored.
    pub(super) async fn write(
        &self,
        identity: &Identity,
        names: Names,
        work: Work,
        terms: &Terms,
    ) -> Result<Reached<Done>, Error> {
        let until = terms.until();
        let fingerprint = terms.key.map(|key| key.fingerprint());
        let is_stored_first = terms.is_async || fingerprint.is_some();
        let again = match names.again {
            Some(_) if is_stored_first && !self.is_deliverable(identity).await => None,
            again => again,
        };
        let names = Names { again, ..names };
        let mut submission = draft(identity, names, work, until);
        submission.fingerprint = fingerprint;
        if names.again.is_some() && is_stored_first {
            submission.survival = Survival::Durable;
        }
        let entry = self.submit(submission).await?;
        let until = if terms.is_async && names.again.is_some() {
            Instant::now()
        } else {
            until
        };
        self.reached(entry, names.again, until).await
    }

    /// Waits until an entry has reached the hub. If it has not in time, it is stored under a name that it has or this one.
    pub(super) async fn reached(
        &self,
        mut entry: UnderWay,
        again: Option<SubmissionId>,
        until: Instant,
    ) -> Result<Reached<Done>, Error> {
        let Some(again) = again else {
            return self.outcome(entry, until).await.map(Reached::Hub);
        };
        match self.wait(&mut entry.ticket, until).await {
            Ok(Some(Ok(done))) => Ok(Reached::Hub(done)),
            // Boxed, for it is seldom, and every request would have room for it.
            Ok(Some(Err(failure))) => {
                Box::pin(self.settled(entry.submission, Err(failure), again)).await
            }
            // The time is over, or the gateway stops, which does no harm to what is stored.
            Ok(None) | Err(_) => Box::pin(self.keep(entry, again)).await,
        }
    }

    /// What is to be said of an entry whose outcome is known. What has failed, but not for good, is stored.
    async fn settled(
        &self,
        mut submission: Submission,
        outcome: Outcome,
        again: SubmissionId,
    ) -> Result<Reached<Done>, Error> {
        match outcome {
            Ok(done) => return Ok(Reached::Hub(done)),
            Err(failure) if failure.is_final() => return Err(failure.into()),
            Err(failure) if !self.is_deliverable(&submission.identity).await => {
                return Err(failure.into());
            }
            Err(_) => {}
        }
        submission.id = again;
        submission.survival = Survival::Durable;
        let mut entry = self.submit(submission).await?;
        // A copy of the request may have stored it long ago.
        match entry.ticket.now() {
            Ok(Some(outcome)) => Ok(Reached::Hub(outcome?)),
            Ok(None) | Err(TicketLost) => Ok(Reached::Stored(again)),
        }
    }

    /// Makes an entry durable.
    async fn keep(&self, mut entry: UnderWay, again: SubmissionId) -> Result<Reached<Done>, Error> {
        let id = entry.submission.id;
        let kept = match entry.submission.survival {
            Survival::Durable => Ok(()),
            Survival::Ephemeral { .. }
                if !self.is_deliverable(&entry.submission.identity).await =>
            {
                return Err(self.unsent(&entry.submission, Failure::NoSession).await);
            }
            Survival::Ephemeral { .. } => self.persist(&entry.submission).await,
        };
        match kept {
            Ok(()) => {}
            // It was given up, and what became of it is forgotten.
            Err(PersistError::Unknown) => {
                let outcome = Err(Failure::HubTimeout);
                return self.settled(entry.submission, outcome, again).await;
            }
            Err(PersistError::Store(error)) => {
                return Err(self.unsent(&entry.submission, error).await);
            }
        }
        // What has just been settled counts as stored, too.
        match entry.ticket.now() {
            Ok(Some(outcome)) => self.settled(entry.submission, outcome, again).await,
            Ok(None) | Err(TicketLost) => Ok(Reached::Stored(id)),
        }
    }

    async fn persist(&self, submission: &Submission) -> Result<(), PersistError> {
        let persist = || {
            let outbox = &self.store.outbox;
            outbox.persist(&submission.identity, submission.id)
        };
        for _ in 1..ATTEMPTS {
            match persist().await {
                Err(PersistError::Store(StoreError::UnknownOutcome)) => {}
                result => return result,
            }
        }
        persist().await
    }
}

/// An ephemeral submission that is waited for until then.
pub(super) fn draft(identity: &Identity, names: Names, work: Work, until: Instant) -> Submission {
    let grace = if names.again.is_some() {
        TO_PERSIST
    } else {
        Duration::ZERO
    };
    Submission {
        id: names.first,
        identity: identity.clone(),
        work: Arc::new(work),
        survival: Survival::Ephemeral {
            deadline: until + grace,
        },
        fingerprint: None::<Fingerprint>,
    }
}

/// Whether a token lasts long enough for what rests on it.
fn lasts(until: Option<Timestamp>) -> bool {
    let least = Timestamp::from(SystemTime::now()).saturating_add(LEAST_LIFE);
    until.is_some_and(|until| until > least)
}

/// How long a token of a device has to last for something to be stored that rests on it: a hub that is there is reached in that
/// time.
const LEAST_LIFE: Duration = Duration::from_secs(60);

/// How much longer an entry waits for its session than its request waits for the hub, so that it is there to be persisted.
///
/// Long, for what the session has given up meanwhile is stored under another name, and sent a second time: a disk that is slow
/// for a second is no reason for that.
const TO_PERSIST: Duration = Duration::from_secs(10);
