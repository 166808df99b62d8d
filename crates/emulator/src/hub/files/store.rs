//! The files: block blobs, written whole or block by block ("Put Blob", "Put Block", "Put Block List" of Azure Storage).
//!
//! What is kept is bounded; when a new piece does not fit, the file that was written longest ago goes, with its blocks.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::{Bytes, BytesMut};
use iothub::Timestamp;

/// All files, by name.
pub struct FileStore {
    file_by_name: BTreeMap<String, File>,
    bytes: usize,
    /// Blocks of all files.
    blocks: usize,
    writes: u64,
    most_in_file: usize,
    most_in_all: usize,
}

/// What is known of a stored file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileInfo {
    /// `{device}/{name}`
    pub blob: String,
    /// Its size.
    pub bytes: usize,
    /// Moves with each write.
    pub etag: String,
    /// When it was written.
    pub modified_at: Timestamp,
    /// What its writer said it is.
    pub content_type: Option<String>,
}

/// A file with its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredFile {
    /// What is known of it.
    pub info: FileInfo,
    /// What it holds.
    pub content: Bytes,
}

/// Why a file is not written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The token is none of ours, of another file, or its time is over.
    #[error("the signature does not fit, or its time is over")]
    Unauthenticated,
    /// There is no such file.
    #[error("the file does not exist")]
    NotFound,
    /// There is one, and the writer wants none to be there.
    #[error("the file exists")]
    Exists,
    /// It would be larger than a file may be.
    #[error("the file is larger than files may be")]
    TooLarge,
    /// A block's name is no base64 of 1 to 64 bytes.
    #[error("a block's id is the base64 form of 1 to 64 bytes")]
    BlockId,
    /// A list names a block that is not there.
    #[error("the list names a block that was not written")]
    BlockList,
    /// There are as many blocks as there may be.
    #[error("the file has more blocks than files may have")]
    TooManyBlocks,
}

#[derive(Default)]
struct File {
    stored: Option<StoredFile>,
    /// Written and not yet part of the file.
    blocks: BTreeMap<String, Bytes>,
    block_bytes: usize,
    /// Which write was the last.
    written: u64,
}

impl FileStore {
    pub(in crate::hub) const fn new(most_in_file: usize, most_in_all: usize) -> Self {
        Self {
            file_by_name: BTreeMap::new(),
            bytes: 0,
            blocks: 0,
            writes: 0,
            most_in_file,
            most_in_all,
        }
    }

    /// Bytes of one file at most.
    #[must_use]
    pub const fn most_in_file(&self) -> usize {
        self.most_in_file
    }

    /// Writes a file whole. Blocks that were written before are dropped, as Azure Storage does.
    ///
    /// # Errors
    ///
    /// It is too large, or there is one and `is_new` says that there shall be none.
    pub fn put(
        &mut self,
        blob: &str,
        content: Bytes,
        content_type: Option<String>,
        is_new: bool,
        now: Timestamp,
    ) -> Result<FileInfo, FileError> {
        if content.len() > self.most_in_file {
            return Err(FileError::TooLarge);
        }
        if is_new && self.info(blob).is_some() {
            return Err(FileError::Exists);
        }
        self.remove(blob);
        self.make_room(blob, content.len(), 0);
        let file = self.touch(blob);
        let info = FileInfo {
            blob: blob.to_owned(),
            bytes: content.len(),
            etag: format!("\"0x{:016X}\"", file.written),
            modified_at: now,
            content_type,
        };
        let stored = StoredFile {
            info: info.clone(),
            content,
        };
        self.bytes += stored.content.len();
        self.touch(blob).stored = Some(stored);
        Ok(info)
    }

    /// Writes a block. One with the same id that is not yet part of the file is replaced.
    ///
    /// # Errors
    ///
    /// The id cannot be used, or the blocks are too many or too large together.
    pub fn put_block(&mut self, blob: &str, id: &str, block: Bytes) -> Result<(), FileError> {
        check_id(id)?;
        let file = self.file_by_name.get(blob);
        let (blocks, bytes) = file.map_or((0, 0), |file| (file.blocks.len(), file.block_bytes));
        let replaced = file.and_then(|file| file.blocks.get(id)).map(Bytes::len);
        let (size, before) = (block.len(), replaced.unwrap_or(0));
        if replaced.is_none() && blocks >= BLOCKS {
            return Err(FileError::TooManyBlocks);
        }
        if bytes - before + size > self.most_in_file {
            return Err(FileError::TooLarge);
        }
        self.make_room(blob, size, 1);
        let file = self.touch(blob);
        file.block_bytes = file.block_bytes - before + size;
        file.blocks.insert(id.to_owned(), block);
        self.bytes = self.bytes - before + size;
        self.blocks += usize::from(replaced.is_none());
        Ok(())
    }

