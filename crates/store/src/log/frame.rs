//! The form of segments, groups and records, byte by byte: see the log's description. Numbers are little-endian.

use sha2::{Digest as _, Sha256};

use super::Location;

/// The SHA-256 of a group with its header; of the first group's predecessor, zeros.
pub(super) type Hash = [u8; 32];

/// The head of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) segment: u32,
    pub(super) first_group: u64,
    /// The hash of the last group of the segment before.
    pub(super) chain: Hash,
}

/// Why the head of a segment is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadHeader {
    /// It is of a version that this program does not know.
    Version(u32),
    /// It is something else, or damaged.
    Unreadable,
}

/// A part of a segment after its head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    Group(Group),
    /// Bytes that are no group.
    Bad {
        offset: usize,
        length: usize,
    },
    /// Zeros up to the end: reserved, and never written.
    Unused {
        offset: usize,
    },
}

/// A group that is what it was when it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Group {
    pub(super) number: u64,
    pub(super) chain: Hash,
    pub(super) hash: Hash,
    /// Where it starts in its segment.
    pub(super) offset: usize,
    /// Where its records are in its segment.
    body: (usize, usize),
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(SEGMENT_MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.segment.to_le_bytes());
        bytes.extend(self.first_group.to_le_bytes());
        bytes.extend(self.chain);
        let check = Sha256::digest(&bytes);
        bytes.extend(&check[..8]);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let unreadable = BadHeader::Unreadable;
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(unreadable)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(unreadable)?;
        if magic != SEGMENT_MAGIC {
            return Err(unreadable);
        }
        // What follows may have another form in another version, so the check is not asked before.
        let version = u32::from_le_bytes(*version);
        let (segment, rest) = rest.split_first_chunk::<4>().ok_or(unreadable)?;
        let (first_group, rest) = rest.split_first_chunk::<8>().ok_or(unreadable)?;
        let (chain, rest) = rest.split_first_chunk::<32>().ok_or(unreadable)?;
        let is_whole = Sha256::digest(&bytes[..HEADER - 8])[..8] == rest[..rest.len().min(8)];
        match (version == VERSION, is_whole) {
            (true, true) => Ok(Self {
                segment: u32::from_le_bytes(*segment),
                first_group: u64::from_le_bytes(*first_group),
                chain: *chain,
            }),
            (true, false) => Err(unreadable),
            // A flipped bit in the version is damage, and no other version.
            (false, true) => Err(BadHeader::Version(version)),
            (false, false) if is_version_flipped(bytes, version) => Err(unreadable),
            (false, false) => Err(BadHeader::Version(version)),
        }
    }
}

/// Whether these are the bytes of a header of this version, but for the version.
fn is_version_flipped(bytes: &[u8], version: u32) -> bool {
    let Some(head) = bytes.get(..HEADER) else {
        return version != VERSION;
    };
    let mut mended = head.to_vec();
    mended[8..12].copy_from_slice(&VERSION.to_le_bytes());
    Sha256::digest(&mended[..HEADER - 8])[..8] == mended[HEADER - 8..]
}

/// A group as it is made.
pub(super) struct Builder {
    bytes: Vec<u8>,
    count: u32,
}

impl Builder {
    /// A group whose records take so many bytes in it; if they take more, it grows.
    pub(super) fn with_room_for(records: usize) -> Self {
        let mut bytes = Vec::with_capacity(GROUP_HEAD + records + size_of::<Hash>());
        bytes.resize(GROUP_HEAD, 0);
        Self { bytes, count: 0 }
    }

    /// Adds a record; answers where its bytes are in the group.
    pub(super) fn push(&mut self, record: &[u8]) -> usize {
        let length = u32::try_from(record.len()).expect("a record has a bound");
        let offset = self.bytes.len();
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(crc32fast::hash(record).to_le_bytes());
        self.bytes.extend(record);
        self.count += 1;
        offset
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The group's bytes and its hash.
    pub(super) fn finish(mut self, number: u64, chain: &Hash) -> (Vec<u8>, Hash) {
        let length = u32::try_from(self.bytes.len() - GROUP_HEAD).expect("a group has a bound");
        let head = &mut self.bytes[..GROUP_HEAD];
        head[..8].copy_from_slice(&GROUP_MAGIC);
        head[8..16].copy_from_slice(&number.to_le_bytes());
        head[16..20].copy_from_slice(&length.to_le_bytes());
        head[20..24].copy_from_slice(&self.count.to_le_bytes());
        head[24..].copy_from_slice(chain);
        let hash: Hash = Sha256::digest(&self.bytes).into();
        self.bytes.extend(hash);
        (self.bytes, hash)
    }
}

/// The parts of a segment after its head. What cannot be read is skipped until a whole group follows.
pub(super) fn pieces(segment: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = HEADER.min(segment.len());
    while at < segment.len() {
        let piece = match group_at(segment, at) {
            Some(group) => Piece::Group(group),
            None if is_zero(&segment[at..]) => Piece::Unused { offset: at },
            None => {
                let end = next_group(segment, at + 1).unwrap_or(segment.len());
                Piece::Bad {
                    offset: at,
                    length: end - at,
                }
            }
        };
        at = match piece {
            Piece::Group(group) => group.body.1 + size_of::<Hash>(),
            Piece::Bad { offset, length } => offset + length,
            Piece::Unused { .. } => segment.len(),
        };
        pieces.push(piece);
    }
    pieces
}

/// The records of a group in its segment, and where each is.
pub(super) fn records<'a>(
    segment: &'a [u8],
    number: u32,
    group: &Group,
) -> impl Iterator<Item = (Location, &'a [u8])> {
    let (mut at, end) = group.body;
    std::iter::from_fn(move || {
        let length = u32::from_le_bytes(*segment.get(at..end)?.first_chunk()?);
        let start = at + RECORD_HEAD;
        let record = segment.get(start..start.checked_add(length as usize)?)?;
        let location = Location {
            segment: number,
            offset: u32::try_from(at).ok()?,
            length,
        };
        at = start + record.len();
        Some((location, record))
    })
}

