//! What a gateway has on its disk.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{Advice, fadvise, fstatfs};

/// The files of a folder.
pub(crate) struct Kept(Vec<PathBuf>);

impl Kept {
    /// What is in this folder, which has to be on a disk.
    pub(super) fn of(folder: &Path) -> anyhow::Result<Self> {
        let opened =
            File::open(folder).with_context(|| format!("could not open {}", folder.display()))?;
        // Linux: magic.h, and the same on every processor.
        if fstatfs(&opened)?.f_type == TMPFS_MAGIC {
            bail!(
                "{} is in memory, where a flush costs nothing: set TMPDIR to a folder on a disk",
                folder.display()
            );
        }
        let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
        Ok(Self(files.collect::<anyhow::Result<_>>()?))
    }

    /// Bytes of the disk that they take, whether or not anything is in them.
    pub(crate) fn bytes(&self) -> anyhow::Result<u64> {
        let sizes = self
            .0
            .iter()
            .map(|path| Ok(fs::metadata(path)?.blocks() * 512));
        sizes.sum()
    }

    /// Lets the system forget what it remembers of them, so that they are read from the disk.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        for path in &self.0 {
            let file = File::open(path)?;
            // What was not written yet is not forgotten.
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }
}

const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
