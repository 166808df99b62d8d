//! The queue of cloud-to-device messages of one device ("Understand cloud-to-device messaging from an IoT hub").
//!
//! ```text
//!             ┌──sent over MQTT──▶ InFlight ──PUBACK──▶ completed
//! push ─▶ Waiting ◀──────────────────┘ connection lost: sent again with the same packet id and DUP
//!             ├──received over HTTPS──▶ Locked ──complete, reject──▶ completed, dead letter
//!             └◀───────────────────────────┘ abandoned (counts), or the lock has ended (does not count)
//! ```
//!
//! What waits may expire. First in, first out; over MQTT the window goes past messages that are locked.

use std::{collections::VecDeque, time::Instant};

use iothub::{CloudMessage, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queue {
    messages: VecDeque<Queued>,
    last_sequence: u64,
    last_packet_id: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queued {
    pub(super) sequence: u64,
    #[serde(with = "super::snapshot::message")]
    pub(super) message: CloudMessage,
    pub(super) enqueued_at: Timestamp,
    pub(super) expires_at: Timestamp,
    /// Raised by an abandon, and by a lost delivery if the configuration says so.
    pub(super) delivery_count: u32,
    /// The packet id with which it was sent over MQTT.
    packet_id: Option<u16>,
    #[serde(skip)]
    state: State,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    InFlight,
    Locked {
        token: Box<str>,
        until: Instant,
    },
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

    pub(super) fn push(
        &mut self,
        message: CloudMessage,
        enqueued_at: Timestamp,
        expires_at: Timestamp,
    ) -> u64 {
        self.last_sequence += 1;
        self.messages.push_back(Queued {
            sequence: self.last_sequence,
            message,
            enqueued_at,
            expires_at,
            delivery_count: 0,
            packet_id: None,
            state: State::Waiting,
        });
        self.last_sequence
    }

    /// Puts the next message in flight, if there is one and the window has room.
    pub(super) fn next_delivery(&mut self) -> Option<Delivery<'_>> {
        if self.in_flight() >= WINDOW {
            return None;
        }
        let index = self.messages.iter().position(Queued::is_waiting)?;
        let sent_as = self.messages[index].packet_id;
        // MQTT-4.4.0-1: sent again with the original packet id.
        let packet_id = sent_as.unwrap_or_else(|| self.free_packet_id());
        let queued = &mut self.messages[index];
        queued.state = State::InFlight;
        queued.packet_id = Some(packet_id);
        Some(Delivery {
            message: &queued.message,
            packet_id,
            is_repeated: sent_as.is_some(),
        })
    }

    pub(super) fn acknowledge(&mut self, packet_id: u16) -> Acknowledged {
        let has_id = |m: &Queued| m.is_in_flight() && m.packet_id == Some(packet_id);
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
            if queued.is_in_flight() {
                queued.state = State::Waiting;
                queued.delivery_count += u32::from(is_counted);
            }
        }
        self.take_out(|queued| queued.delivery_count >= most)
    }

    /// Locks the next message, if there is one.
    pub(super) fn lock(&mut self, token: &str, until: Instant) -> Option<&Queued> {
        let queued = self.messages.iter_mut().find(|m| m.is_waiting())?;
        queued.state = State::Locked {
            token: token.into(),
            until,
        };
        Some(queued)
    }

    /// Takes out the message that this token locks, if its lock is still there.
    pub(super) fn take_locked(&mut self, token: &str) -> Option<Queued> {
        let index = self.locked(token)?;
        self.messages.remove(index)
    }

    /// Gives back the message that this token locks, and counts that. None if the lock is gone; otherwise the message
    /// itself if it has come to `most` deliveries.
    pub(super) fn abandon(&mut self, token: &str, most: u32) -> Option<Option<Queued>> {
        let index = self.locked(token)?;
        let queued = &mut self.messages[index];
        queued.state = State::Waiting;
        queued.delivery_count += 1;
        let is_dead = queued.delivery_count >= most;
        Some(is_dead.then(|| self.messages.remove(index)).flatten())
    }

    /// Ends the locks whose time is over.
    pub(super) fn unlock(&mut self, now: Instant) {
        for queued in &mut self.messages {
            if let State::Locked { until, .. } = queued.state
                && until <= now
            {
                queued.state = State::Waiting;
            }
        }
    }

    /// When the next lock ends.
    pub(super) fn next_unlock(&self) -> Option<Instant> {
        let ends = self.messages.iter().filter_map(|m| match m.state {
            State::Locked { until, .. } => Some(until),
            State::Waiting | State::InFlight => None,
        });
        ends.min()
    }

    /// Takes out what has expired.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Queued> {
        self.take_out(|queued| queued.expires_at <= now && queued.is_waiting())
    }

    /// When the next message expires, of those that can.
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        let waiting = self.messages.iter().filter(|m| m.is_waiting());
        waiting.map(|m| m.expires_at).min()
    }

    /// Takes out everything.
    pub(super) fn purge(&mut self) -> Vec<Queued> {
        self.take_out(|_| true)
    }

    fn in_flight(&self) -> usize {
        self.messages.iter().filter(|m| m.is_in_flight()).count()
    }

    fn locked(&self, wanted: &str) -> Option<usize> {
        self.messages.iter().position(|m| match &m.state {
            State::Locked { token, .. } => **token == *wanted,
            State::Waiting | State::InFlight => false,
        })
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
            if self.messages.iter().all(|m| m.packet_id != Some(id)) {
                return id;
            }
        }
    }
}

impl Queued {
    fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    fn is_in_flight(&self) -> bool {
        self.state == State::InFlight
    }
}

/// Messages in flight to one device. EdgeHub and the protocol gateway use 10 to 16; the hub's own number is not
/// documented.
const WINDOW: usize = 16;
