//! Direct methods that are in the inbox and not answered.
//!
//! As long as there is one the method subscription stands, because the hub drops the answer of a device that has none.

use std::time::Instant;

use store::MethodRequestId;

/// The open requests of one connection.
#[derive(Default)]
pub(super) struct Calls(Vec<(MethodRequestId, Instant)>);

impl Calls {
    /// A request can be answered until `deadline`.
    pub(super) fn open(&mut self, request: MethodRequestId, deadline: Instant) {
        self.0.push((request, deadline));
    }

    /// It is answered.
    pub(super) fn close(&mut self, request: &MethodRequestId) {
        self.0.retain(|(open, _)| open != request);
    }

    /// The connection has ended, and all of them with it.
    pub(super) fn close_all(&mut self) {
        self.0 = Vec::new();
    }

    /// Forgets those that are too late to be answered.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|(_, deadline)| now < *deadline);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the first of them will be too late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|(_, deadline)| *deadline).min()
    }
}
