//! One lane of the outbox.

use std::collections::VecDeque;

use super::{Entry, Keeping};
use crate::EntryId;

/// One lane, in the order of ids. What is taken stands before what waits, so putting all of it back moves nothing.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) entries: VecDeque<Box<Entry>>,
    /// How many are taken, or were and are put back alone.
    pub(super) taken: usize,
    /// How many of these are put back alone.
    pub(super) put_back: u32,
    /// The reader was given as many as it had room for, and has settled none since.
    pub(super) is_reader_full: bool,
}

impl Entries {
    pub(super) fn insert(&mut self, entry: Box<Entry>) {
        if self.entries.back().is_none_or(|last| last.id < entry.id) {
            self.entries.push_back(entry);
        } else {
            // What was written again comes late after a restart.
            let at = self.entries.partition_point(|other| other.id < entry.id);
            self.entries.insert(at, entry);
        }
    }

    pub(super) fn has_waiting(&self) -> bool {
        let next = self.entries.get(self.taken);
        self.put_back > 0 || next.is_some_and(|entry| entry.keeping != Keeping::Storing)
    }

    pub(super) fn find(&self, id: EntryId) -> Option<usize> {
        let first = self.entries.front()?.id;
        // Ids grow by one at least, and nearly always by one.
        let farthest = usize::try_from(id.0.checked_sub(first.0)?).ok()?;
        if self
            .entries
            .get(farthest)
            .is_some_and(|entry| entry.id == id)
        {
            return Some(farthest);
        }
        self.entries
            .binary_search_by_key(&id, |entry| entry.id)
            .ok()
    }

    pub(super) fn get_mut(&mut self, id: EntryId) -> Option<&mut Box<Entry>> {
        let at = self.find(id)?;
        self.entries.get_mut(at)
    }
}
