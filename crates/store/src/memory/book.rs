//! What is remembered of one device's writes, as a state machine: receipts, the records of idempotency keys, and dead
//! letters. States: see `receipt.rs` of the contract.

mod record;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use iothub::Timestamp;

use self::record::settled;
pub(super) use self::record::{Dead, Name, Progress, Record};
use super::{Moment, location::Location};
use crate::{EntryId, Fingerprint, KeyId, Outcome, Receipt, SubmissionId};

/// A device's receipts and keys. Boxed, so that an empty one is a word.
pub(super) struct Book(Option<Box<Pages>>);

#[derive(Default)]
struct Pages {
    records: BTreeMap<Name, Record>,
    /// Records with a fingerprint, in the order in which they end.
    keyed: VecDeque<(Instant, Name)>,
    /// The others.
    unkeyed: VecDeque<(Instant, Name)>,
    /// Entries that have failed for good, the newest last.
    dead: VecDeque<Dead>,
}

/// A record is about another request.
pub(super) struct Reused;

impl Book {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    pub(super) fn get(&self, name: Name) -> Option<&Record> {
        self.0.as_ref()?.records.get(&name)
    }

    pub(super) fn get_mut(&mut self, name: Name) -> Option<&mut Record> {
        self.0.as_mut()?.records.get_mut(&name)
    }

