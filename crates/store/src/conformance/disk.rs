//! A disk in memory, whose flushes can fail or be held back, that can be full, and whose power can be cut.
//!
//! What was appended and not flushed, and names that were not flushed, may or may not be there after a cut. The disk keeps
//! every operation, so that one run gives an image of each moment of it.

use std::{collections::BTreeMap, io, sync::Arc};

use fastrand::Rng;
use parking_lot::{Condvar, Mutex};

use crate::embedded::{Appender, Files};

/// The disk. Clones are the same one.
#[derive(Clone, Default)]
pub struct Disk(Arc<Shared>);

/// Flushes are held back as long as this is there.
pub struct HeldFlushes(Disk);

/// What a power cut does to what was not flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// It is lost.
    Drop,
    /// It is there.
    Keep,
    /// A part of it is there, or something else of that length.
    Tear(u64),
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Flushes are not held back any more.
    released: Condvar,
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, usize>,
    contents: Vec<Vec<u8>>,
    operations: Vec<Operation>,
    flushes: u64,
    /// Flushes from this one on fail, so many.
    failing: Option<(u64, u64)>,
    /// Bytes that can still be appended.
    room: Option<u64>,
    /// Whether flushes are held back, and how many are at this moment.
    is_holding: bool,
    held: usize,
}

/// What was done; files are numbers, since a name may pass from one to another.
#[derive(Clone)]
enum Operation {
    Create(String, usize),
    /// From this byte on; beyond the end there are zeros.
    Write(usize, usize, Vec<u8>),
    /// Flushed at once.
    Truncate(usize, usize),
    Flush(usize),
    Rename(String, String),
    Remove(String),
    FlushNames,
}

impl Disk {
    /// Lets flushes fail: so many, from this one on, counted from 0 at the making of the disk.
    pub fn fail_flushes(&self, first: u64, count: u64) {
        self.0.state.lock().failing = Some((first, count));
    }

    /// Holds flushes back, until what is returned is dropped. Only those who flush wait.
    #[must_use]
    pub fn hold_flushes(&self) -> HeldFlushes {
        self.0.state.lock().is_holding = true;
        HeldFlushes(self.clone())
    }

    /// Leaves room for so many bytes; `None` for as many as there are.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.0.state.lock().room = bytes;
    }

    /// How many flushes there were.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.0.state.lock().flushes
    }

    /// How many flushes there were of the files whose names end so.
    #[must_use]
    pub fn flushes_of(&self, end: &str) -> usize {
        let state = self.0.state.lock();
        let files = state.names.iter().filter(|(name, _)| name.ends_with(end));
        let files: Vec<_> = files.map(|(_, file)| *file).collect();
        let flushed = state.operations.iter().filter(
            |operation| matches!(operation, Operation::Flush(file) if files.contains(file)),
        );
        flushed.count()
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.0.state.lock().operations.len()
    }

    /// The disk as it is after its power was cut when there were so many operations.
    #[must_use]
    pub fn image(&self, operations: usize, cut: Cut) -> Self {
        let state = self.0.state.lock();
        let mut image = Image::default();
        for operation in &state.operations[..operations] {
            image.apply(operation);
        }
        let state = image.cut(cut);
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            released: Condvar::new(),
        }))
    }

    /// Bytes of all files, and which one has the byte of this number, in the order of names.
    #[must_use]
    pub fn locate(&self, byte: usize) -> Option<(String, usize)> {
        let state = self.0.state.lock();
        let mut rest = byte;
        for (name, file) in &state.names {
            let length = state.contents[*file].len();
            if rest < length {
                return Some((name.clone(), rest));
            }
            rest -= length;
        }
        None
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let state = self.0.state.lock();
        let lengths = state.names.values();
        lengths.map(|file| state.contents[*file].len()).sum()
    }

    /// Changes a file's bytes behind everybody's back.
    ///
    /// # Panics
    ///
    /// There is no such file.
    pub fn damage(&self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.state.lock();
        let file = state.names[name];
        damage(&mut state.contents[file]);
    }

    /// Flushes, when that is not held back.
    fn flush(&self, flushed: Operation) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.held += 1;
        while state.is_holding {
            self.0.released.wait(&mut state);
        }
        state.held -= 1;
        state.flush()?;
        state.operations.push(flushed);
        Ok(())
    }
}

impl HeldFlushes {
    /// How many flushes wait.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.0.state.lock().held
    }
}

impl Drop for HeldFlushes {
    fn drop(&mut self) {
        let shared = &self.0.0;
        shared.state.lock().is_holding = false;
        shared.released.notify_all();
    }
}

