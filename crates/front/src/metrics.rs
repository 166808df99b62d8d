//! What the front counts. No device in a label: a label's values must stay few.

use api::{Code, Operation};
use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

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

const NO_OPERATION: &str = "none";
