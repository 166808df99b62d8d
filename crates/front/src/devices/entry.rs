//! An entry's way through the outbox: submitted, waited for, taken back if no session has come for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use iothub::Identity;
use store::{
    Done, Failure, Outcome, StoreError, Submission, SubmissionId, SubmitError, Survival, Ticket,
    Work,
};
use tokio::time::{sleep_until, timeout};

use super::{Devices, Error};

/// An entry that was submitted.
pub(super) struct UnderWay {
    pub(super) submission: Submission,
    pub(super) ticket: Ticket<Outcome>,
}

impl Devices {
    /// Submits one entry that is never stored, and waits for its outcome.
    pub(super) async fn carry_out(
        &self,
        identity: &Identity,
        work: Work,
        wait: Duration,
    ) -> Result<Done, Error> {
        let deadline = Instant::now() + wait.max(SHORTEST_WAIT);
        let submission = Submission {
            id: self.ids.next(),
            identity: identity.clone(),
            work: Arc::new(work),
            survival: Survival::Ephemeral { deadline },
            fingerprint: None,
        };
        let entry = self.submit(submission).await?;
        self.outcome(entry, deadline).await
    }

    /// Submits again under the same id if the answer was lost, which does nothing twice.
    pub(super) async fn submit(&self, submission: Submission) -> Result<UnderWay, SubmitError> {
        let submit = || self.store.outbox.submit(submission.clone());
        let mut submitted = submit().await;
        for _ in 1..ATTEMPTS {
            match submitted {
                Err(SubmitError::Store(StoreError::UnknownOutcome)) => submitted = submit().await,
                Ok(_) | Err(_) => break,
            }
        }
        let ticket = submitted?;
        Ok(UnderWay { submission, ticket })
    }

    /// Waits for what a ticket brings, until the deadline or the last call.
    pub(super) async fn wait<T>(
        &self,
        ticket: &mut Ticket<T>,
        deadline: Instant,
    ) -> Result<Option<T>, Error> {
        // Nearly every write that is to be stored at once comes here so: it needs no timer.
        if deadline <= Instant::now() {
            return Ok(ticket.now()?);
        }
        tokio::select! {
            biased;
            brought = ticket => Ok(Some(brought?)),
            () = sleep_until(deadline.into()) => Ok(None),
            () = self.last_call.cancelled() => Err(Error::Unfinished),
        }
    }

    /// Waits for the outcome of an entry that is not stored.
    pub(super) async fn outcome(
        &self,
        mut entry: UnderWay,
        deadline: Instant,
    ) -> Result<Done, Error> {
        // The session gives the entry up at the deadline and knows best why, so it gets a moment to say so.
        if let Some(outcome) = self.wait(&mut entry.ticket, deadline + SLACK).await? {
            return Ok(outcome?);
        }
        Err(self.unsent(&entry.submission, Failure::NoSession).await)
    }

    /// What is to be said of an entry that nobody waits for any more and that is not stored: why, if the hub cannot have it.
    pub(super) async fn unsent(&self, submission: &Submission, why: impl Into<Error>) -> Error {
        if self.takes_back(submission).await {
            why.into()
        } else {
            Failure::HubTimeout.into()
        }
    }

    /// Takes an entry back that no session has taken. Where the store does not say, the worse is true: the hub may have it.
    pub(super) async fn takes_back(&self, submission: &Submission) -> bool {
        let outbox = &self.store.outbox;
        let taken_back = outbox.take_back(&submission.identity, submission.id);
        timeout(SLACK, taken_back).await == Ok(Ok(true))
    }
}

/// Makes ids that no other submission has: 64 random bits of this process, and a count.
pub(super) struct SubmissionIds {
    process: u64,
    count: AtomicU64,
}

impl SubmissionIds {
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self {
            process: getrandom::u64()?,
            count: AtomicU64::new(0),
        })
    }

    pub(super) fn next(&self) -> SubmissionId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        SubmissionId(u128::from(self.process) << 64 | u128::from(count))
    }
}

/// A write that does not wait for the hub cannot say anything that is true, so it waits this long at least.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// How much later than the entry's deadline its outcome may come.
const SLACK: Duration = Duration::from_millis(250);

/// How often a call of the store is made whose answer is lost.
pub(super) const ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submission_ids_differ() {
        let ids = SubmissionIds::new().unwrap();
        assert_ne!(ids.next(), ids.next());
    }
}
