//! What the front counts. No device in a label: a label's values must stay few.

use std::time::Duration;

use api::{
    Code, Operation,
    admin::{Disk, Side},
};
use http::StatusCode;
use iothub::Timestamp;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use store::Stock;

/// Requests by operation and class of status.
pub const REQUESTS: &str = "tombolo_front_requests_total";
/// Time from a request's head to its answer, by operation; long-polls included.
pub const REQUEST_SECONDS: &str = "tombolo_front_request_seconds";
/// Requests that are being answered.
pub const REQUESTS_IN_FLIGHT: &str = "tombolo_front_requests_in_flight";
/// Problems by code.
pub const PROBLEMS: &str = "tombolo_front_problems_total";
/// Requests whose handler panicked.
pub const PANICS: &str = "tombolo_front_panics_total";
/// Connections that are open.
pub const CONNECTIONS: &str = "tombolo_front_connections";
/// Connections closed at once because as many as may be were open.
pub const CONNECTIONS_REFUSED: &str = "tombolo_front_connections_refused_total";
/// TLS handshakes that came to nothing, by reason.
pub const HANDSHAKE_FAILURES: &str = "tombolo_front_handshake_failures_total";
/// Connections closed because a head did not end in time.
pub const SLOW_HEADS: &str = "tombolo_front_slow_heads_total";

/// What waits in the store, by `box`: `outbox`, `inbox`. This and all of the store is measured when somebody asks.
pub const STORE_WAITING: &str = "tombolo_store_waiting";
/// Bytes of what waits, by `box`.
pub const STORE_WAITING_BYTES: &str = "tombolo_store_waiting_bytes";
/// How long ago the oldest came of those that are the next of their device, by `box`; 0 if nothing waits.
pub const STORE_OLDEST_SECONDS: &str = "tombolo_store_oldest_age_seconds";
/// Dead letters that are kept, by `box`.
pub const STORE_DEAD_LETTERS: &str = "tombolo_store_dead_letters";
/// Bytes that the store's log may have on its disk.
pub const STORE_BYTES_AT_MOST: &str = "tombolo_store_bytes_at_most";
/// How long the last start read the log.
pub const STORE_RECOVERY_SECONDS: &str = "tombolo_store_recovery_seconds";

/// Why a TLS handshake came to nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HandshakeFailure {
    /// It took too long.
    Timeout,
    /// The client spoke no TLS that we speak, or left.
    Tls,
}

/// Handles of all that is counted often, so that counting looks nothing up.
pub(crate) struct Metrics {
    requests: Vec<PerOperation>,
    pub(crate) requests_in_flight: Gauge,
    pub(crate) panics: Counter,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) slow_heads: Counter,
    handshake_timeouts: Counter,
    handshake_errors: Counter,
}

struct PerOperation {
    by_class: [Counter; 4],
    seconds: Histogram,
}

impl Metrics {
    /// Registers everything with the recorder that is installed.
    pub(crate) fn new() -> Self {
        describe();
        describe_store();
        let operations = Operation::ALL.iter().map(|operation| operation.id());
        Self {
            requests: operations
                .chain([NO_OPERATION])
                .map(PerOperation::new)
                .collect(),
            requests_in_flight: gauge!(REQUESTS_IN_FLIGHT),
            panics: counter!(PANICS),
            connections: gauge!(CONNECTIONS),
            connections_refused: counter!(CONNECTIONS_REFUSED),
            slow_heads: counter!(SLOW_HEADS),
            handshake_timeouts: counter!(HANDSHAKE_FAILURES, "reason" => "timeout"),
            handshake_errors: counter!(HANDSHAKE_FAILURES, "reason" => "tls"),
        }
    }

    /// Counts an answered request; no operation if its path or method is unknown.
    pub(crate) fn answered(&self, operation: Option<Operation>, status: StatusCode, seconds: f64) {
        // The last place is for requests without operation.
        let place = operation.map_or(Operation::ALL.len(), |operation| operation as usize);
        if let Some(counted) = self.requests.get(place) {
            let class = usize::from(status.as_u16() / 100).clamp(2, 5) - 2;
            counted.by_class[class].increment(1);
            counted.seconds.record(seconds);
        }
    }

