//! Which entry a submission is.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

use crate::{EntryId, SubmissionId};

/// The entries of a device by submission. It keeps the entries' names alone, for their submissions' names stand with them,
/// and a million of them may wait. So it has to be told whose entry is whose.
#[derive(Default)]
pub(super) struct Index {
    entries: HashTable<EntryId>,
    /// Submitters choose names, and are not to know where they fall.
    hasher: RandomState,
}

impl Index {
    /// The entry of a submission.
    pub(super) fn find(
        &self,
        id: SubmissionId,
        submission_of: impl Fn(EntryId) -> SubmissionId,
    ) -> Option<EntryId> {
        let hash = self.hasher.hash_one(id);
        let found = self
            .entries
            .find(hash, |entry| submission_of(*entry) == id)?;
        Some(*found)
    }

    /// Puts the entry of a submission in; there was none.
    pub(super) fn insert(
        &mut self,
        id: SubmissionId,
        entry: EntryId,
        submission_of: impl Fn(EntryId) -> SubmissionId,
    ) {
        let hash_of = |entry: &EntryId| self.hasher.hash_one(submission_of(*entry));
        self.entries
            .insert_unique(self.hasher.hash_one(id), entry, hash_of);
    }

    /// Takes the entry of a submission out.
    pub(super) fn remove(&mut self, id: SubmissionId, entry: EntryId) {
        let hash = self.hasher.hash_one(id);
        if let Ok(found) = self.entries.find_entry(hash, |other| *other == entry) {
            found.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_what_they_were_submitted_as() {
        let submission_of = |EntryId(entry)| SubmissionId(u128::from(entry) * 3);
        let mut index = Index::default();
        for entry in 1..=1000 {
            let entry = EntryId(entry);
            index.insert(submission_of(entry), entry, submission_of);
        }
        for entry in (1..=1000).step_by(2).map(EntryId) {
            index.remove(submission_of(entry), entry);
        }
        for entry in (1..=1000).map(EntryId) {
            let found = index.find(submission_of(entry), submission_of);
            assert_eq!(found, (entry.0 % 2 == 0).then_some(entry));
        }
        assert_eq!(index.find(SubmissionId(1), submission_of), None);
    }
}
