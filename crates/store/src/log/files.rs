//! The few things that the log does with files, so that a test can be the disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
};

/// A folder of files.
pub trait Files: Send + Sync {
    /// The names of all files, in no order.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    fn names(&self) -> io::Result<Vec<String>>;

    /// A file's bytes.
    ///
    /// # Errors
    ///
    /// It is not there, or cannot be read.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// So many of a file's bytes from there on.
    ///
    /// # Errors
    ///
    /// The file is not there, is too short, or cannot be read.
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Opens a file to append to it at its end, empty if it was not there.
    ///
    /// # Errors
    ///
    /// It cannot be opened or made.
    fn appender(&self, name: &str) -> io::Result<Box<dyn Appender>>;

    /// Cuts a file and flushes it.
    ///
    /// # Errors
    ///
    /// It cannot be cut, or the flush failed.
    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;

    /// Gives a file another name; a file of that name makes way.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names that came, changed or went survive a crash of the machine.
    ///
    /// # Errors
    ///
    /// The flush failed.
    fn flush_names(&self) -> io::Result<()>;
}

/// A file that is appended to.
pub trait Appender: Send {
    /// Makes the file so much longer than what was appended to it, the rest being zeros, whose place is taken by what is
    /// appended. After an error it may be longer than it was.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;

    /// Appends all of this. After an error a part of it may be there.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was appended survive a crash of the machine.
    ///
    /// # Errors
    ///
    /// The flush failed: what of it is on the disk is not known.
    fn flush(&mut self) -> io::Result<()>;
}

/// A folder on the disk, which one process at a time may have.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    /// Opens a folder, or makes it, readable for its owner alone.
    ///
    /// # Errors
    ///
    /// It cannot be made, or another process has it ([`io::ErrorKind::WouldBlock`]).
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder.create(&path)?;
        let lock = private().create(true).open(path.join(LOCK))?;
        lock.try_lock().map_err(io::Error::from)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Files for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no text is none of the log's.
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn appender(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        let mut file = private().create(true).open(self.path.join(name))?;
        let end = file.seek(SeekFrom::End(0))?;
        Ok(Box::new(FileAppender {
            file,
            end,
            length: end,
        }))
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    #[cfg(unix)]
    fn flush_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Elsewhere a folder cannot be opened as a file.
    #[cfg(not(unix))]
    fn flush_names(&self) -> io::Result<()> {
        Ok(())
    }
}

struct FileAppender {
    /// Its cursor is at the end of what was appended.
    file: File,
    end: u64,
    /// With what was reserved.
    length: u64,
}

impl Appender for FileAppender {
    /// Writes the zeros: blocks that are only set aside are noted anew when something comes into them, and the next flush
    /// would have that to do besides.
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let length = self.end.saturating_add(bytes);
        if length > self.length {
            self.file.seek(SeekFrom::Start(self.length))?;
            let written = write_zeros(&mut self.file, length - self.length);
            self.file.seek(SeekFrom::Start(self.end))?;
            written?;
            self.length = length;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.end += bytes.len() as u64;
        self.length = self.length.max(self.end);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn write_zeros(file: &mut File, mut bytes: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 * 1024];
    while bytes > 0 {
        let block = usize::try_from(bytes).map_or(ZEROS.len(), |bytes| bytes.min(ZEROS.len()));
        file.write_all(&ZEROS[..block])?;
        bytes -= block as u64;
    }
    Ok(())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

const LOCK: &str = "lock";
