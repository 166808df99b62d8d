//! Reading a log after a restart.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, mpsc},
    thread,
};

use super::{
    Damage, Location,
    files::Files,
    frame::{self, BadHeader, Group, HEADER, Hash, Header, Piece},
    mark::{self, Reach},
};

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenLogError {
    /// The folder or a file in it cannot be read or written.
    #[error("{file}")]
    Io {
        /// Which file; a dot is the folder.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A segment is of a version that this program does not know.
    #[error(
        "{file} has version {version} of the format, and this program reads version {}",
        frame::VERSION
    )]
    Version {
        /// Which file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// Something that was flushed cannot be read.
    #[error("{} damaged parts, the first in {}", .0.len(), .0.first().map(Damage::to_string).unwrap_or_default())]
    Damaged(Vec<Damage>),
}

/// What a start found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Segments.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whole groups.
    pub groups: u64,
    /// Records in them.
    pub records: u64,
    /// What was cut off at the end: a group that a crash tore, before its flush was done and anybody was told of it.
    pub torn: Option<Damage>,
    /// Entries of the mark that could not be read. The log itself is whole, so nothing is lost.
    pub damaged_marks: usize,
}

/// Where a log goes on.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(super) next_segment: u32,
    pub(super) reach: Reach,
    pub(super) chain: Hash,
    /// Bytes by segment.
    pub(super) sizes: BTreeMap<u32, u64>,
    pub(crate) recovered: Recovered,
}

/// Reads a log, and gives each record in the order in which they were written. Cuts off a torn end, removes what a crash
/// has left behind.
pub(crate) fn recover(
    files: &dyn Files,
    each: impl FnMut(Location, &[u8]),
) -> Result<Resume, OpenLogError> {
    read(files, true, each)
}

/// Reads a log, gives each record in the order in which they were written, and says what is in it. Changes nothing.
pub(crate) fn look_through(
    files: &dyn Files,
    each: impl FnMut(Location, &[u8]),
) -> Result<Recovered, OpenLogError> {
    Ok(read(files, false, each)?.recovered)
}

