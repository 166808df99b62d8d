//! Answers to direct methods in flight. They live and die with their connection.

use std::time::Instant;

use iothub::{
    MethodResponse,
    topic::{RequestId, ToHub},
};

use super::PacketIds;
use crate::{
    WorkId,
    lasting::Out,
    wire::{self, Delivery},
};

/// The answers without a PUBACK, oldest first.
pub(super) struct Answers(Vec<Answer>);

struct Answer {
    /// None: nobody waits for the PUBACK.
    id: Option<WorkId>,
    packet_id: u16,
    since: Instant,
}

impl Answers {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn send(
        &mut self,
        id: Option<WorkId>,
        rid: RequestId,
        response: &MethodResponse,
        ids: &mut PacketIds,
        out: &mut Out,
        now: Instant,
    ) {
        let status = response.status;
        let topic = ToHub::MethodResponse { status, rid }.encode();
        let packet_id = ids.acquire();
        let delivery = Delivery::AtLeastOnce(packet_id);
        wire::publish(out.packets(now), &topic, &response.payload, delivery);
        self.0.push(Answer {
            id,
            packet_id,
            since: now,
        });
    }

    /// Reacts to a PUBACK. None: it acknowledges nothing of this; otherwise the work, if somebody waits for it.
    pub(super) fn on_puback(&mut self, packet_id: u16) -> Option<Option<WorkId>> {
        let place = self
            .0
            .iter()
            .position(|answer| answer.packet_id == packet_id)?;
        Some(self.0.remove(place).id)
    }

    pub(super) fn cancel(&mut self, id: WorkId) {
        for answer in &mut self.0 {
            if answer.id == Some(id) {
                answer.id = None;
            }
        }
    }

    /// What somebody still waits for.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = WorkId> {
        self.0.iter().filter_map(|answer| answer.id)
    }

    /// How many the driver has in flight.
    pub(super) fn len(&self) -> usize {
        self.unfinished().count()
    }

    /// Since when the oldest has no PUBACK.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.0.first().map(|answer| answer.since)
    }
}