impl State {
    fn file(&self, name: &str) -> io::Result<usize> {
        let file = self.names.get(name).copied();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A full disk takes what it can.
    fn write(&mut self, file: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let content = &mut self.contents[file];
        let new = (offset + bytes.len()).saturating_sub(content.len());
        let room = self.room.unwrap_or(u64::MAX);
        let taken_new = usize::try_from(room).map_or(new, |room| room.min(new));
        if let Some(room) = &mut self.room {
            *room -= taken_new as u64;
        }
        let taken = &bytes[..bytes.len() - (new - taken_new)];
        overwrite(content, offset, taken);
        self.operations
            .push(Operation::Write(file, offset, taken.to_vec()));
        if taken_new < new {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let number = self.flushes;
        self.flushes += 1;
        match self.failing {
            Some((first, count)) if number >= first && number - first < count => {
                Err(io::Error::other("the disk has failed"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Files for Disk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.state.lock().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.0.state.lock();
        Ok(state.contents[state.file(name)?].clone())
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = self.0.state.lock();
        let content = &state.contents[state.file(name)?];
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = content.get(offset..offset.saturating_add(length));
        bytes
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn appender(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        let mut state = self.0.state.lock();
        let file = state.file(name).unwrap_or_else(|_| {
            let file = state.contents.len();
            state.contents.push(Vec::new());
            state.names.insert(name.to_owned(), file);
            let create = Operation::Create(name.to_owned(), file);
            state.operations.push(create);
            file
        });
        let end = state.contents[file].len();
        Ok(Box::new(DiskAppender {
            disk: self.clone(),
            file,
            end,
        }))
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.0.state.lock();
        let file = state.file(name)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        state.contents[file].truncate(length);
        state.operations.push(Operation::Truncate(file, length));
        state.flush()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.state.lock();
        let file = state.file(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        let rename = Operation::Rename(from.to_owned(), to.to_owned());
        state.operations.push(rename);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.file(name)?;
        state.names.remove(name);
        state.operations.push(Operation::Remove(name.to_owned()));
        Ok(())
    }

    fn flush_names(&self) -> io::Result<()> {
        self.flush(Operation::FlushNames)
    }
}

struct DiskAppender {
    disk: Disk,
    file: usize,
    end: usize,
}

impl Appender for DiskAppender {
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let mut state = self.disk.0.state.lock();
        let length = state.contents[self.file].len();
        let zeros = (self.end + bytes).saturating_sub(length);
        state.write(self.file, length, &vec![0; zeros])
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.state.lock();
        state.write(self.file, self.end, bytes)?;
        self.end += bytes.len();
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush(Operation::Flush(self.file))
    }
}

/// What is certain to be there, and what is not.
#[derive(Default)]
struct Image {
    names: BTreeMap<String, usize>,
    unflushed_names: Vec<Operation>,
    /// By file: what is flushed, and what was written since then.
    contents: BTreeMap<usize, (Vec<u8>, Vec<Write>)>,
}

/// Bytes, and where they are to be.
type Write = (usize, Vec<u8>);

impl Image {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create(..) | Operation::Rename(..) | Operation::Remove(_) => {
                self.unflushed_names.push(operation.clone());
            }
            Operation::FlushNames => {
                for operation in std::mem::take(&mut self.unflushed_names) {
                    apply_name(&mut self.names, &operation);
                }
            }
            Operation::Write(file, offset, bytes) => {
                let (_, unflushed) = self.contents.entry(*file).or_default();
                unflushed.push((*offset, bytes.clone()));
            }
            Operation::Flush(file) => {
                let (flushed, unflushed) = self.contents.entry(*file).or_default();
                write_all(flushed, unflushed);
            }
            Operation::Truncate(file, length) => {
                let (flushed, unflushed) = self.contents.entry(*file).or_default();
                write_all(flushed, unflushed);
                flushed.truncate(*length);
            }
        }
    }

    fn cut(mut self, cut: Cut) -> State {
        let mut rng = match cut {
            Cut::Tear(seed) => Some(Rng::with_seed(seed)),
            Cut::Drop | Cut::Keep => None,
        };
        let names = std::mem::take(&mut self.unflushed_names);
        let kept_names = match (&mut rng, cut) {
            (Some(rng), _) => rng.usize(..=names.len()),
            (None, Cut::Keep) => names.len(),
            (None, Cut::Drop | Cut::Tear(_)) => 0,
        };
        // A file system keeps the order of names.
        for operation in &names[..kept_names] {
            apply_name(&mut self.names, operation);
        }
        let mut state = State::default();
        for (name, file) in &self.names {
            let (mut content, mut unflushed) = self.contents.get(file).cloned().unwrap_or_default();
            match (&mut rng, cut) {
                (Some(rng), _) => {
                    unflushed.truncate(rng.usize(..=unflushed.len()));
                    if let Some((offset, last)) = unflushed.pop() {
                        write_all(&mut content, &mut unflushed);
                        tear(&mut content, offset, &last, rng);
                    }
                }
                (None, Cut::Keep) => write_all(&mut content, &mut unflushed),
                (None, Cut::Drop | Cut::Tear(_)) => {}
            }
            let file = state.contents.len();
            // What is there is where the next image begins.
            state.operations.extend([
                Operation::Create(name.clone(), file),
                Operation::Write(file, 0, content.clone()),
                Operation::Flush(file),
            ]);
            state.names.insert(name.clone(), file);
            state.contents.push(content);
        }
        state.operations.push(Operation::FlushNames);
        state
    }
}

fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn write_all(content: &mut Vec<u8>, writes: &mut Vec<Write>) {
    for (offset, bytes) in writes.drain(..) {
        overwrite(content, offset, &bytes);
    }
}

/// Of a write, so many bytes from its start are there, but perhaps for some between: the length may be there before the
/// bytes are, and then they are what was there before, or zeros.
fn tear(content: &mut Vec<u8>, offset: usize, bytes: &[u8], rng: &mut Rng) {
    let bytes = &bytes[..rng.usize(..=bytes.len())];
    let (mut from, mut to) = (0, 0);
    if rng.bool() {
        from = rng.usize(..=bytes.len());
        to = rng.usize(from..=bytes.len());
    }
    overwrite(content, offset, &bytes[..from]);
    if to < bytes.len() {
        overwrite(content, offset + to, &bytes[to..]);
    } else if content.len() < offset + to {
        content.resize(offset + to, 0);
    }
}

fn apply_name(names: &mut BTreeMap<String, usize>, operation: &Operation) {
    match operation {
        Operation::Create(name, file) => {
            names.insert(name.clone(), *file);
        }
        Operation::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Operation::Remove(name) => {
            names.remove(name);
        }
        Operation::Write(..)
        | Operation::Truncate(..)
        | Operation::Flush(_)
        | Operation::FlushNames => {}
    }
}
