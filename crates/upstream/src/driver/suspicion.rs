//! Which stored entry the hub may close the connection for.
//!
//! ```text
//!            in flight at LOSSES losses in a row           lost once more, alone
//!  innocent ------------------------------------> suspect ----------------------> a dead letter
//!     ^                                              |
//!     +------------- the hub has answered -----------+
//! ```
//!
//! IoT Hub answers a message that it will not have by closing the connection, without a word which one it was
//! ("Communicate with your IoT hub using the MQTT protocol"). A stored entry would be sent again for ever, and everything
//! behind it would wait. So an entry that was in flight whenever the connection was closed becomes a suspect, and
//! as long as there are suspects entries are sent one at a time.
//!
//! Nothing of this outlives the session: what is suspected is found out again.

use store::EntryId;

/// The losses at which each stored entry was in flight. As many entries as there are in flight at most.
#[derive(Default)]
pub(super) struct Suspicion {
    losses: Vec<(EntryId, u32)>,
}

impl Suspicion {
    /// The connection was closed while this entry was in flight.
    pub(super) fn was_in_flight(&mut self, entry: EntryId) {
        match self.losses.iter_mut().find(|(other, _)| *other == entry) {
            Some((_, losses)) => *losses = losses.saturating_add(1),
            None => self.losses.push((entry, 1)),
        }
    }

    /// What became of an entry is known: it is no suspect.
    pub(super) fn is_over(&mut self, entry: EntryId) {
        // Nearly always there is none.
        if !self.losses.is_empty() {
            self.losses.retain(|(other, _)| *other != entry);
        }
    }

    /// Nothing is left that could be suspected.
    pub(super) fn is_all_over(&mut self) {
        self.losses = Vec::new();
    }

    /// Whether entries are to be sent one at a time.
    pub(super) fn is_any(&self) -> bool {
        self.losses.iter().any(|(_, losses)| *losses >= LOSSES)
    }

    /// Whether a suspect was lost again.
    pub(super) fn is_confirmed(&self, entry: EntryId) -> bool {
        self.losses
            .iter()
            .any(|(other, losses)| *other == entry && *losses > LOSSES)
    }
}

/// Losses in a row after which an entry is a suspect. Two happen to any message on a bad line.
const LOSSES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_loss_makes_a_suspect_and_the_fourth_confirms() {
        let mut suspicion = Suspicion::default();
        for (loss, is_suspect, is_confirmed) in [
            (1, false, false),
            (2, false, false),
            (3, true, false),
            (4, true, true),
        ] {
            suspicion.was_in_flight(EntryId(7));
            assert_eq!(suspicion.is_any(), is_suspect, "{loss}");
            assert_eq!(suspicion.is_confirmed(EntryId(7)), is_confirmed, "{loss}");
        }
        suspicion.is_over(EntryId(8));
        assert!(suspicion.is_any());
        suspicion.is_over(EntryId(7));
        assert!(!suspicion.is_any());
    }
}
