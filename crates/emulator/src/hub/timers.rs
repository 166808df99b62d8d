//! One heap for all timers.
//!
//! An entry is a promise to look again, not a truth: whoever is looked at decides by its own fields whether something is
//! due. So nothing is ever removed from the middle, and a packet that moves a keep-alive deadline costs no heap operation.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use iothub::DeviceId;

use super::{CallId, ConnectionId, FaultId, JobId, Now};

/// Who wants to be looked at.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// No CONNECT, keep-alive, token expiry, held packets, held messages, the end of a freeze.
    Connection(ConnectionId),
    /// A cloud-to-device message expires, or its lock ends.
    Messages(DeviceId),
    /// A direct method's device did not come, or did not answer.
    Call(CallId),
    /// A fault begins or ends.
    Fault(FaultId),
    /// A job starts, goes on, or has been kept long enough.
    Job(JobId),
}

#[derive(Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Instant, Timer)>>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    pub(super) fn pop_due(&mut self, now: Now) -> Option<Timer> {
        if self.next()? > now.at {
            return None;
        }
        self.0.pop().map(|Reverse((_, timer))| timer)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }
}
