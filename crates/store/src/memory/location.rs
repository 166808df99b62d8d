//! Where a record is on the disk.

/// A record in a log. Kept for every entry that is on the disk, so it is small.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Location {
    /// The file's number.
    pub(crate) segment: u32,
    /// Where the record starts in it.
    pub(crate) offset: u32,
    /// How many bytes it has.
    pub(crate) length: u32,
}

impl Location {
    /// Bytes that the record takes, but for what a log adds.
    pub(crate) fn bytes(self) -> u64 {
        self.length.into()
    }
}
