//! What the hub has delivered with QoS 1 and this side has not acknowledged.
//!
//! PUBACKs go out strictly in the order of arrival (MQTT-4.6.0-2; Azure's protocol gateway closes the connection
//! otherwise). An acknowledgement out of turn is remembered until the ones before it have come.

use std::collections::VecDeque;

use crate::{StaleReceipt, Violation, lasting::release_if_empty};

/// Messages of one connection, oldest first.
pub(super) struct Receipts {
    held: VecDeque<Held>,
    /// The number of the first one in `held`.
    first: u64,
}

/// A delivered message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Held {
    /// None with QoS 0: its turn comes, but no packet goes out.
    pub(super) packet_id: Option<u16>,
    /// Whether the driver has its receipt. What it cannot see is acknowledged by itself when its turn comes.
    pub(super) has_receipt: bool,
    is_acknowledged: bool,
}

impl Receipts {
    pub(super) const fn new() -> Self {
        Self {
            held: VecDeque::new(),
            first: 0,
        }
    }

    /// Takes a message that waits for the driver; returns its number.
    pub(super) fn hold(&mut self, packet_id: Option<u16>) -> Result<u64, Violation> {
        self.push(packet_id, true)
    }

    /// Takes a message that needs nobody.
    pub(super) fn pass(&mut self, packet_id: u16) -> Result<(), Violation> {
        self.push(Some(packet_id), false).map(drop)
    }

    fn push(&mut self, packet_id: Option<u16>, has_receipt: bool) -> Result<u64, Violation> {
        if self.held.len() >= MOST_HELD {
            return Err(Violation::TooManyUnacknowledged);
        }
        self.held.push_back(Held {
            packet_id,
            has_receipt,
            is_acknowledged: !has_receipt,
        });
        Ok(self.first + self.held.len() as u64 - 1)
    }

    /// Remembers an acknowledgement; twice is harmless.
    pub(super) fn acknowledge(&mut self, number: u64) -> Result<(), StaleReceipt> {
        let Some(place) = number.checked_sub(self.first) else {
            return Ok(());
        };
        let held = usize::try_from(place)
            .ok()
            .and_then(|place| self.held.get_mut(place));
        held.ok_or(StaleReceipt)?.is_acknowledged = true;
        Ok(())
    }

    /// The next message whose turn has come, with its number.
    pub(super) fn pop_acknowledged(&mut self) -> Option<(u64, Held)> {
        let held = self.held.pop_front_if(|held| held.is_acknowledged)?;
        release_if_empty(&mut self.held);
        self.first += 1;
        Some((self.first - 1, held))
    }
}

/// Messages that a hub may have unacknowledged. IoT Hub has at most 50 waiting for a device
/// ([`iothub::limits::CLOUD_MESSAGE_QUEUE`]), which leaves some room for what needs nobody and waits for its turn behind
/// them. One that sends on and on must not fill the memory: a message may have 64 KiB.
const MOST_HELD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(receipts: &mut Receipts) -> Vec<u16> {
        std::iter::from_fn(|| receipts.pop_acknowledged())
            .filter_map(|(_, held)| held.packet_id)
            .collect()
    }

    #[test]
    fn an_acknowledgement_waits_for_the_earlier_ones() {
        let mut receipts = Receipts::new();
        let [a, b, c] = [11, 12, 13].map(|id| receipts.hold(Some(id)).unwrap());
        receipts.acknowledge(c).unwrap();
        receipts.acknowledge(b).unwrap();
        assert!(popped(&mut receipts).is_empty());
        receipts.acknowledge(a).unwrap();
        assert_eq!(popped(&mut receipts), [11, 12, 13]);
        assert_eq!(receipts.acknowledge(a), Ok(()), "twice is harmless");
        assert_eq!(receipts.acknowledge(c + 1), Err(StaleReceipt));
    }

    #[test]
    fn what_needs_nobody_keeps_its_turn() {
        let mut receipts = Receipts::new();
        let a = receipts.hold(Some(1)).unwrap();
        receipts.pass(2).unwrap();
        assert!(popped(&mut receipts).is_empty());
        receipts.acknowledge(a).unwrap();
        assert_eq!(popped(&mut receipts), [1, 2]);
    }

    #[test]
    fn a_hub_that_never_waits_is_stopped() {
        let mut receipts = Receipts::new();
        for _ in 0..MOST_HELD {
            receipts.hold(Some(1)).unwrap();
        }
        assert_eq!(
            receipts.hold(Some(1)),
            Err(Violation::TooManyUnacknowledged)
        );
    }
}