/// Reads a record again. `None` if it is not what was written.
pub(crate) fn read_record(files: &dyn Files, location: Location) -> io::Result<Option<Vec<u8>>> {
    let name = segment_name(location.segment);
    let length = location.length as usize + frame::RECORD_HEAD;
    match files.read_at(&name, location.offset.into(), length) {
        Ok(bytes) => Ok(frame::record(bytes, location)),
        // Cut off by whoever damaged it.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(
    files: &dyn Files,
    may_mend: bool,
    mut each: impl FnMut(Location, &[u8]),
) -> Result<Resume, OpenLogError> {
    let (segments, reach, damaged_marks) = look(files)?;
    let oldest = reach.oldest.max(1);
    let (gone, segments): (Vec<_>, Vec<_>) =
        segments.into_iter().partition(|number| *number < oldest);
    if may_mend {
        // Their records were written again before the mark said so.
        for number in gone {
            remove(files, &segment_name(number))?;
        }
    }
    let mut reading = Reading {
        flushed: reach.last_group,
        newest: segments.last().copied(),
        is_first: true,
        resume: Resume {
            next_segment: oldest,
            reach: Reach {
                last_group: 0,
                oldest,
            },
            chain: [0; 32],
            sizes: BTreeMap::new(),
            recovered: Recovered {
                damaged_marks,
                ..Recovered::default()
            },
        },
        damage: Vec::new(),
    };
    ahead(files, &segments, |segment| {
        let kept = reading.segment(&segment?, &mut each)?;
        match kept {
            Kept::All => Ok(()),
            Kept::Start(_) | Kept::Nothing if !may_mend => Ok(()),
            Kept::Start(length) => {
                let name = segment_name(reading.last());
                files.truncate(&name, length).map_err(at(&name))
            }
            Kept::Nothing => remove(files, &segment_name(reading.resume.next_segment)),
        }
    })?;
    reading.end()
}

/// One segment, read.
struct Segment {
    number: u32,
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
}

/// What stays of a segment.
enum Kept {
    All,
    /// What comes before this byte.
    Start(u64),
    Nothing,
}

/// A log while it is read.
struct Reading {
    resume: Resume,
    damage: Vec<Damage>,
    /// The last group that was flushed, as the mark says.
    flushed: u64,
    newest: Option<u32>,
    is_first: bool,
}

impl Reading {
    fn segment(
        &mut self,
        segment: &Segment,
        each: &mut impl FnMut(Location, &[u8]),
    ) -> Result<Kept, OpenLogError> {
        let name = segment_name(segment.number);
        if segment.number != self.resume.next_segment {
            let missing = missing(self.resume.next_segment, segment.number);
            self.damage.push(missing);
            self.resume.next_segment = segment.number;
        }
        match Header::decode(&segment.bytes) {
            Ok(header) if header.segment == segment.number => self.follows(&name, &header),
            Err(BadHeader::Version(version)) => {
                return Err(OpenLogError::Version {
                    file: name,
                    version,
                });
            }
            Ok(_) | Err(BadHeader::Unreadable) if self.may_be_half_made(segment) => {
                let torn = damaged(&name, 0, segment.bytes.len(), TORN);
                self.resume.recovered.torn = Some(torn);
                return Ok(Kept::Nothing);
            }
            Ok(_) | Err(BadHeader::Unreadable) => {
                let what = "the head of the segment is damaged";
                self.damage.push(damaged(&name, 0, HEADER, what));
            }
        }
        self.is_first = false;
        self.resume.next_segment = segment.number + 1;
        self.resume.recovered.segments += 1;
        let mut length = segment.bytes.len();
        for (index, piece) in segment.pieces.iter().enumerate() {
            match *piece {
                Piece::Group(group) => {
                    self.group(&name, &group);
                    let records = frame::records(&segment.bytes, segment.number, &group);
                    for (location, record) in records {
                        self.resume.recovered.records += 1;
                        each(location, record);
                    }
                }
                Piece::Unused { offset } => length = offset,
                Piece::Bad {
                    offset,
                    length: bad,
                } => {
                    let is_end =
                        Some(segment.number) == self.newest && index + 1 == segment.pieces.len();
                    if is_end && self.has_all_that_was_flushed() && self.damage.is_empty() {
                        self.resume.recovered.torn = Some(damaged(&name, offset, bad, TORN));
                        length = offset;
                    } else {
                        self.damage
                            .push(damaged(&name, offset, bad, "no whole group"));
                    }
                }
            }
        }
        self.resume.recovered.bytes += length as u64;
        self.resume.sizes.insert(segment.number, length as u64);
        Ok(if length < segment.bytes.len() {
            Kept::Start(length as u64)
        } else {
            Kept::All
        })
    }

    /// Notes the head of a segment.
    fn follows(&mut self, name: &str, header: &Header) {
        if self.is_first {
            self.resume.reach.last_group = header.first_group.saturating_sub(1);
            self.resume.chain = header.chain;
        } else if header.chain != self.resume.chain {
            let what = "it does not follow the segment before";
            self.damage.push(damaged(name, 0, HEADER, what));
        }
    }

    /// Whether a crash while the segment was made explains that it has no head: nothing can be in it.
    fn may_be_half_made(&self, segment: &Segment) -> bool {
        let has_groups = segment
            .pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Group(_)));
        Some(segment.number) == self.newest
            && !has_groups
            && segment.bytes.len() <= HEADER
            && self.has_all_that_was_flushed()
            && (!self.is_first || self.flushed == 0)
    }

    fn group(&mut self, name: &str, group: &Group) {
        let Resume { reach, chain, .. } = &mut self.resume;
        if group.number != reach.last_group + 1 || group.chain != *chain {
            let what = "it does not follow the group before";
            self.damage
                .push(damaged(name, group.offset, frame::GROUP_HEAD, what));
        }
        reach.last_group = group.number;
        *chain = group.hash;
        self.resume.recovered.groups += 1;
    }

    const fn has_all_that_was_flushed(&self) -> bool {
        self.resume.reach.last_group >= self.flushed
    }

    /// The segment that was read last.
    const fn last(&self) -> u32 {
        self.resume.next_segment - 1
    }

    fn end(mut self) -> Result<Resume, OpenLogError> {
        if !self.has_all_that_was_flushed() && self.damage.is_empty() {
            self.damage.push(Damage {
                file: mark::NAME.to_owned(),
                offset: 0,
                bytes: 0,
                what: "groups that it says were flushed are missing at the end of the log",
            });
        }
        if self.damage.is_empty() {
            Ok(self.resume)
        } else {
            Err(OpenLogError::Damaged(self.damage))
        }
    }
}

