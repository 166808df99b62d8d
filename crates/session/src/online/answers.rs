//! Answers to direct methods in flight. They live and die with their connection.

use std::time::Instant;

use iothub::{
    MethodResponse,
    topic::{RequestId, ToHub},
};

use super::PacketIds;
use crate::{
    WorkId,
    lasting::{Out, release_if_empty},
    wire::{self, Delivery},
};

/// The answers without a PUBACK, oldest first.
pub(super) struct Answers(Vec<Answer>);

struct Answer {
    /// None after a cancel.
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
        id: WorkId,
        rid: RequestId,
        response: &MethodResponse,
        ids: &mut PacketIds,
        out: &mut Out,
        now: Instant,
    ) {
        let packet_id = ids.acquire();
        let delivery = Delivery::AtLeastOnce(packet_id);
        write(rid, response, delivery, out, now);
        self.0.push(Answer {
            id: Some(id),
            packet_id,
            since: now,
        });
    }

    /// Reacts to a PUBACK. None: it acknowledges nothing of this; otherwise the work, unless that was cancelled.
    pub(super) fn on_puback(&mut self, packet_id: u16) -> Option<Option<WorkId>> {
        let place = self
            .0
            .iter()
            .position(|answer| answer.packet_id == packet_id)?;
        let answer = self.0.remove(place);
        release_if_empty(&mut self.0);
        Some(answer.id)
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

/// Writes an answer that nobody waits for: with QoS 0, so that a hub that asks and asks fills no table.
pub(super) fn write_unawaited(
    rid: RequestId,
    response: &MethodResponse,
    out: &mut Out,
    now: Instant,
) {
    write(rid, response, Delivery::AtMostOnce, out, now);
}

fn write(
    rid: RequestId,
    response: &MethodResponse,
    delivery: Delivery,
    out: &mut Out,
    now: Instant,
) {
    let status = response.status;
    let topic = ToHub::MethodResponse { status, rid }.encode();
    wire::publish(out.packets(now), &topic, &response.payload, delivery);
}