    /// Counts a problem.
    #[expect(clippy::unused_self, reason = "counting goes through one place")]
    pub(crate) fn problem(&self, code: Code) {
        counter!(PROBLEMS, "code" => code.as_str()).increment(1);
    }

    /// Says what waits. Asked for seldom, so it looks its gauges up.
    #[expect(clippy::unused_self, reason = "measuring goes through one place")]
    pub(crate) fn stock(&self, side: Side, stock: &Stock, now: Timestamp) {
        let side = side.as_str();
        let age = stock.oldest.map(|oldest| now.saturating_since(oldest));
        gauge!(STORE_WAITING, "box" => side).set(as_f64(stock.waiting));
        gauge!(STORE_WAITING_BYTES, "box" => side).set(as_f64(stock.bytes));
        gauge!(STORE_OLDEST_SECONDS, "box" => side).set(age.unwrap_or_default());
        gauge!(STORE_DEAD_LETTERS, "box" => side).set(as_f64(stock.dead_letters));
    }

    /// Says what the store has on its disk.
    #[expect(clippy::unused_self, reason = "measuring goes through one place")]
    pub(crate) fn disk(&self, disk: &Disk) {
        // The store says it with each record; whoever asks before the first one is answered, too.
        gauge!(store::metrics::BYTES).set(as_f64(disk.bytes));
        gauge!(STORE_BYTES_AT_MOST).set(as_f64(disk.bytes_at_most));
        let took = Duration::from_millis(disk.recovery.took_ms);
        gauge!(STORE_RECOVERY_SECONDS).set(took);
    }

    /// Counts a handshake that came to nothing.
    pub(crate) fn handshake_failed(&self, failure: HandshakeFailure) {
        match failure {
            HandshakeFailure::Timeout => self.handshake_timeouts.increment(1),
            HandshakeFailure::Tls => self.handshake_errors.increment(1),
        }
    }
}

impl PerOperation {
    fn new(operation: &'static str) -> Self {
        let class = |class| counter!(REQUESTS, "operation" => operation, "status" => class);
        Self {
            by_class: [class("2xx"), class("3xx"), class("4xx"), class("5xx")],
            seconds: histogram!(REQUEST_SECONDS, "operation" => operation),
        }
    }
}

/// A gauge is a float; beyond 2^53 it is near enough.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

fn describe() {
    describe_counter!(REQUESTS, "Requests by operation and class of status");
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "Time from a request's head to its answer, long-polls included"
    );
    describe_gauge!(REQUESTS_IN_FLIGHT, "Requests that are being answered");
    describe_counter!(PROBLEMS, "Problems by code");
    describe_counter!(PANICS, "Requests whose handler panicked");
    describe_gauge!(CONNECTIONS, "Connections that are open");
    describe_counter!(
        CONNECTIONS_REFUSED,
        "Connections closed because as many as may be were open"
    );
    describe_counter!(
        HANDSHAKE_FAILURES,
        "TLS handshakes that came to nothing, by reason"
    );
    describe_counter!(
        SLOW_HEADS,
        "Connections closed because a head did not end in time"
    );
}

fn describe_store() {
    describe_gauge!(STORE_WAITING, "What waits in the store, by box");
    describe_gauge!(
        STORE_WAITING_BYTES,
        Unit::Bytes,
        "Bytes of what waits, by box"
    );
    describe_gauge!(
        STORE_OLDEST_SECONDS,
        Unit::Seconds,
        "Age of the oldest of those that are the next of their device, by box"
    );
    describe_gauge!(STORE_DEAD_LETTERS, "Dead letters that are kept, by box");
    describe_gauge!(
        STORE_BYTES_AT_MOST,
        Unit::Bytes,
        "Bytes that the store's log may have"
    );
    describe_gauge!(
        STORE_RECOVERY_SECONDS,
        Unit::Seconds,
        "How long the last start read the store's log"
    );
}

const NO_OPERATION: &str = "none";
