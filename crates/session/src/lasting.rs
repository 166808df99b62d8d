//! What outlives connections: who speaks, what is wanted, what must still reach the hub, what waits to be polled.

use std::{collections::VecDeque, mem, sync::Arc, time::Instant};

use bytes::Bytes;
use iothub::Identity;

use crate::{Config, Event, Subscriptions, WorkId, telemetry::TelemetryWindow, twin::TwinRequests};

/// The part of a session that every connection works on.
pub(crate) struct Lasting {
    pub(crate) identity: Identity,
    pub(crate) config: Arc<Config>,
    pub(crate) wanted: Subscriptions,
    pub(crate) telemetry: TelemetryWindow,
    pub(crate) twin: TwinRequests,
    pub(crate) out: Out,
}

impl Lasting {
    pub(crate) fn new(identity: Identity, config: Arc<Config>, first_rid: u64) -> Self {
        Self {
            identity,
            config,
            wanted: Subscriptions::default(),
            telemetry: TelemetryWindow::default(),
            twin: TwinRequests::new(first_rid),
            out: Out::default(),
        }
    }

    /// Gives up everything that has not reached the hub for sure.
    pub(crate) fn give_up(&mut self) {
        let unfinished: Vec<WorkId> = self.telemetry.drain().chain(self.twin.drain()).collect();
        self.out
            .events
            .extend(unfinished.into_iter().map(Event::Gone));
    }
}

/// What waits to be polled.
#[derive(Default)]
pub(crate) struct Out {
    packets: Vec<u8>,
    last_write: Option<Instant>,
    events: VecDeque<Event>,
}

impl Out {
    /// Where packets are written. Counts as a write for the keep-alive, so it is called to write.
    pub(crate) fn packets(&mut self, now: Instant) -> &mut Vec<u8> {
        self.last_write = Some(now);
        &mut self.packets
    }

    /// When a packet was written last, on whatever connection.
    pub(crate) fn last_write(&self) -> Option<Instant> {
        self.last_write
    }

    /// Forgets packets that were written for a connection that has ended.
    pub(crate) fn forget_packets(&mut self) {
        self.packets = Vec::new();
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Everything that waits to be written, as one piece. The buffer goes along: an idle session holds none.
    pub(crate) fn take_packets(&mut self) -> Option<Bytes> {
        (!self.packets.is_empty()).then(|| mem::take(&mut self.packets).into())
    }

    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        release_if_empty(&mut self.events);
        event
    }
}

/// Gives the memory of a collection back once nothing is in it. Most sessions are idle most of the time, and there
/// are very many of them.
pub(crate) fn release_if_empty<C: Default>(collection: &mut C)
where
    for<'a> &'a C: IntoIterator,
{
    if collection.into_iter().next().is_none() {
        *collection = C::default();
    }
}
