//! Feedback as the service receives it: in batches, each under a lock until it is completed or given back ("Understand
//! cloud-to-device messaging"; over HTTPS as the REST SDKs have it).
//!
//! ```text
//! push ─▶ gathering ──64 records, or 15 s after the first──▶ Waiting ──receive──▶ Locked ──complete──▶ gone
//!                                                               ▲──abandon, or the lock's time is over──┘
//! ```
//!
//! It needs no timer: what time brings about is done when somebody asks.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use iothub::{ErrorCode, Timestamp};

use super::FeedbackRecord;
use crate::hub::{Error, Hub, Now};

/// A batch of feedback under a lock.
#[derive(Clone, Debug)]
pub struct LockedFeedback {
    /// What settles it: a GUID.
    pub lock: String,
    /// When the batch was made.
    pub enqueued_at: Timestamp,
    /// What happened to the messages.
    pub records: Vec<FeedbackRecord>,
}

/// Batches, the oldest first.
#[derive(Default)]
pub(in crate::hub) struct FeedbackQueue {
    gathering: Vec<FeedbackRecord>,
    /// When what is gathered becomes a batch.
    due: Option<(Instant, Timestamp)>,
    batches: VecDeque<Batch>,
}

struct Batch {
    records: Vec<FeedbackRecord>,
    enqueued_at: Timestamp,
    deliveries: u32,
    lock: Option<(String, Instant)>,
}

impl FeedbackQueue {
    pub(super) fn push(&mut self, record: FeedbackRecord, most: usize, now: Now) {
        self.release(now);
        self.gathering.push(record);
        if self.gathering.len() == 1 {
            self.due = Some((now.at + GATHERING, now.utc.saturating_add(GATHERING)));
        }
        if self.gathering.len() >= BATCH {
            self.due = Some((now.at, now.utc));
            self.release(now);
        }
        let kept = |queue: &Self| queue.batches.iter().map(|b| b.records.len()).sum::<usize>();
        while kept(self) > most {
            self.batches.pop_front();
        }
    }

    /// What is due becomes a batch, what is too old goes, and locks end.
    fn release(&mut self, now: Now) {
        if let Some((at, enqueued_at)) = self.due
            && at <= now.at
        {
            self.due = None;
            self.batches.push_back(Batch {
                records: std::mem::take(&mut self.gathering),
                enqueued_at,
                deliveries: 0,
                lock: None,
            });
        }
        self.batches
            .retain(|batch| batch.enqueued_at.saturating_add(TTL) > now.utc);
        for batch in &mut self.batches {
            batch.lock.take_if(|(_, until)| *until <= now.at);
        }
    }

    fn locked(&self, token: &str) -> Result<usize, Error> {
        let is = |batch: &Batch| batch.lock.as_ref().is_some_and(|(lock, _)| lock == token);
        self.batches.iter().position(is).ok_or_else(|| {
            Error::new(
                ErrorCode::DeviceMessageLockLost,
                "The lock on the feedback is lost: its time is over, or the feedback is settled.",
            )
        })
    }
}

impl Hub {
    /// Locks the next batch of feedback, if there is one: `GET /messages/serviceBound/feedback`.
    pub fn receive_feedback(&mut self, now: Now) -> Option<LockedFeedback> {
        let queue = &mut self.feedback.queue;
        queue.release(now);
        let batch = queue
            .batches
            .iter_mut()
            .find(|batch| batch.lock.is_none())?;
        let lock = self.random.guid();
        batch.lock = Some((lock.clone(), now.at + LOCK));
        Some(LockedFeedback {
            lock,
            enqueued_at: batch.enqueued_at,
            records: batch.records.clone(),
        })
    }

    /// Takes a batch out for good: `DELETE .../{lock}`.
    ///
    /// # Errors
    ///
    /// The lock has ended or never was.
    pub fn complete_feedback(&mut self, lock: &str, now: Now) -> Result<(), Error> {
        let queue = &mut self.feedback.queue;
        queue.release(now);
        let index = queue.locked(lock)?;
        queue.batches.remove(index);
        Ok(())
    }

    /// Gives a batch back: `POST .../{lock}/abandon`. Given back ten times it is dropped.
    ///
    /// # Errors
    ///
    /// The lock has ended or never was.
    pub fn abandon_feedback(&mut self, lock: &str, now: Now) -> Result<(), Error> {
        let queue = &mut self.feedback.queue;
        queue.release(now);
        let index = queue.locked(lock)?;
        let batch = &mut queue.batches[index];
        batch.lock = None;
        batch.deliveries += 1;
        if batch.deliveries >= DELIVERIES {
            queue.batches.remove(index);
        }
        Ok(())
    }
}

/// Records of a batch ("Understand cloud-to-device messaging").
const BATCH: usize = 64;
/// How long records are gathered.
const GATHERING: Duration = Duration::from_secs(15);
/// How long a batch is kept, by default.
const TTL: Duration = Duration::from_secs(3600);
/// How long a batch is locked, by default.
const LOCK: Duration = Duration::from_secs(60);
/// How often a batch is delivered, by default.
const DELIVERIES: u32 = 10;
