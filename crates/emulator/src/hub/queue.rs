//! The queue of cloud-to-device messages of one device ("Understand cloud-to-device messaging from an IoT hub").
//!
//! ```text
//! enqueue ─▶ Waiting ──sent──▶ InFlight ──PUBACK──▶ completed
//!               ▲                 │ connection lost
//!               └── Interrupted ◀─┘ sent again on the next one: same packet id, DUP
//! ```
//!
//! What is not in flight may expire. First in, first out: messages in flight are the head of the queue.

use std::collections::VecDeque;

use iothub::{CloudMessage, Timestamp};

#[derive(Default)]
pub(super) struct Queue {
    messages: VecDeque<Queued>,
    last_sequence: u64,
    last_packet_id: u16,
}

pub(super) struct Queued {
    pub(super) sequence: u64,
    pub(super) message: CloudMessage,
    pub(super) expires_at: Timestamp,
    /// Raised by an abandon, and by a lost delivery if the configuration says so.
    pub(super) delivery_count: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    InFlight { packet_id: u16 },
    Interrupted { packet_id: u16 },
}

/// One message to be sent.
pub(super) struct Delivery<'a> {
    pub(super) message: &'a CloudMessage,
    pub(super) packet_id: u16,
    /// It has been sent before: the protocol gateway sets DUP when the delivery count is over zero.
    pub(super) is_repeated: bool,
}

/// What a PUBACK means.
pub(super) enum Acknowledged {
    /// The oldest message in flight is completed.
    Completed(Queued),
    /// A message in flight, but not the oldest.
    OutOfOrder,
    /// Nothing in flight has this id.
    Unknown,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn push(&mut self, message: CloudMessage, expires_at: Timestamp) -> u64 {
        self.last_sequence += 1;
        self.messages.push_back(Queued {
            sequence: self.last_sequence,
            message,
            expires_at,
            delivery_count: 0,
            state: State::Waiting,
        });
        self.last_sequence
    }

    /// Puts the next message in flight, if there is one and the window has room.
    pub(super) fn next_delivery(&mut self) -> Option<Delivery<'_>> {
        let index = self.messages.iter().position(|m| !m.is_in_flight())?;
        if self.in_flight() >= WINDOW {
            return None;
        }
        let (packet_id, is_repeated) = match self.messages[index].state {
            // MQTT-4.4.0-1: sent again with the original packet id.
            State::Interrupted { packet_id } | State::InFlight { packet_id } => (packet_id, true),
            State::Waiting => (self.free_packet_id(), false),
        };
        let queued = &mut self.messages[index];
        queued.state = State::InFlight { packet_id };
        Some(Delivery {
            message: &queued.message,
            packet_id,
            is_repeated,
        })
    }

    pub(super) fn acknowledge(&mut self, packet_id: u16) -> Acknowledged {
        let has_id = |m: &Queued| m.state == State::InFlight { packet_id };
        match self.messages.iter().position(has_id) {
            None => Acknowledged::Unknown,
            Some(index) if self.messages.iter().take(index).any(Queued::is_in_flight) => {
                Acknowledged::OutOfOrder
            }
            Some(index) => self
                .messages
                .remove(index)
                .map_or(Acknowledged::Unknown, Acknowledged::Completed),
        }
    }

    /// The connection is gone. With `is_counted` each message in flight counts a delivery; the ones that have reached
    /// `most` are taken out.
    pub(super) fn interrupt(&mut self, is_counted: bool, most: u32) -> Vec<Queued> {
        for queued in &mut self.messages {
            if let State::InFlight { packet_id } = queued.state {
                queued.state = State::Interrupted { packet_id };
                queued.delivery_count += u32::from(is_counted);
            }
        }
        self.take_out(|queued| queued.delivery_count >= most)
    }

    /// Takes out what has expired.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Queued> {
        self.take_out(|queued| queued.expires_at <= now && !queued.is_in_flight())
    }

    /// When the next message expires, of those that can.
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        let idle = self.messages.iter().filter(|m| !m.is_in_flight());
        idle.map(|m| m.expires_at).min()
    }

    /// Takes out everything.
    pub(super) fn purge(&mut self) -> Vec<Queued> {
        self.take_out(|_| true)
    }

    fn in_flight(&self) -> usize {
        self.messages.iter().filter(|m| m.is_in_flight()).count()
    }

    fn take_out(&mut self, is_out: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        if !self.messages.iter().any(&is_out) {
            return Vec::new();
        }
        let (out, kept) = std::mem::take(&mut self.messages)
            .into_iter()
            .partition::<Vec<_>, _>(is_out);
        self.messages = kept.into();
        out
    }

    /// At most 50 messages have an id, so a free one is near.
    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            let id = self.last_packet_id;
            if self.messages.iter().all(|m| m.packet_id() != Some(id)) {
                return id;
            }
        }
    }
}

impl Queued {
    const fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight { .. })
    }

    const fn packet_id(&self) -> Option<u16> {
        match self.state {
            State::Waiting => None,
            State::InFlight { packet_id } | State::Interrupted { packet_id } => Some(packet_id),
        }
    }
}

/// Messages in flight to one device. EdgeHub and the protocol gateway use 10 to 16; the hub's own number is not
/// documented.
const WINDOW: usize = 16;
