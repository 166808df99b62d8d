//! The data folder: what must stay the same from one start to the next.
//!
//! `dev` and `emulator` keep their certificates and their random secrets here. A file appears whole or not at all:
//! it is written under another name, flushed, and renamed. Files with a secret have mode 0600 from their first byte.
//! One process at a time has the folder; the lock goes with the process, so a crash leaves none behind.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A data folder that this process has for itself.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Held open for its lock.
    _lock: File,
}

impl DataFolder {
    /// Opens the folder, makes it first if it is not there (mode 0700), and locks it.
    ///
    /// # Errors
    ///
    /// When the folder can not be made or written, or another process has it.
    pub fn open(path: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| {
                format!(
                    "could not make the data folder {}; --data DIR (TOMBOLO_DATA) names another",
                    path.display()
                )
            })?;
        let path = path
            .canonicalize()
            .with_context(|| format!("could not find the data folder {}", path.display()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(PRIVATE)
            .open(path.join(LOCK))
            .with_context(|| format!("could not write in the data folder {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!(
                "another tombolo uses the data folder {}: stop it, or name another folder with --data DIR (TOMBOLO_DATA)",
                path.display()
            ),
            Err(TryLockError::Error(source)) => Err(source)
                .with_context(|| format!("could not lock the data folder {}", path.display())),
        }
    }

    /// Where the file of this name is.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// When it is there and can not be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.file(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
        }
    }

    /// Writes a file that everyone may read.
    ///
    /// # Errors
    ///
    /// When it can not be written; the file is then as it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.replace(name, bytes, PUBLIC)
    }

    /// Writes a file that only its owner may read.
    ///
    /// # Errors
    ///
    /// When it can not be written; the file is then as it was.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.replace(name, bytes, PRIVATE)
    }

    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let path = self.file(name);
        let unfinished = self.file(&format!(".{name}.unfinished"));
        let write = || -> io::Result<()> {
            match fs::remove_file(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            // `create_new`: a file that was there before would keep its own, wider mode.
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(mode)
                .open(&unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().with_context(|| format!("could not write {}", path.display()))
    }
}

const LOCK: &str = "lock";
const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keeps_secrets_from_others() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&parent.path().join("a/data")).unwrap();
        folder.write_private("secret", b"first").unwrap();
        folder.write_private("secret", b"second").unwrap();
        folder.write("open", b"x").unwrap();

        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path), 0o700);
        assert_eq!(mode(&folder.file("secret")), 0o600);
        assert_eq!(folder.read("secret").unwrap().unwrap(), b"second");
        assert_eq!(folder.read("nothing").unwrap(), None);
    }

    #[test]
    fn belongs_to_one_process_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let first = DataFolder::open(parent.path()).unwrap();
        let refused = DataFolder::open(parent.path()).unwrap_err().to_string();
        assert!(refused.contains("--data"), "{refused}");
        drop(first);
        DataFolder::open(parent.path()).unwrap();
    }
}