    /// Makes the file of the blocks that the list names, in its order. Only blocks that are not yet part of a file can be
    /// named: the committed ones of an older content are not kept apart here.
    ///
    /// # Errors
    ///
    /// A block is not there, the file would be too large, or there is one and `is_new` says that there shall be none.
    pub fn put_block_list(
        &mut self,
        blob: &str,
        ids: &[String],
        content_type: Option<String>,
        is_new: bool,
        now: Timestamp,
    ) -> Result<FileInfo, FileError> {
        if ids.len() > BLOCKS {
            return Err(FileError::TooManyBlocks);
        }
        let none = BTreeMap::new();
        let file = self.file_by_name.get(blob);
        let blocks = file.map_or(&none, |file| &file.blocks);
        let listed: Option<Vec<_>> = ids.iter().map(|id| blocks.get(id)).collect();
        let listed = listed.ok_or(FileError::BlockList)?;
        let bytes = listed.iter().map(|block| block.len()).sum();
        // A block may be named more than once.
        if bytes > self.most_in_file {
            return Err(FileError::TooLarge);
        }
        let mut content = BytesMut::with_capacity(bytes);
        for block in listed {
            content.extend_from_slice(block);
        }
        self.put(blob, content.freeze(), content_type, is_new, now)
    }

    /// Forgets a file; says whether there was one.
    pub fn remove(&mut self, blob: &str) -> bool {
        let Some(file) = self.file_by_name.remove(blob) else {
            return false;
        };
        self.bytes -= file.bytes();
        self.blocks -= file.blocks.len();
        file.stored.is_some()
    }

    /// A file with its content.
    #[must_use]
    pub fn read(&self, blob: &str) -> Option<StoredFile> {
        self.file_by_name.get(blob)?.stored.clone()
    }

    /// What is known of a file.
    #[must_use]
    pub fn info(&self, blob: &str) -> Option<FileInfo> {
        let stored = self.file_by_name.get(blob)?.stored.as_ref()?;
        Some(stored.info.clone())
    }

    /// All files, by name.
    #[must_use]
    pub fn list(&self) -> Vec<FileInfo> {
        let stored = self
            .file_by_name
            .values()
            .filter_map(|file| file.stored.as_ref());
        stored.map(|stored| stored.info.clone()).collect()
    }

    fn touch(&mut self, blob: &str) -> &mut File {
        self.writes += 1;
        let file = self.file_by_name.entry(blob.to_owned()).or_default();
        file.written = self.writes;
        file
    }

    /// Drops files until `bytes` and `blocks` fit, the one that is written excepted.
    fn make_room(&mut self, blob: &str, bytes: usize, blocks: usize) {
        let files = usize::from(!self.file_by_name.contains_key(blob));
        while self.bytes + bytes > self.most_in_all
            || self.blocks + blocks > BLOCKS_IN_ALL
            || self.file_by_name.len() + files > FILES
        {
            let others = self.file_by_name.iter().filter(|(name, _)| *name != blob);
            let oldest = others.min_by_key(|(_, file)| file.written);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.remove(&oldest);
        }
    }
}

impl File {
    fn bytes(&self) -> usize {
        let stored = self
            .stored
            .as_ref()
            .map_or(0, |stored| stored.content.len());
        stored + self.block_bytes
    }
}

/// "Put Block": 64 bytes before the encoding.
fn check_id(id: &str) -> Result<(), FileError> {
    let bytes = BASE64.decode(id).map_err(|_| FileError::BlockId)?;
    if (1..=64).contains(&bytes.len()) {
        Ok(())
    } else {
        Err(FileError::BlockId)
    }
}

/// Blocks of one file ("Put Block List").
const BLOCKS: usize = 50_000;
/// Blocks of all files: an empty one takes memory too.
const BLOCKS_IN_ALL: usize = 2 * BLOCKS;
/// Files that are kept.
const FILES: usize = 10_000;
