//! What the lanes say of what is in them.

use iothub::Timestamp;

use super::{super::book::Name, Entries, Entry, Lanes, is_bounded};
use crate::{Lane, LaneSet, Receipt, ReceiptState, Stock, SubmissionId};

impl Lanes {
    /// When the oldest entry that is not settled was submitted.
    pub(in crate::memory) fn oldest(&self) -> Option<Timestamp> {
        let entries = self.lanes.iter().flat_map(|lane| &lane.entries);
        entries.map(|entry| entry.accepted_at).min()
    }

    /// What there is, for the operator.
    pub(in crate::memory) fn stock(&self) -> Stock {
        let (entries, bytes) = self.bounded();
        let lanes = self.lanes.iter().zip(Lane::ALL);
        let bounded = lanes.filter(|(_, lane)| is_bounded(*lane));
        let heads = bounded.filter_map(|(lane, _)| lane.entries.front());
        Stock {
            waiting: entries as u64,
            bytes: bytes as u64,
            oldest: heads.map(|entry| entry.accepted_at).min(),
            dead_letters: self.book.dead().count() as u64,
        }
    }

    /// Entries that are not settled.
    pub(in crate::memory) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.lanes
            .iter()
            .flat_map(|lane| &lane.entries)
            .map(Box::as_ref)
    }

    /// What is known of a submission that a restart would find, or that has a record.
    pub(in crate::memory) fn receipt(&self, id: SubmissionId, is_refused: bool) -> Option<Receipt> {
        let while_open = || {
            if is_refused {
                // Also if a session has taken it: that has no connection.
                ReceiptState::WaitingForCredential
            } else if self.is_taken(id) {
                ReceiptState::Sent
            } else {
                ReceiptState::Stored
            }
        };
        if let Some(record) = self.book.get(Name::submission(id)) {
            return Some(record.to_receipt(id, while_open));
        }
        let entry = self.entry(id).filter(|entry| entry.keeping.is_stored())?;
        Some(Receipt {
            id,
            accepted_at: entry.accepted_at,
            state: while_open(),
        })
    }

    /// How many submissions have a receipt, what waits among them, and how many other requests a key.
    pub(in crate::memory) fn receipts_and_keys(&self) -> usize {
        let has_record =
            |entry: &Entry| self.book.get(Name::submission(entry.submission)).is_some();
        let waiting = self.entries().filter(|entry| entry.keeping.is_stored());
        self.book.len() + waiting.filter(|entry| !has_record(entry)).count()
    }

    /// Where there is something to take for a reader that has room.
    pub(in crate::memory) fn ready(&self) -> LaneSet {
        let lanes = self.lanes.iter().zip(Lane::ALL);
        let ready = lanes.filter(|(lane, _)| !lane.is_reader_full && lane.has_waiting());
        ready.map(|(_, lane)| lane).collect()
    }

    pub(in crate::memory) fn has_waiting(&self) -> bool {
        self.lanes.iter().any(Entries::has_waiting)
    }

    /// Entries that are not settled.
    pub(in crate::memory) fn unsettled(&self) -> usize {
        self.lanes.iter().map(|lane| lane.entries.len()).sum()
    }

    /// How many of them the device's bounds count, and their bytes.
    pub(in crate::memory) fn bounded(&self) -> (usize, usize) {
        let lanes = self.lanes.iter().zip(Lane::ALL);
        let bounded = lanes.filter(|(_, lane)| is_bounded(*lane));
        let entries = bounded.map(|(lane, _)| lane.entries.len()).sum();
        (entries, self.bounded_bytes)
    }

    pub(in crate::memory) fn is_empty(&self) -> bool {
        self.unsettled() == 0 && self.outcomes.is_empty() && self.book.is_empty()
    }
}
