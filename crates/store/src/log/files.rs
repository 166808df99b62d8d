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

    /// Opens a file to append to it, empty if it was not there.
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
        let file = private().create(true).open(self.path.join(name))?;
        Ok(Box::new(FileAppender(file)))
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

struct FileAppender(File);

impl Appender for FileAppender {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

const LOCK: &str = "lock";
