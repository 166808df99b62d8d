//! An append-only log of records in numbered segments.
//!
//! It knows bytes and where they are, nothing of what they mean. One thread writes; whoever appends leaves a record in its
//! queue and is called back when the record is flushed.
//!
//! # On the disk
//!
//! ```text
//!   0000000001.log   header | group | group | ...        closed, never written again
//!   0000000002.log   header | group | group | 0 0 0 0    the newest: groups take the place of zeros
//!   mark             (last flushed group, oldest segment), again and again
//!
//!   header   magic, version, number, number of its first group, hash of the group before, check
//!   group    magic, number, length, count, hash of the group before | record, record, ... | hash of all that
//!   record   length, CRC-32, bytes
//! ```
//!
//! A *group* is what one flush makes durable: all that came while the flush before was under way, so nobody waits for
//! anything but the disk. No flush is made for what nobody waits for (the ends of entries, mostly): it goes with the next
//! group, and after 10 ms at the latest. It carries its number and the SHA-256 of the group before, so a group that is missing, out of
//! place or changed shows. It is not begun before the flush of the one before has succeeded, so only the last group can be
//! torn by a crash. The *mark* says the number of the last flushed group a second time: a log that ends earlier has lost
//! something that was flushed. It is written after the flush and is itself flushed when the log has been idle for a
//! moment, so it may be behind, never ahead.
//!
//! The newest segment is longer than what is in it: zeros are written ahead, so that flushing a group need not note a new
//! length of the file besides. They are given back when the segment is closed; zeros up to the end of a file mean nothing.
//!
//! # After a crash
//!
//! [`recover()`] reads every segment. An unreadable end of the newest one, beyond the mark, is a group that was never
//! flushed and that nobody was told of: it is cut off, and reported. Anything else that cannot be read is damage: it is
//! named, and the log does not open. A start always begins a segment of its own.
//!
//! # When the disk fails
//!
//! After a failed flush nobody knows what the disk has (the kernel may have dropped what it could not write, and a second
//! flush would succeed; Rebello and others, "Can Applications Recover from fsync Failures?", USENIX ATC 2020): the log
//! tells whoever waits that the outcome is not known, takes nothing more and says so. A full disk shows when writing, not
//! when flushing: the group is cut off again, promises in it are refused, notes are kept for the next.
//!
//! # Making room
//!
//! Only the oldest segment is ever removed, after what lives in it has been appended again. So a record that ends what an
//! older one began is always younger than it, and goes after it.

mod cleaner;
mod damage;
pub(crate) mod files;
mod frame;
mod mark;
mod open;
mod queue;
mod recover;
mod salvage;
mod writer;

pub(crate) use self::{
    cleaner::{Cleaner, Owner, Rewritten},
    open::{Limits, Log},
    queue::{Kind, NotWritten},
    recover::{OpenLogError, is_file_of_log, look_through, read_record, recover},
    salvage::salvage,
};
pub use self::{damage::Damage, recover::Recovered};
pub(crate) use crate::memory::Location;
