//! An entry's way to the disk, and what a restart finds there.

use super::{
    super::{Moment, book::Name, location::Location, waiters::Waiters},
    Entry, Fresh, Keeping, Lanes,
};
use crate::{EntryId, Lane, SubmissionId};

/// How far an entry is on its way to the disk.
#[derive(Clone, Copy)]
pub(in crate::memory) enum Persist {
    /// It is neither here nor remembered.
    Unknown,
    /// It is there, or settled.
    Done,
    /// It is on its way for somebody else.
    OnItsWay,
    /// It is on its way from now on.
    Begun(Lane, EntryId),
}

impl Lanes {
    /// Puts an entry in that was there before a restart, in its place.
    pub(in crate::memory) fn restore(&mut self, id: EntryId, fresh: Fresh, now: Moment) {
        // A dead letter that was replayed waits again, and its receipt says so.
        self.book.remove(Name::submission(fresh.id));
        self.insert(id, fresh, Waiters::none(), now);
    }

    /// An entry that was on its way to the disk is there. True if a reader may be waiting for it.
    pub(in crate::memory) fn stored(
        &mut self,
        lane: Lane,
        id: EntryId,
        location: Location,
    ) -> bool {
        let Some(entry) = self.lane(lane).get_mut(id) else {
            return false; // It has been settled meanwhile.
        };
        let was_hidden = entry.keeping == Keeping::Storing;
        entry.keeping = Keeping::Durable(location);
        was_hidden
    }

    /// Lets go of what an entry is to do, which is on the disk. Answers the bytes that it held.
    pub(in crate::memory) fn let_go(&mut self, lane: Lane, id: EntryId) -> usize {
        let Some(entry) = self.lane(lane).get_mut(id) else {
            return 0;
        };
        match entry.keeping {
            Keeping::Durable(_) => entry.let_go(),
            Keeping::Ephemeral | Keeping::Storing | Keeping::Persisting => 0,
        }
    }

    /// An entry that was on its way to the disk will not get there. Gives it if it is gone for that.
    pub(in crate::memory) fn not_stored(&mut self, lane: Lane, id: EntryId) -> Option<Box<Entry>> {
        let entry = self.lane(lane).get_mut(id)?;
        match entry.keeping {
            Keeping::Storing => {
                let at = self.lane(lane).find(id)?;
                let entry = self.lane(lane).entries.remove(at)?;
                self.unlist(&entry);
                self.book.remove(Name::submission(entry.submission));
                Some(entry)
            }
            Keeping::Persisting => {
                entry.keeping = Keeping::Ephemeral;
                let deadline = entry.deadline();
                self.note_deadline(deadline);
                None
            }
            Keeping::Ephemeral | Keeping::Durable(_) => None,
        }
    }

    /// Begins to make an entry durable, if it is ephemeral.
    pub(in crate::memory) fn persist(&mut self, id: SubmissionId) -> Persist {
        let Some(entry) = self.entry_mut(id) else {
            let is_known = self.book.get(Name::submission(id)).is_some()
                || self.outcomes.find(|(other, _)| *other == id).is_some();
            return if is_known {
                Persist::Done
            } else {
                Persist::Unknown
            };
        };
        match entry.keeping {
            Keeping::Storing | Keeping::Persisting => Persist::OnItsWay,
            Keeping::Durable(_) => Persist::Done,
            Keeping::Ephemeral => {
                entry.keeping = Keeping::Persisting;
                Persist::Begun(entry.lane, entry.id)
            }
        }
    }

    /// What a taken entry is to do, if that is on the disk alone and it is still there: it may have moved.
    pub(in crate::memory) fn location_of(&mut self, lane: Lane, id: EntryId) -> Option<Location> {
        let entry = self.lane(lane).get_mut(id)?;
        entry.keeping.location()
    }

    /// Whether an entry that was taken is durable, or on its way to the disk.
    pub(in crate::memory) fn is_to_be_kept(&self, id: EntryId) -> bool {
        let mut lanes = self.lanes.iter();
        let keeping = lanes.find_map(|lane| Some(lane.entries[lane.find(id)?].keeping));
        keeping.is_some_and(Keeping::is_stored)
    }

    /// Removes what was there before a restart and is settled by a later record.
    pub(in crate::memory) fn unstore(&mut self, id: SubmissionId) -> Option<Box<Entry>> {
        let (lane, at) = self.place(id)?;
        let entry = self.lanes[lane].entries.remove(at)?;
        self.unlist(&entry);
        Some(entry)
    }

    /// A record was written again elsewhere.
    pub(in crate::memory) fn moved(&mut self, id: SubmissionId, from: Location, to: Location) {
        let entry = self.entry_mut(id);
        if let Some(entry) = entry.filter(|entry| entry.keeping == Keeping::Durable(from)) {
            entry.keeping = Keeping::Durable(to);
        } else if let Some(dead) = self.book.dead_mut().find(|dead| dead.stored == from) {
            dead.stored = to;
        }
    }

    /// Gives back what was taken for growing: after a restart lanes have all that they will have for a while.
    pub(in crate::memory) fn shrink(&mut self) {
        for lane in &mut self.lanes {
            lane.entries.shrink_to_fit();
        }
    }

    /// Where the records are that live on the disk.
    pub(in crate::memory) fn stored_at(&self) -> impl Iterator<Item = Location> {
        let entries = self.lanes.iter().flat_map(|lane| &lane.entries);
        let entries = entries.filter_map(|entry| entry.keeping.location());
        entries.chain(self.book.stored())
    }

    /// The entry whose record is there.
    pub(in crate::memory) fn entry_at(&self, location: Location) -> Option<&Entry> {
        let mut entries = self.lanes.iter().flat_map(|lane| &lane.entries);
        let entry = entries.find(|entry| entry.keeping == Keeping::Durable(location));
        entry.map(Box::as_ref)
    }
}
