//! All that the engine knows of one device.

use std::sync::atomic::Ordering;

use iothub::Identity;
use parking_lot::Mutex;

use super::{
    Engine, Moment,
    bell::Bell,
    lanes::Lanes,
    mailbox::{Mailbox, Owner},
    presence::Presence,
    pulse::Pulse,
};
use crate::Partition;

/// One device. Of several locks, presence is taken first.
pub(super) struct Cell {
    pub(super) identity: Identity,
    /// Kept because it is a hash.
    pub(super) partition: Partition,
    pub(super) presence: Mutex<Presence>,
    pub(super) lanes: Mutex<Lanes>,
    pub(super) mailbox: Mutex<Mailbox>,
    /// Rings when an empty lane has got an entry, and when the lanes have another reader.
    pub(super) submitted: Bell,
    /// Beats when the inbox or the status changes.
    pub(super) changed: Pulse,
    /// Rings when the needs change.
    pub(super) needs: Bell,
}

impl Cell {
    pub(super) fn new(identity: Identity, partition: Partition, first_sequence: u64) -> Self {
        Self {
            identity,
            partition,
            presence: Mutex::new(Presence::new()),
            lanes: Mutex::new(Lanes::new()),
            mailbox: Mutex::new(Mailbox::new(first_sequence)),
            submitted: Bell::default(),
            changed: Pulse::default(),
            needs: Bell::default(),
        }
    }

    /// Gives up what is over, and forgets what is old.
    pub(super) fn tidy(&self, engine: &Engine, now: Moment) {
        let freed = engine.lanes(self).tidy(now);
        engine.outbox_bytes.fetch_sub(freed, Ordering::Relaxed);
        let owner = Owner {
            identity: &self.identity,
            config: &engine.config,
        };
        engine.mailbox(self).tidy(owner, now);
    }

    /// Whether nothing is lost if the cell is.
    pub(super) fn is_empty(&self, now: Moment) -> bool {
        self.presence.lock().is_empty(now.instant)
            && self.lanes.lock().is_empty()
            && self.mailbox.lock().is_empty()
    }
}
