//! Reading a log after a restart, and what can be saved of a damaged one.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    Damage, Location,
    files::Files,
    frame::{self, BadHeader, HEADER, Hash, Header, Piece},
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

/// Reads a log and says what is in it. Changes nothing.
pub(crate) fn look_through(files: &dyn Files) -> Result<Recovered, OpenLogError> {
    Ok(read(files, false, |_, _| {})?.recovered)
}

fn read(
    files: &dyn Files,
    may_mend: bool,
    mut each: impl FnMut(Location, &[u8]),
) -> Result<Resume, OpenLogError> {
    let (segments, reach, damaged_marks) = look(files)?;
    let mut resume = Resume {
        next_segment: reach.oldest.max(1),
        reach: Reach {
            last_group: 0,
            oldest: reach.oldest.max(1),
        },
        chain: [0; 32],
        sizes: BTreeMap::new(),
        recovered: Recovered {
            damaged_marks,
            ..Recovered::default()
        },
    };
    let mut damage = Vec::new();
    let newest = segments.last().copied();
    let mut is_first = true;
    for number in segments {
        let name = segment_name(number);
        if number < resume.reach.oldest {
            // Its records were written again before the mark said so.
            if may_mend {
                remove(files, &name)?;
            }
            continue;
        }
        if number != resume.next_segment {
            damage.push(missing(resume.next_segment, number));
        }
        let bytes = files.read(&name).map_err(at(&name))?;
        let pieces = frame::pieces(&bytes);
        let has_groups = pieces.iter().any(|piece| matches!(piece, Piece::Group(_)));
        let flushed = reach.last_group;
        match Header::decode(&bytes) {
            Ok(header) if header.segment == number => {
                if is_first {
                    resume.reach.last_group = header.first_group.saturating_sub(1);
                    resume.chain = header.chain;
                } else if header.chain != resume.chain {
                    damage.push(damaged(
                        &name,
                        0,
                        HEADER,
                        "it does not follow the segment before",
                    ));
                }
            }
            Err(BadHeader::Version(version)) => {
                return Err(OpenLogError::Version {
                    file: name,
                    version,
                });
            }
            // A crash while it was made: nothing can be in it.
            Ok(_) | Err(BadHeader::Unreadable)
                if Some(number) == newest
                    && !has_groups
                    && bytes.len() <= HEADER
                    && resume.reach.last_group >= flushed
                    && (!is_first || flushed == 0) =>
            {
                resume.recovered.torn = Some(damaged(&name, 0, bytes.len(), TORN));
                if may_mend {
                    remove(files, &name)?;
                }
                continue;
            }
            Ok(_) | Err(BadHeader::Unreadable) => {
                damage.push(damaged(
                    &name,
                    0,
                    HEADER,
                    "the head of the segment is damaged",
                ));
            }
        }
        is_first = false;
        resume.next_segment = number + 1;
        resume.recovered.segments += 1;
        let mut length = bytes.len();
        let count = pieces.len();
        for (index, piece) in pieces.into_iter().enumerate() {
            match piece {
                Piece::Group(group) => {
                    if group.number != resume.reach.last_group + 1 || group.chain != resume.chain {
                        let what = "it does not follow the group before";
                        damage.push(damaged(&name, group.offset, frame::GROUP_HEAD, what));
                    }
                    resume.reach.last_group = group.number;
                    resume.chain = group.hash;
                    resume.recovered.groups += 1;
                    for (location, record) in frame::records(&bytes, number, &group) {
                        resume.recovered.records += 1;
                        each(location, record);
                    }
                }
                Piece::Bad {
                    offset,
                    length: bad,
                } => {
                    let is_end = Some(number) == newest && index + 1 == count;
                    if is_end && resume.reach.last_group >= flushed && damage.is_empty() {
                        resume.recovered.torn = Some(damaged(&name, offset, bad, TORN));
                        length = offset;
                        if may_mend {
                            let kept = offset as u64;
                            files.truncate(&name, kept).map_err(at(&name))?;
                        }
                    } else {
                        damage.push(damaged(&name, offset, bad, "no whole group"));
                    }
                }
            }
        }
        resume.recovered.bytes += length as u64;
        resume.sizes.insert(number, length as u64);
    }
    if resume.reach.last_group < reach.last_group && damage.is_empty() {
        damage.push(Damage {
            file: mark::NAME.to_owned(),
            offset: 0,
            bytes: 0,
            what: "groups that it says were flushed are missing at the end of the log",
        });
    }
    if damage.is_empty() {
        Ok(resume)
    } else {
        Err(OpenLogError::Damaged(damage))
    }
}

/// Gives every record that can be read, in the order in which they were written, and says what cannot. Changes nothing.
pub(crate) fn salvage(
    files: &dyn Files,
    mut each: impl FnMut(&[u8]),
) -> Result<(u64, Vec<Damage>), OpenLogError> {
    let mut damage = Vec::new();
    let mut records = 0;
    let mut last: Option<(u64, Hash)> = None;
    for number in numbers(&files.names().map_err(at("."))?) {
        let name = segment_name(number);
        let bytes = match files.read(&name) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(at(&name)(source)),
        };
        if Header::decode(&bytes).is_err() {
            damage.push(damaged(
                &name,
                0,
                HEADER.min(bytes.len()),
                "the head of the segment",
            ));
        }
        for piece in frame::pieces(&bytes) {
            match piece {
                Piece::Group(group) => {
                    if last.is_some_and(|last| last != (group.number.wrapping_sub(1), group.chain))
                    {
                        let what = "groups before it are missing";
                        damage.push(damaged(&name, group.offset, 0, what));
                    }
                    last = Some((group.number, group.hash));
                    for (_, record) in frame::records(&bytes, number, &group) {
                        records += 1;
                        each(record);
                    }
                }
                Piece::Bad { offset, length } => {
                    damage.push(damaged(&name, offset, length, "no whole group"));
                }
            }
        }
    }
    Ok((records, damage))
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

fn numbers(names: &[String]) -> Vec<u32> {
    let number = |name: &String| {
        let number = name.strip_suffix(".log")?.parse().ok()?;
        (segment_name(number) == *name).then_some(number)
    };
    let mut numbers: Vec<_> = names.iter().filter_map(number).collect();
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

fn damaged(file: &str, offset: usize, bytes: usize, what: &'static str) -> Damage {
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
        limits: super::writer::Limits,
    ) -> Result<super::Log, OpenLogError> {
        super::Log::start(files, self, limits)
    }
}

const TORN: &str = "a group that was never flushed";
