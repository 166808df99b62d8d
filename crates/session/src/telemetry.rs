//! Telemetry in flight.
//!
//! A message stays here from [`TelemetryWindow::push`] until its PUBACK, across connections:
//!
//! ```text
//! Waiting ──sent──▶ InFlight ──PUBACK──▶ gone
//!    ▲                 │
//!    │           connection ends
//!    │                 ▼
//!    └─ hub forgot ─ Interrupted ──sent again──▶ InFlight
//! ```
//!
//! Where the hub still knows the session, an interrupted message goes out with its old packet id and the DUP flag, as
//! MQTT-4.4.0-1 and MQTT-3.3.1-1 demand; where it does not, there is nothing that it could be a duplicate of, and the
//! message goes out as a new one. Either way all go out again in their first order (MQTT-4.6.0-1).
//!
//! A cancelled message keeps its slot until the PUBACK, because the hub counts it, but is not sent again.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use crate::{
    WorkId,
    lasting::{Out, release_if_empty},
    online::PacketIds,
    wire::{self, Delivery},
};

/// The messages, oldest first.
#[derive(Default)]
pub(crate) struct TelemetryWindow(VecDeque<Slot>);

struct Slot {
    /// None after a cancel.
    id: Option<WorkId>,
    topic: Box<str>,
    payload: Bytes,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    InFlight { packet_id: u16, since: Instant },
    Interrupted { packet_id: u16 },
}

impl TelemetryWindow {
    pub(crate) fn push(&mut self, id: WorkId, topic: String, payload: Bytes) {
        self.0.push_back(Slot {
            id: Some(id),
            topic: topic.into(),
            payload,
            progress: Progress::Waiting,
        });
    }

    /// Sends whatever is not in flight.
    pub(crate) fn send(&mut self, ids: &mut PacketIds, out: &mut Out, now: Instant) {
        for slot in &mut self.0 {
            let delivery = match slot.progress {
                Progress::InFlight { .. } => continue,
                Progress::Waiting => Delivery::AtLeastOnce(ids.acquire()),
                Progress::Interrupted { packet_id } => Delivery::Again(packet_id),
            };
            wire::publish(out.packets(now), &slot.topic, &slot.payload, delivery);
            if let Delivery::AtLeastOnce(packet_id) | Delivery::Again(packet_id) = delivery {
                let since = now;
                slot.progress = Progress::InFlight { packet_id, since };
            }
        }
    }

    /// Reacts to a PUBACK. None: it acknowledges nothing of this; otherwise the work, unless that was cancelled.
    pub(crate) fn on_puback(&mut self, packet_id: u16) -> Option<Option<WorkId>> {
        let place = self.0.iter().position(|slot| {
            matches!(slot.progress, Progress::InFlight { packet_id: id, .. } if id == packet_id)
        })?;
        let slot = self.0.remove(place);
        release_if_empty(&mut self.0);
        slot.map(|slot| slot.id)
    }

    /// Makes ready for a new connection.
    pub(crate) fn on_connected(&mut self, session_present: bool, ids: &mut PacketIds) {
        for slot in &mut self.0 {
            if let Progress::Interrupted { packet_id } = slot.progress {
                if session_present {
                    ids.reserve(packet_id);
                } else {
                    slot.progress = Progress::Waiting;
                }
            }
        }
    }

    /// The connection has ended; what was cancelled is over.
    pub(crate) fn on_disconnected(&mut self) {
        self.0.retain(|slot| slot.id.is_some());
        for slot in &mut self.0 {
            if let Progress::InFlight { packet_id, .. } = slot.progress {
                slot.progress = Progress::Interrupted { packet_id };
            }
        }
    }

    pub(crate) fn cancel(&mut self, id: WorkId) {
        let Some(place) = self.0.iter().position(|slot| slot.id == Some(id)) else {
            return;
        };
        match self.0[place].progress {
            Progress::Waiting | Progress::Interrupted { .. } => {
                self.0.remove(place);
            }
            Progress::InFlight { .. } => {
                let slot = &mut self.0[place];
                slot.id = None;
                slot.topic = Box::default();
                slot.payload = Bytes::new();
            }
        }
    }

    /// Forgets everything; returns what was not cancelled.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = WorkId> {
        std::mem::take(&mut self.0)
            .into_iter()
            .filter_map(|slot| slot.id)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Since when the oldest message is in flight. Sending is in order, so that is the first one.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.0.iter().find_map(|slot| match slot.progress {
            Progress::InFlight { since, .. } => Some(since),
            Progress::Waiting | Progress::Interrupted { .. } => None,
        })
    }
}
