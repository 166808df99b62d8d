//! The file that says a second time how far the log goes.
//!
//! Entries of 24 bytes, appended one after the other: the number of the last flushed group, the oldest segment, four
//! letters with the version of the form, eight bytes of their SHA-256. The greatest numbers count. When the file is
//! long, a new one takes its place.

use std::{io, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::files::{Appender, Files};

/// How far the log goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Reach {
    /// The last group that was flushed; 0 if there was none.
    pub(super) last_group: u64,
    /// The oldest segment that there is.
    pub(super) oldest: u32,
}

/// The file, while the log is open.
pub(super) struct Mark {
    files: Arc<dyn Files>,
    file: Box<dyn Appender>,
    length: usize,
    reach: Reach,
    is_flushed: bool,
}

/// What the file says.
pub(super) struct Read {
    pub(super) reach: Reach,
    /// Where an entry cannot be read, and it is not the last one, which a crash may have torn.
    pub(super) damaged: Vec<usize>,
}

/// Reads the bytes of the file; `None` if no entry can be read.
pub(super) fn read(bytes: &[u8]) -> Option<Read> {
    let mut read = Read {
        reach: Reach::default(),
        damaged: Vec::new(),
    };
    let mut is_any = false;
    let mut unreadable = Vec::new();
    for (number, entry) in bytes.chunks(ENTRY).enumerate() {
        match decode(entry) {
            Some(reach) => {
                is_any = true;
                read.damaged.append(&mut unreadable);
                read.reach.last_group = read.reach.last_group.max(reach.last_group);
                read.reach.oldest = read.reach.oldest.max(reach.oldest);
            }
            None => unreadable.push(number * ENTRY),
        }
    }
    is_any.then_some(read)
}

impl Mark {
    /// Begins a new file.
    pub(super) fn begin(files: Arc<dyn Files>, reach: Reach) -> io::Result<Self> {
        let file = replace(files.as_ref(), reach)?;
        Ok(Self {
            files,
            file,
            length: ENTRY,
            reach,
            is_flushed: true,
        })
    }

    /// A group is flushed.
    pub(super) fn group_flushed(&mut self, number: u64) -> io::Result<()> {
        self.reach.last_group = number;
        self.is_flushed = false;
        if self.length >= LONGEST {
            return self.replace();
        }
        self.length += ENTRY;
        self.file.append(&encode(self.reach))
    }

    /// There is no older segment. It is flushed when this returns.
    pub(super) fn set_oldest(&mut self, segment: u32) -> io::Result<()> {
        self.reach.oldest = segment;
        self.replace()
    }

    /// Makes the last entry survive a crash of the machine.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.is_flushed {
            self.file.flush()?;
            self.is_flushed = true;
        }
        Ok(())
    }

    fn replace(&mut self) -> io::Result<()> {
        self.file = replace(self.files.as_ref(), self.reach)?;
        self.length = ENTRY;
        self.is_flushed = true;
        Ok(())
    }
}

fn replace(files: &dyn Files, reach: Reach) -> io::Result<Box<dyn Appender>> {
    match files.remove(FRESH) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut fresh = files.appender(FRESH)?;
    fresh.append(&encode(reach))?;
    fresh.flush()?;
    files.rename(FRESH, NAME)?;
    files.flush_names()?;
    Ok(fresh)
}

fn encode(reach: Reach) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..8].copy_from_slice(&reach.last_group.to_le_bytes());
    entry[8..12].copy_from_slice(&reach.oldest.to_le_bytes());
    entry[12..16].copy_from_slice(VERSION);
    let check = Sha256::digest(&entry[..16]);
    entry[16..].copy_from_slice(&check[..8]);
    entry
}

fn decode(entry: &[u8]) -> Option<Reach> {
    let entry: &[u8; ENTRY] = entry.try_into().ok()?;
    let is_whole = Sha256::digest(&entry[..16])[..8] == entry[16..] && entry[12..16] == *VERSION;
    let reach = Reach {
        last_group: u64::from_le_bytes(*entry.first_chunk()?),
        oldest: u32::from_le_bytes(*entry[8..].first_chunk()?),
    };
    is_whole.then_some(reach)
}

/// The file's name.
pub(super) const NAME: &str = "mark";
/// The name of one that takes its place.
const FRESH: &str = "mark.new";
const VERSION: &[u8; 4] = b"TMK1";
const ENTRY: usize = 24;
/// When a new file takes its place: after some 2,700 groups.
const LONGEST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_readable_numbers_count() {
        let reach = |last_group, oldest| Reach { last_group, oldest };
        let mut bytes = [
            encode(reach(1, 1)),
            encode(reach(2, 3)),
            encode(reach(4, 3)),
        ]
        .concat();
        let whole = read(&bytes).unwrap();
        assert_eq!((whole.reach, whole.damaged.len()), (reach(4, 3), 0));
        bytes.truncate(2 * ENTRY + 5);
        let torn = read(&bytes).unwrap();
        assert_eq!((torn.reach, torn.damaged.len()), (reach(2, 3), 0));
        bytes[3] ^= 1;
        assert_eq!(read(&bytes).unwrap().damaged, [0]);
        assert!(read(&bytes[..ENTRY]).is_none() && read(&[]).is_none());
    }
}
