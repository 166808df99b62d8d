//! Delivery feedback for the senders of cloud-to-device messages ("Understand cloud-to-device messaging").

mod queue;

use std::{collections::VecDeque, sync::Arc};

use iothub::{AckRequest, DeviceId, Timestamp};

use self::queue::FeedbackQueue;
pub use self::queue::LockedFeedback;
use super::{Hub, Now};

/// How a message ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeedbackStatus {
    /// The device completed it.
    Success,
    /// It expired.
    Expired,
    /// The device rejected it.
    Rejected,
    /// It was delivered too often.
    DeliveryCountExceeded,
    /// The queue was purged.
    Purged,
}

/// What the sender of a message is told.
#[derive(Clone, Debug)]
pub struct FeedbackRecord {
    /// Running number, from 1.
    pub sequence: u64,
    /// The message's own id, if its sender gave one.
    pub original_message_id: Option<String>,
    /// When the message ended.
    pub at: Timestamp,
    /// How it ended.
    pub status: FeedbackStatus,
    /// Whose message it was.
    pub device_id: DeviceId,
    /// Which of the devices with this id.
    pub generation_id: Arc<str>,
}

pub(super) struct FeedbackLog {
    records: VecDeque<FeedbackRecord>,
    next: u64,
    most: usize,
    /// The same records, for who takes them.
    queue: FeedbackQueue,
}

impl FeedbackStatus {
    /// `statusCode` of a feedback record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Expired => "Expired",
            Self::Rejected => "Rejected",
            Self::DeliveryCountExceeded => "DeliveryCountExceeded",
            Self::Purged => "Purged",
        }
    }

    /// `positive`: only when completed, `negative`: only when dead-lettered, `full`: both. A purge is neither completed nor
    /// dead-lettered, but has a status code of its own; here it counts as negative.
    pub(super) const fn is_wanted(self, ack: AckRequest) -> bool {
        let is_success = matches!(self, Self::Success);
        match ack {
            AckRequest::None => false,
            AckRequest::Positive => is_success,
            AckRequest::Negative => !is_success,
            AckRequest::Full => true,
        }
    }
}

impl FeedbackLog {
    pub(super) fn new(most: usize) -> Self {
        Self {
            records: VecDeque::new(),
            next: 1,
            most,
            queue: FeedbackQueue::default(),
        }
    }

    pub(super) fn push(
        &mut self,
        device_id: &DeviceId,
        generation_id: &Arc<str>,
        original_message_id: Option<String>,
        status: FeedbackStatus,
        now: Now,
    ) {
        let record = FeedbackRecord {
            sequence: self.next,
            original_message_id,
            at: now.utc,
            status,
            device_id: device_id.clone(),
            generation_id: Arc::clone(generation_id),
        };
        self.queue.push(record.clone(), self.most, now);
        self.records.push_back(record);
        self.next += 1;
        while self.records.len() > self.most {
            self.records.pop_front();
        }
    }
}

impl Hub {
    /// The feedback records that are kept, from the number `from` on.
    #[must_use]
    pub fn feedback(&self, from: u64) -> Vec<FeedbackRecord> {
        let records = self.feedback.records.iter();
        records.filter(|r| r.sequence >= from).cloned().collect()
    }
}