/// A record from its bytes on the disk, if they are what they were.
pub(super) fn record(mut bytes: Vec<u8>, location: Location) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (check, record) = rest.split_first_chunk::<4>()?;
    let is_whole = u32::from_le_bytes(*length) == location.length
        && record.len() == location.length as usize
        && u32::from_le_bytes(*check) == crc32fast::hash(record);
    is_whole.then(|| bytes.split_off(RECORD_HEAD))
}

fn group_at(segment: &[u8], offset: usize) -> Option<Group> {
    let group = segment.get(offset..)?;
    let head = group.get(..GROUP_HEAD)?;
    if head[..8] != GROUP_MAGIC {
        return None;
    }
    let number = u64::from_le_bytes(*head[8..].first_chunk()?);
    let length = u32::from_le_bytes(*head[16..].first_chunk()?) as usize;
    let end = GROUP_HEAD.checked_add(length)?;
    let hash: Hash = *group.get(end..)?.first_chunk()?;
    let is_whole = Sha256::digest(&group[..end])[..] == hash;
    is_whole.then_some(Group {
        number,
        chain: *head[24..].first_chunk()?,
        hash,
        offset,
        body: (offset + GROUP_HEAD, offset + end),
    })
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: &[u8] = &[0; 4096];
    let mut blocks = bytes.chunks(ZEROS.len());
    blocks.all(|block| *block == ZEROS[..block.len()])
}

/// Where the next whole group starts.
fn next_group(segment: &[u8], from: usize) -> Option<usize> {
    let rest = segment.get(from..)?;
    let mut starts = rest.windows(GROUP_MAGIC.len()).enumerate();
    starts.find_map(|(at, window)| {
        (window == GROUP_MAGIC && group_at(segment, from + at).is_some()).then_some(from + at)
    })
}

/// The version that this program writes, and reads.
pub(super) const VERSION: u32 = 2;
/// Bytes of a segment's head.
pub(super) const HEADER: usize = 64;
/// Bytes of a group before its records.
pub(super) const GROUP_HEAD: usize = 56;
/// Bytes of a record before its own.
pub(super) const RECORD_HEAD: usize = 8;
const SEGMENT_MAGIC: &[u8; 8] = b"TMBLOSEG";
/// No text, and no UTF-8: what a device sends seldom looks like it, and then has no fitting hash.
const GROUP_MAGIC: [u8; 8] = *b"\xF5TMBLO\xFA\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_whole_groups_is_named() {
        let mut segment = Header {
            segment: 1,
            first_group: 1,
            chain: [0; 32],
        }
        .encode();
        let mut chain = [0; 32];
        let mut starts = Vec::new();
        for number in 1..=3 {
            let mut group = Builder::with_room_for(0);
            group.push(b"one");
            group.push(b"");
            let (bytes, hash) = group.finish(number, &chain);
            starts.push(segment.len());
            segment.extend(bytes);
            chain = hash;
        }
        let numbers = |segment: &[u8]| {
            let number = |piece: &Piece| match piece {
                Piece::Group(group) => Some(group.number),
                Piece::Bad { .. } => None,
                Piece::Unused { .. } => Some(0),
            };
            pieces(segment).iter().map(number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&segment), [Some(1), Some(2), Some(3)]);
        for at in starts[1]..starts[2] {
            let mut flipped = segment.clone();
            flipped[at] ^= 1;
            assert_eq!(numbers(&flipped), [Some(1), None, Some(3)], "{at}");
        }
        let cut = &segment[..segment.len() - 1];
        assert_eq!(numbers(cut), [Some(1), Some(2), None]);
        let mut reserved = segment.clone();
        reserved.extend([0; 100]);
        assert_eq!(numbers(&reserved), [Some(1), Some(2), Some(3), Some(0)]);
        for at in segment.len()..reserved.len() {
            let mut flipped = reserved.clone();
            flipped[at] ^= 1;
            assert_eq!(numbers(&flipped)[3], None, "{at}");
        }
        for at in 0..HEADER {
            let mut flipped = segment.clone();
            flipped[at] ^= 1;
            assert_eq!(Header::decode(&flipped), Err(BadHeader::Unreadable), "{at}");
        }
    }

    #[test]
    fn a_record_is_read_back_or_refused() {
        let mut group = Builder::with_room_for(0);
        let offset = group.push(b"payload");
        let (bytes, _) = group.finish(1, &[0; 32]);
        let location = Location {
            segment: 1,
            offset: 0,
            length: 7,
        };
        let whole = bytes[offset..offset + RECORD_HEAD + 7].to_vec();
        assert_eq!(record(whole.clone(), location), Some(b"payload".to_vec()));
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            assert_eq!(record(flipped, location), None);
        }
    }
}
