//! Who needs a device's session, and what the session says of itself, as a state machine.

use std::time::Instant;

use super::MEMORY_OF_OUTCOMES;
use crate::{Need, Needs, NeedsNow, NodeId, SessionState, Status};

/// Needs, attendance and status of one device.
pub(super) struct Presence {
    session: Count,
    methods: Count,
    desired: Count,
    attendance: Attendance,
    last_attendant: u64,
    status: Status,
}

/// ```text
///   nobody --(a need, an entry)--> queued --next_wanted--> handed out --attend--> attended
///     ^                              |                        |                      |
///     +---(nothing to do any more)---+------------------------+---(its end) ---------+
/// ```
#[derive(Clone, PartialEq, Eq)]
enum Attendance {
    /// Nobody attends, and nobody was asked to.
    Nobody,
    /// It stands in the queue of wanted devices.
    Queued,
    /// This node was told, at this moment, and has not come yet.
    HandedOut(NodeId, Instant),
    /// A session attends.
    Attended(AttendantId),
}

/// One attendance.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct AttendantId(u64);

/// Demands of one kind.
#[derive(Clone, Copy, Default)]
struct Count {
    living: usize,
    ended_at: Option<Instant>,
}

impl Presence {
    pub(super) fn new() -> Self {
        Self {
            session: Count::default(),
            methods: Count::default(),
            desired: Count::default(),
            attendance: Attendance::Nobody,
            last_attendant: 0,
            status: Status::default(),
        }
    }

    /// A demand begins.
    pub(super) fn begin(&mut self, needs: Needs) {
        self.counts(needs).for_each(|count| count.living += 1);
    }

    /// A demand ends.
    pub(super) fn end(&mut self, needs: Needs, now: Instant) {
        self.counts(needs).for_each(|count| {
            count.living -= 1;
            count.ended_at = Some(now);
        });
    }

    /// Puts the device into the queue, if it is not there and nobody attends or is about to: true if whoever calls
    /// has to queue it. A node that was told and has not come within `patience` will not come.
    pub(super) fn enqueue(&mut self, now: Instant, patience: std::time::Duration) -> bool {
        let is_free = match &self.attendance {
            Attendance::Nobody => true,
            Attendance::HandedOut(_, at) => now.saturating_duration_since(*at) >= patience,
            Attendance::Queued | Attendance::Attended(_) => false,
        };
        if is_free {
            self.attendance = Attendance::Queued;
        }
        is_free
    }

    /// Takes the device out of the queue, to tell a node of it if it `is_wanted` still.
    pub(super) fn dequeue(&mut self, is_wanted: bool, node: &NodeId, now: Instant) -> bool {
        // Somebody may have come unasked.
        let is_handed_out = self.attendance == Attendance::Queued && is_wanted;
        if is_handed_out {
            self.attendance = Attendance::HandedOut(node.clone(), now);
        } else if self.attendance == Attendance::Queued {
            self.attendance = Attendance::Nobody;
        }
        is_handed_out
    }

    /// A session comes; one that came before has no say any more.
    pub(super) fn attend(&mut self) -> AttendantId {
        self.last_attendant += 1;
        let attendant = AttendantId(self.last_attendant);
        self.attendance = Attendance::Attended(attendant);
        attendant
    }

    /// A session goes.
    pub(super) fn leave(&mut self, attendant: AttendantId) {
        if self.attendance == Attendance::Attended(attendant) {
            self.attendance = Attendance::Nobody;
        }
    }

    /// The partition has another owner: whoever attends or was told is out, but for the new owner itself, which has
    /// acquired the partition because it was told.
    pub(super) fn hand_over(&mut self, owner: &NodeId) {
        match &self.attendance {
            Attendance::HandedOut(node, _) if node == owner => {}
            Attendance::HandedOut(..) | Attendance::Attended(_) => {
                self.attendance = Attendance::Nobody;
            }
            Attendance::Nobody | Attendance::Queued => {}
        }
    }

    /// True if it was another.
    pub(super) fn set_status(&mut self, status: Status) -> bool {
        let is_change = self.status != status;
        self.status = status;
        is_change
    }

    pub(super) const fn status(&self) -> &Status {
        &self.status
    }

    pub(super) const fn is_needed(&self) -> bool {
        self.session.living > 0
    }

    pub(super) fn needs(&self) -> NeedsNow {
        NeedsNow {
            session: self.session.need(),
            methods: self.methods.need(),
            desired: self.desired.need(),
        }
    }

    /// Whether nothing is lost if this is forgotten.
    pub(super) fn is_empty(&self, now: Instant) -> bool {
        let is_recent = self
            .session
            .ended_at
            .is_some_and(|at| now.saturating_duration_since(at) < MEMORY_OF_OUTCOMES);
        let is_attended = match self.attendance {
            Attendance::Nobody | Attendance::HandedOut(..) => false,
            Attendance::Queued | Attendance::Attended(_) => true,
        };
        !self.is_needed() && !is_recent && !is_attended && self.status.state == SessionState::Closed
    }

    /// The counts that a demand is counted in.
    fn counts(&mut self, needs: Needs) -> impl Iterator<Item = &mut Count> {
        [
            (true, &mut self.session),
            (needs.methods, &mut self.methods),
            (needs.desired, &mut self.desired),
        ]
        .into_iter()
        .filter_map(|(is_needed, count)| is_needed.then_some(count))
    }
}

impl Count {
    fn need(self) -> Need {
        match (self.living, self.ended_at) {
            (0, None) => Need::Never,
            (0, Some(at)) => Need::Until(at),
            (_, _) => Need::Now,
        }
    }
}
