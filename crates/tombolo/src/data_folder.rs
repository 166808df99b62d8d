//! The data folder: what must stay the same from one start to the next.
//!
//! `dev` and `emulator` keep their certificates and their random secrets here. A file appears whole or not at all:
//! it is written under another name, flushed, and renamed. Files with a secret have mode 0600 from their first byte.
//! One process at a time has the folder; the lock goes with the process, so a crash leaves none behind.
//!
//! `serve` has no data folder, but a file with a secret of its own: [`secret_file`].

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use iothub::sas::Key;
use secrecy::SecretString;

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
            .with_context(|| {
                format!(
                    "could not write in the data folder {}; --data DIR (TOMBOLO_DATA) names another",
                    path.display()
                )
            })?;
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

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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
        read(&self.file(name))
    }

    /// Writes a file that everyone may read.
    ///
    /// # Errors
    ///
    /// When it can not be written; the file is then as it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        replace(&self.file(name), bytes, PUBLIC)
    }

    /// Writes a file that only its owner may read.
    ///
    /// # Errors
    ///
    /// When it can not be written; the file is then as it was.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> Result<()> {
        replace(&self.file(name), bytes, PRIVATE)
    }

    /// Gives the secret that is kept in a file of its own; makes it from 256 random bits if it is not there.
    ///
    /// # Errors
    ///
    /// When the file can not be read or written, or holds nothing.
    pub fn secret(&self, name: &str) -> Result<SecretString> {
        secret_file(&self.file(name))
    }

    /// Gives the key for shared access signatures that is kept in a file of its own; makes it if it is not there.
    ///
    /// # Errors
    ///
    /// When the file can not be read or written, or holds no key in base64.
    pub fn key(&self, name: &str) -> Result<Key> {
        match self.read(name)? {
            Some(bytes) => str::from_utf8(&bytes)
                .context("it is not text")
                .and_then(|text| Ok(Key::from_base64(text.trim())?))
                .with_context(|| no_secret(&self.file(name))),
            None => {
                let key = Key::from_bytes(random()?.to_vec())?;
                self.write_private(name, key.to_base64().as_bytes())?;
                Ok(key)
            }
        }
    }
}

/// Gives the secret that is kept in a file; makes it from 256 random bits if the file is not there.
///
/// # Errors
///
/// When the file can not be read or written, or holds nothing.
pub fn secret_file(path: &Path) -> Result<SecretString> {
    let text = match read(path)? {
        Some(bytes) => String::from_utf8(bytes).context("it is not text"),
        None => {
            let text = URL_SAFE_NO_PAD.encode(random()?);
            replace(path, text.as_bytes(), PRIVATE)?;
            Ok(text)
        }
    };
    let text = text.and_then(|text| match text.trim() {
        "" => bail!("it is empty"),
        text => Ok(SecretString::from(text)),
    });
    text.with_context(|| no_secret(path))
}

fn no_secret(path: &Path) -> String {
    format!(
        "{} holds no secret that can be used; remove it, and another is made",
        path.display()
    )
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        let unfinished = folder.join(format!(".{}.unfinished", name.display()));
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
        fs::rename(&unfinished, path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("could not write {}", path.display()))
}

fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("the system gave no random bytes")?;
    Ok(bytes)
}

const LOCK: &str = "lock";
const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

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
    fn a_secret_is_made_once() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(parent.path()).unwrap();
        let secret = |name| folder.secret(name).unwrap().expose_secret().to_owned();
        assert_eq!(secret("admin.token"), secret("admin.token"));
        assert_ne!(secret("admin.token"), secret("other.token"));
        assert_eq!(secret("admin.token").len(), 43);
        assert_eq!(
            folder.key("a.key").unwrap().to_base64(),
            folder.key("a.key").unwrap().to_base64()
        );
        let mode = folder
            .file("a.key")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        folder.write_private("a.key", b"*").unwrap();
        let refused = folder.key("a.key").err().unwrap().to_string();
        assert!(refused.contains("remove it"), "{refused}");
        folder.write_private("admin.token", b"\n").unwrap();
        assert!(folder.secret("admin.token").is_err());
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
