//! What can be saved of a damaged log.

use std::io;

use super::{
    Damage, OpenLogError,
    files::Files,
    frame::{self, HEADER, Hash, Header, Piece},
    recover::{at, damaged, numbers, segment_name},
};

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
                Piece::Unused { .. } => {}
            }
        }
    }
    Ok((records, damage))
}
