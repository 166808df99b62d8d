//! Whether this gateway can serve devices: its listeners accept connections, and its store takes what devices send.
//!
//! Whether a hub can be reached is told, and changes nothing: a gateway that were taken out for a hub's fault would be
//! missed by those who wait for the hub to come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::Code;
use iothub::{DeviceId, Identity};
use serde::Serialize;
use store::SubmissionId;
use tokio::time::timeout;

use super::Admin;
use crate::{
    HubReport,
    http::{
        answer::{self, Answer},
        problem::Refusal,
    },
};

/// How many listeners accept connections, of those that were bound.
#[derive(Default)]
pub(crate) struct Listeners {
    bound: AtomicUsize,
    accepting: AtomicUsize,
}

/// One listener, as long as it accepts.
pub(crate) struct Accepting(Arc<Listeners>);

impl Listeners {
    /// A listener begins to accept, until the answer is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Accepting {
        self.bound.fetch_add(1, Ordering::Relaxed);
        self.accepting.fetch_add(1, Ordering::Relaxed);
        Accepting(Arc::clone(self))
    }

    /// How many there are, if all of them accept.
    fn all(&self) -> Option<usize> {
        let bound = self.bound.load(Ordering::Relaxed);
        (self.accepting.load(Ordering::Relaxed) == bound).then_some(bound)
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What `/readyz` answers.
#[derive(Serialize)]
struct Ready {
    listeners: usize,
    store: &'static str,
    hubs: Vec<HubReport>,
}

impl Admin {
    pub(super) async fn ready(&self) -> Result<Answer, Refusal> {
        if self.stopping.is_cancelled() {
            return Err(Refusal::new(Code::Stopping, "the gateway is stopping"));
        }
        let Some(listeners) = self.listeners.all() else {
            let detail = "a listener does not accept connections any more";
            return Err(Refusal::new(Code::Internal, detail));
        };
        if !self.is_store_accepting().await {
            return Err(Refusal::new(
                Code::Overloaded,
                "the store takes nothing at this moment",
            ));
        }
        Ok(answer::json(&Ready {
            listeners,
            store: "accepting",
            hubs: (self.report_hubs)(),
        }))
    }

    /// Whether the outbox works: it is asked to take back what nobody has submitted, which changes nothing.
    async fn is_store_accepting(&self) -> bool {
        let Some(hub) = self.hubs.first() else {
            return true;
        };
        let device: DeviceId = "readyz".parse().expect("it is an id");
        let identity = Identity::device(hub.clone(), device);
        let nothing = self.store.outbox.take_back(&identity, SubmissionId(0));
        timeout(PATIENCE, nothing)
            .await
            .is_ok_and(|answer| answer.is_ok())
    }
}

/// How long the store may take; whoever asks waits a few seconds at most.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_has_ended_is_missed() {
        let listeners = Arc::<Listeners>::default();
        let (one, _two) = (listeners.begin(), listeners.begin());
        assert_eq!(listeners.all(), Some(2));
        drop(one);
        assert_eq!(listeners.all(), None);
    }
}
