//! What the hub has delivered with QoS 1 and this side has not acknowledged.
//!
//! PUBACKs go out strictly in the order of arrival (MQTT-4.6.0-2; Azure's protocol gateway closes the connection
//! otherwise). An acknowledgement out of turn is remembered until the ones before it have come.

use std::collections::VecDeque;

use crate::StaleReceipt;

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
    pub(super) fn hold(&mut self, packet_id: Option<u16>) -> u64 {
        self.push(packet_id, true)
    }

    /// Takes a message that needs nobody.
    pub(super) fn pass(&mut self, packet_id: u16) {
        self.push(Some(packet_id), false);
    }

    fn push(&mut self, packet_id: Option<u16>, has_receipt: bool) -> u64 {
        self.held.push_back(Held {
            packet_id,
            has_receipt,
            is_acknowledged: !has_receipt,
        });
        self.first + self.held.len() as u64 - 1
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
        self.first += 1;
        Some((self.first - 1, held))
    }
}

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
        let [a, b, c] = [11, 12, 13].map(|id| receipts.hold(Some(id)));
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
        let a = receipts.hold(Some(1));
        receipts.pass(2);
        assert!(popped(&mut receipts).is_empty());
        receipts.acknowledge(a).unwrap();
        assert_eq!(popped(&mut receipts), [1, 2]);
    }
}
