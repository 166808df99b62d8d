//! What this half measures. No label names a device.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use store::{Lane, SessionState, Verdict};

/// Sessions by `state`.
pub const SESSIONS: &str = "tombolo_sessions";
/// Attempts to connect, by `outcome`: `connected`, `refused`, `failed`.
pub const CONNECTS: &str = "tombolo_connects_total";
/// Time from the turn to connect until the socket is there.
pub const CONNECT_SECONDS: &str = "tombolo_connect_seconds";
/// Connections that ended, by `reason`.
pub const DISCONNECTS: &str = "tombolo_disconnects_total";
/// Sessions that ended because another device waited and the node held as many as it may.
pub const SESSIONS_DISPLACED: &str = "tombolo_sessions_displaced_total";
/// Outbox entries that are done, by `lane` and `outcome`: `done`, `failed`.
pub const OUTBOX_SETTLED: &str = "tombolo_outbox_settled_total";
/// Time that an entry waited in the outbox, by `lane`.
pub const OUTBOX_WAIT_SECONDS: &str = "tombolo_outbox_wait_seconds";
/// Time from a session's taking of an entry until the hub has acknowledged or answered it, by `lane`.
pub const HUB_SECONDS: &str = "tombolo_hub_seconds";
/// Cloud-to-device messages that the hub delivered.
pub const MESSAGES_RECEIVED: &str = "tombolo_messages_received_total";
/// Cloud-to-device messages that the hub delivered and that cannot be read: they are acknowledged and shown to nobody.
pub const MESSAGES_UNREADABLE: &str = "tombolo_messages_unreadable_total";
/// Tokens of devices that were judged, by `verdict`: `checked`, `accepted`, `refused`, `undecided`, `unknown_device`.
pub const TOKENS_JUDGED: &str = "tombolo_tokens_judged_total";
/// Direct methods that the hub delivered, by `outcome`: `offered`, `answered`, `refused`.
pub const METHODS_RECEIVED: &str = "tombolo_methods_received_total";

/// Handles to all of them: looking one up costs more than counting.
pub(crate) struct Meters {
    pub(crate) connected: Counter,
    pub(crate) refused: Counter,
    pub(crate) failed: Counter,
    pub(crate) connect_seconds: Histogram,
    pub(crate) displaced: Counter,
    pub(crate) messages_received: Counter,
    pub(crate) messages_unreadable: Counter,
    pub(crate) methods_offered: Counter,
    pub(crate) methods_answered: Counter,
    pub(crate) methods_refused: Counter,
    lanes: [LaneMeters; Lane::ALL.len()],
    sessions: [Gauge; STATES.len()],
}

/// What is measured of each lane.
pub(crate) struct LaneMeters {
    pub(crate) done: Counter,
    pub(crate) failed: Counter,
    pub(crate) wait_seconds: Histogram,
    pub(crate) hub_seconds: Histogram,
}

impl Meters {
    /// Describes and registers everything with the recorder that is installed by now.
    pub(crate) fn register() -> Self {
        describe();
        let received = |outcome| counter!(METHODS_RECEIVED, "outcome" => outcome);
        Self {
            connected: counter!(CONNECTS, "outcome" => "connected"),
            refused: counter!(CONNECTS, "outcome" => "refused"),
            failed: counter!(CONNECTS, "outcome" => "failed"),
            connect_seconds: histogram!(CONNECT_SECONDS),
            displaced: counter!(SESSIONS_DISPLACED),
            messages_received: counter!(MESSAGES_RECEIVED),
            messages_unreadable: counter!(MESSAGES_UNREADABLE),
            methods_offered: received("offered"),
            methods_answered: received("answered"),
            methods_refused: received("refused"),
            lanes: Lane::ALL.map(|lane| {
                let name = lane_name(lane);
                LaneMeters {
                    done: counter!(OUTBOX_SETTLED, "lane" => name, "outcome" => "done"),
                    failed: counter!(OUTBOX_SETTLED, "lane" => name, "outcome" => "failed"),
                    wait_seconds: histogram!(OUTBOX_WAIT_SECONDS, "lane" => name),
                    hub_seconds: histogram!(HUB_SECONDS, "lane" => name),
                }
            }),
            sessions: STATES.map(|state| gauge!(SESSIONS, "state" => state_name(state))),
        }
    }

    pub(crate) const fn lane(&self, lane: Lane) -> &LaneMeters {
        &self.lanes[lane as usize]
    }

    /// A connection has ended. Rare enough to look the counter up.
    pub(crate) fn disconnected(reason: &'static str) {
        counter!(DISCONNECTS, "reason" => reason).increment(1);
    }

    /// A token was judged.
    pub(crate) fn judged(verdict: Verdict) {
        let name = match verdict {
            Verdict::Checked { .. } => "checked",
            Verdict::Accepted { .. } => "accepted",
            Verdict::Refused => "refused",
            Verdict::Undecided => "undecided",
            Verdict::UnknownDevice => "unknown_device",
        };
        counter!(TOKENS_JUDGED, "verdict" => name).increment(1);
    }

    /// A session goes from one state to another; closed sessions are not counted.
    pub(crate) fn session_moved(&self, from: SessionState, to: SessionState) {
        if let Some(place) = STATES.iter().position(|state| *state == from) {
            self.sessions[place].decrement(1);
        }
        if let Some(place) = STATES.iter().position(|state| *state == to) {
            self.sessions[place].increment(1);
        }
    }
}

fn describe() {
    describe_gauge!(SESSIONS, "Sessions by state");
    describe_counter!(CONNECTS, "Attempts to connect to a hub, by outcome");
    describe_histogram!(
        CONNECT_SECONDS,
        Unit::Seconds,
        "Time for name, TCP and TLS of a connection to a hub"
    );
    describe_counter!(DISCONNECTS, "Connections to a hub that ended, by reason");
    describe_counter!(
        SESSIONS_DISPLACED,
        "Idle sessions that ended in favour of a device that waited for a place"
    );
    describe_counter!(
        OUTBOX_SETTLED,
        "Outbox entries that are done, by lane and outcome"
    );
    describe_histogram!(
        OUTBOX_WAIT_SECONDS,
        Unit::Seconds,
        "Time that an entry waited in the outbox until its session took it"
    );
    describe_histogram!(
        HUB_SECONDS,
        Unit::Seconds,
        "Time until the hub had acknowledged or answered what its session took"
    );
    describe_counter!(
        MESSAGES_RECEIVED,
        "Cloud-to-device messages that hubs delivered"
    );
    describe_counter!(
        MESSAGES_UNREADABLE,
        "Cloud-to-device messages that cannot be read and were acknowledged all the same"
    );
    describe_counter!(
        TOKENS_JUDGED,
        "Tokens of devices that were judged, by verdict"
    );
    describe_counter!(
        METHODS_RECEIVED,
        "Direct methods that hubs delivered, by what became of them"
    );
}

const fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Answers => "answers",
        Lane::Twin => "twin",
        Lane::Telemetry => "telemetry",
    }
}

const fn state_name(state: SessionState) -> &'static str {
    match state {
        SessionState::Closed => "closed",
        SessionState::Connecting => "connecting",
        SessionState::Connected => "connected",
        SessionState::Settled => "settled",
        SessionState::Refused => "refused",
        SessionState::Unreachable => "unreachable",
    }
}

const STATES: [SessionState; 5] = [
    SessionState::Connecting,
    SessionState::Connected,
    SessionState::Settled,
    SessionState::Refused,
    SessionState::Unreachable,
];