/// Gives the segments in their order. While one is looked at, the next is read and its groups are hashed.
fn ahead(
    files: &dyn Files,
    numbers: &[u32],
    mut each: impl FnMut(Result<Segment, OpenLogError>) -> Result<(), OpenLogError>,
) -> Result<(), OpenLogError> {
    let read = |number| {
        let name = segment_name(number);
        let bytes = files.read(&name).map_err(at(&name))?;
        Ok(Segment {
            number,
            pieces: frame::pieces(&bytes),
            bytes,
        })
    };
    thread::scope(|scope| {
        // One is looked at, one waits, one is read: 64 MiB each, unless the configuration says otherwise.
        let (give, take) = mpsc::sync_channel(1);
        let reader = thread::Builder::new().name("store-read".to_owned());
        let reader = reader.spawn_scoped(scope, move || {
            for number in numbers {
                if give.send(read(*number)).is_err() {
                    return; // Nobody wants to see the rest.
                }
            }
        });
        reader.map_err(at("."))?;
        take.into_iter().try_for_each(&mut each)
    })
}

/// The segments in order, how far the mark says the log goes, and how many entries of the mark are damaged.
fn look(files: &dyn Files) -> Result<(Vec<u32>, Reach, usize), OpenLogError> {
    let names = files.names().map_err(at("."))?;
    let segments = numbers(&names);
    if !names.iter().any(|name| name == mark::NAME) {
        if segments.is_empty() {
            return Ok((segments, Reach::default(), 0));
        }
        return Err(OpenLogError::Damaged(vec![damaged(
            mark::NAME,
            0,
            0,
            "it is missing",
        )]));
    }
    let bytes = files.read(mark::NAME).map_err(at(mark::NAME))?;
    match mark::read(&bytes) {
        Some(read) => Ok((segments, read.reach, read.damaged.len())),
        None => {
            let what = "no entry can be read";
            let damage = damaged(mark::NAME, 0, bytes.len(), what);
            Err(OpenLogError::Damaged(vec![damage]))
        }
    }
}

/// Whether a log has files of this name.
pub(crate) fn is_file_of_log(name: &str) -> bool {
    name == mark::NAME || number(name).is_some()
}

fn number(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".log")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

pub(super) fn numbers(names: &[String]) -> Vec<u32> {
    let mut numbers: Vec<_> = names.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    numbers
}

fn remove(files: &dyn Files, name: &str) -> Result<(), OpenLogError> {
    files.remove(name).map_err(at(name))?;
    files.flush_names().map_err(at("."))
}

fn missing(from: u32, to: u32) -> Damage {
    damaged(
        &format!("{} to before {}", segment_name(from), segment_name(to)),
        0,
        0,
        "segments are missing",
    )
}

pub(super) fn damaged(file: &str, offset: usize, bytes: usize, what: &'static str) -> Damage {
    Damage {
        file: file.to_owned(),
        offset: offset as u64,
        bytes: bytes as u64,
        what,
    }
}

pub(super) fn at(file: &str) -> impl Fn(io::Error) -> OpenLogError {
    move |source| OpenLogError::Io {
        file: file.to_owned(),
        source,
    }
}

pub(super) fn segment_name(number: u32) -> String {
    format!("{number:010}.log")
}

impl Resume {
    /// Opens the log to write.
    pub(crate) fn start(
        self,
        files: Arc<dyn Files>,
        limits: super::Limits,
    ) -> Result<super::Log, OpenLogError> {
        super::Log::start(files, self, limits)
    }
}

const TORN: &str = "a group that was never flushed";