    /// Checks that a name is not that of another request. One with a fingerprint is made of a key, and a key is not that of a
    /// submission and of a request of another kind.
    pub(super) fn check(
        &self,
        name: Name,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Option<&Record>, Reused> {
        if fingerprint.is_some() && self.get(name.of_other_kind()).is_some() {
            return Err(Reused);
        }
        let record = self.get(name);
        match record
            .and_then(|record| record.fingerprint)
            .zip(fingerprint)
        {
            Some((known, asked)) if known != asked => Err(Reused),
            Some(_) | None => Ok(record),
        }
    }

    /// Opens the record of a submission with a key, or opens it again.
    pub(super) fn open_submission(
        &mut self,
        id: SubmissionId,
        fingerprint: Fingerprint,
        began_at: Timestamp,
        now: Moment,
    ) {
        let record = Record {
            began_at,
            fingerprint: Some(fingerprint),
            progress: Progress::Open,
            stored: None,
        };
        self.put(Name::submission(id), record, now);
    }

    /// Opens the record of a key.
    pub(super) fn open_key(&mut self, id: KeyId, fingerprint: Fingerprint, now: Moment) {
        let record = Record {
            began_at: now.timestamp,
            fingerprint: Some(fingerprint),
            progress: Progress::Open,
            stored: None,
        };
        self.put(Name::key(id), record, now);
    }

    /// Puts a record in; an older one of the same name makes way.
    pub(super) fn put(&mut self, name: Name, record: Record, now: Moment) {
        let pages = self.0.get_or_insert_default();
        let end = end_of(record.began_at, now);
        let is_keyed = record.fingerprint.is_some();
        let was_keyed = pages
            .records
            .insert(name, record)
            .map(|older| older.fingerprint.is_some());
        if was_keyed == Some(is_keyed) {
            return;
        }
        let (order, other_order) = if is_keyed {
            (&mut pages.keyed, &mut pages.unkeyed)
        } else {
            (&mut pages.unkeyed, &mut pages.keyed)
        };
        if was_keyed.is_some() {
            other_order.retain(|(_, other)| *other != name);
        }
        if order.back().is_none_or(|(last, _)| *last <= end) {
            order.push_back((end, name));
        } else {
            // What was written again comes late after a restart.
            let at = order.partition_point(|(other, _)| *other <= end);
            order.insert(at, (end, name));
        }
    }

    /// Notes what became of a submission that has a record. False if it has none.
    pub(super) fn settle(&mut self, id: SubmissionId, outcome: &Outcome, at: Timestamp) -> bool {
        let Some(record) = self.get_mut(Name::submission(id)) else {
            return false;
        };
        record.progress = settled(outcome, at);
        record.stored = None;
        true
    }

    /// Notes what became of a submission that was stored. One without a key has no record until then: its entry says all.
    pub(super) fn settle_stored(
        &mut self,
        id: SubmissionId,
        began_at: Timestamp,
        outcome: &Outcome,
        bound: usize,
        now: Moment,
    ) {
        if !self.settle(id, outcome, now.timestamp) {
            let record = Record {
                began_at,
                fingerprint: None,
                progress: settled(outcome, now.timestamp),
                stored: None,
            };
            self.make_room(bound);
            self.put(Name::submission(id), record, now);
        }
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, name: Name) -> Option<Record> {
        let pages = self.0.as_mut()?;
        let record = pages.records.remove(&name)?;
        let order = match record.fingerprint {
            Some(_) => &mut pages.keyed,
            None => &mut pages.unkeyed,
        };
        // What is removed out of its turn came lately.
        if let Some(at) = order.iter().rposition(|(_, other)| *other == name) {
            order.remove(at);
        }
        Some(record)
    }

    /// Forgets records without a fingerprint, the oldest first, until there is room for one more. All of them are settled.
    pub(super) fn make_room(&mut self, bound: usize) {
        let Some(pages) = &mut self.0 else {
            return;
        };
        while pages.unkeyed.len() >= bound
            && let Some((_, name)) = pages.unkeyed.pop_front()
        {
            pages.records.remove(&name);
        }
    }

    /// Forgets what has ended. What a submission waits for is not forgotten before it is settled.
    pub(super) fn forget(&mut self, now: Instant) {
        let Some(pages) = &mut self.0 else {
            return;
        };
        for order in [&mut pages.keyed, &mut pages.unkeyed] {
            for _ in 0..order.len() {
                let Some((_, name)) = order.pop_front_if(|(end, _)| *end <= now) else {
                    break;
                };
                let is_waited_for =
                    name.is_submission() && pages.records.get(&name).is_some_and(Record::is_open);
                if is_waited_for {
                    order.push_back((now + Receipt::KEPT, name));
                } else {
                    pages.records.remove(&name);
                }
            }
        }
        if pages.records.is_empty() && pages.dead.is_empty() {
            self.0 = None;
        }
    }

    /// Puts a dead letter in; beyond the bound the oldest is forgotten.
    pub(super) fn bury(&mut self, dead: Dead, bound: usize) {
        let pages = self.0.get_or_insert_default();
        // Nearly always the end: what was written again comes late after a restart.
        let at = pages.dead.partition_point(|other| other.at <= dead.at);
        pages.dead.insert(at, dead);
        if pages.dead.len() > bound {
            pages.dead.pop_front();
        }
    }

    /// Takes a dead letter out, to be replayed.
    pub(super) fn exhume(&mut self, id: EntryId) -> Option<Dead> {
        let dead = &mut self.0.as_mut()?.dead;
        let at = dead.iter().position(|dead| dead.id == id)?;
        dead.remove(at)
    }

    /// Takes the dead letter of a submission out.
    pub(super) fn exhume_submission(&mut self, id: SubmissionId) {
        if let Some(pages) = &mut self.0 {
            pages.dead.retain(|dead| dead.submission != id);
        }
    }

    /// Where its records and dead letters are on the disk.
    pub(super) fn stored(&self) -> impl Iterator<Item = Location> {
        let records = self.0.iter().flat_map(|pages| pages.records.values());
        let records = records.filter_map(|record| record.stored);
        records.chain(self.dead().map(|dead| dead.stored))
    }

    /// The record that is there on the disk.
    pub(super) fn record_at(&self, location: Location) -> Option<(Name, &Record)> {
        let mut records = self.0.iter().flat_map(|pages| &pages.records);
        let found = records.find(|(_, record)| record.stored == Some(location));
        found.map(|(name, record)| (*name, record))
    }

    /// The dead letters, the newest last.
    pub(super) fn dead(&self) -> impl Iterator<Item = &Dead> {
        self.0.iter().flat_map(|pages| &pages.dead)
    }

    pub(super) fn dead_mut(&mut self) -> impl Iterator<Item = &mut Dead> {
        self.0.iter_mut().flat_map(|pages| &mut pages.dead)
    }

    /// How many records have a fingerprint.
    pub(super) fn keyed(&self) -> usize {
        self.0.as_ref().map_or(0, |pages| pages.keyed.len())
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |pages| pages.records.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.dead().next().is_none()
    }
}

/// When a record is forgotten that began then: by the clock that nobody sets, though of what was there before this process
/// only the wall clock knows the age.
fn end_of(began_at: Timestamp, now: Moment) -> Instant {
    let age = now.timestamp.saturating_since(began_at);
    now.instant + Receipt::KEPT.saturating_sub(age)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Done;

    #[test]
    fn what_is_settled_and_has_no_fingerprint_makes_way() {
        let mut book = Book::new();
        let now = moment();
        for id in 0..3 {
            settle_stored(&mut book, id, now);
        }
        open(&mut book, 3, at(0), now);
        settle(&mut book, 3);
        settle_stored(&mut book, 4, now);
        let is_there = |id| book.get(name(id)).is_some();
        let there = [0, 1, 2, 3, 4].map(is_there);
        assert_eq!(there, [false, true, true, true, true]);
        assert_eq!((book.len(), book.keyed()), (4, 1));
    }

    #[test]
    fn a_record_ends_after_its_time_but_not_while_its_entry_waits() {
        let (mut book, now) = (Book::new(), moment());
        open(&mut book, 1, at(0), now);
        settle_stored(&mut book, 2, now);
        book.open_key(KeyId(3), Fingerprint::of(&[]), now);
        book.forget(now.instant + Receipt::KEPT - Duration::from_secs(1));
        assert_eq!(book.len(), 3);
        book.forget(now.instant + Receipt::KEPT);
        assert_eq!(book.len(), 1);
        settle(&mut book, 1);
        book.forget(now.instant + 3 * Receipt::KEPT);
        assert!(book.is_empty());
    }

    #[test]
    fn what_was_there_before_has_its_age_and_ends_in_its_turn() {
        let (mut book, now) = (Book::new(), moment());
        let day = 24 * 3600;
        // The third is of the future: the wall clock was set back.
        for (id, age) in [(1, 0), (2, 7 * day), (3, -9 * day), (4, 9 * day)] {
            open(&mut book, id, at(-age), now);
            settle(&mut book, id);
        }
        let left_after = |book: &mut Book, days: i64| {
            let days = u64::try_from(days * day).unwrap();
            book.forget(now.instant + Duration::from_secs(days));
            let is_there = |id| book.get(name(id)).is_some();
            [1, 2, 3, 4].map(is_there)
        };
        assert_eq!(left_after(&mut book, 0), [true, true, true, false]);
        assert_eq!(left_after(&mut book, 1), [true, false, true, false]);
        assert_eq!(left_after(&mut book, 8), [false; 4]);
        assert_eq!(book.keyed(), 0);
    }

    /// Opens the record of a submission with a key.
    fn open(book: &mut Book, id: u128, began_at: Timestamp, now: Moment) {
        book.open_submission(SubmissionId(id), Fingerprint::of(&[]), began_at, now);
    }

    fn settle(book: &mut Book, id: u128) {
        assert!(book.settle(SubmissionId(id), &Ok(Done::Acknowledged), at(1)));
    }

    /// Settles one without a key, with room for three of them.
    fn settle_stored(book: &mut Book, id: u128, now: Moment) {
        let outcome = Ok(Done::Acknowledged);
        book.settle_stored(SubmissionId(id), at(0), &outcome, 3, now);
    }

    fn name(id: u128) -> Name {
        Name::submission(SubmissionId(id))
    }

    /// The moment at second 0.
    fn moment() -> Moment {
        Moment {
            instant: Instant::now(),
            timestamp: at(0),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }
}
