//! File upload ("Upload files with IoT Hub") and the storage account that goes with it.
//!
//! ```text
//! begin_upload ──▶ open ──▶ end_upload: the service is told, if it went well
//!                    └── the token's time is over: 400016
//! ```
//!
//! Between the two the device writes into the storage with the token it got, and the hub takes no part in that. Here the
//! storage is in the same place: `store` keeps files, `token` is who may write them.

mod store;
mod token;

use std::collections::BTreeMap;

use iothub::{DeviceId, ErrorCode, Timestamp, limits};

pub(super) use self::token::StorageKey;
pub use self::{
    store::{FileError, FileInfo, FileStore, StoredFile},
    token::BlobToken,
};
use super::{Caller, Error, Hub, Now};

/// What a device needs for its upload.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Names the upload.
    pub correlation_id: String,
    /// Where the file goes: `{device}/{name}`.
    pub blob: String,
    /// The query that lets it be written.
    pub token: BlobToken,
}

/// What the service is told of an upload that went well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileNotification {
    /// Running number, from 1.
    pub sequence: u64,
    /// Whose.
    pub device_id: DeviceId,
    /// Where the file can be had.
    pub blob_uri: String,
    /// `{device}/{name}`
    pub blob: String,
    /// When the file was written last.
    pub updated_at: Timestamp,
    /// Its size.
    pub bytes: usize,
    /// When the device said that it was done.
    pub enqueued_at: Timestamp,
}

/// The uploads that a device has begun, by correlation id.
#[derive(Default)]
pub(super) struct Uploads(BTreeMap<String, Open>);

struct Open {
    blob: String,
    blob_uri: String,
    ends_at: Timestamp,
}

/// The notifications that are kept for readers.
#[derive(Default)]
pub(super) struct FileLog {
    records: std::collections::VecDeque<FileNotification>,
    written: u64,
}

impl Hub {
    /// Begins an upload: `POST /devices/{id}/files`. `container_uri` is where the storage is reached.
    ///
    /// # Errors
    ///
    /// The name cannot be used, the device has ten uploads open, or the caller is a module or has been deleted meanwhile.
    pub fn begin_upload(
        &mut self,
        caller: &Caller,
        name: &str,
        container_uri: &str,
        now: Now,
    ) -> Result<Upload, Error> {
        let device_id = caller.device("A module uploads no files.")?;
        let blob = format!("{device_id}/{name}");
        check(name, &blob)?;
        let ends_at = now.utc.saturating_add(self.config.upload_time);
        let correlation_id = self.random.guid();
        let token = self.storage_key.grant(&blob, ends_at);
        let device = self.registry.device_mut(device_id)?;
        device.record.last_activity_at = Some(now.utc);
        device.uploads.forget(now.utc);
        let is_open = |upload: &&Open| upload.ends_at > now.utc;
        if device.uploads.0.values().filter(is_open).count() >= limits::FILE_UPLOADS {
            return Err(Error::new(
                ErrorCode::DeviceMaximumActiveFileUploadLimitExceeded,
                format!("The device has {} uploads open.", limits::FILE_UPLOADS),
            ));
        }
        let open = Open {
            blob: blob.clone(),
            blob_uri: format!("{container_uri}/{blob}"),
            ends_at,
        };
        device.uploads.0.insert(correlation_id.clone(), open);
        Ok(Upload {
            correlation_id,
            blob,
            token,
        })
    }

    /// Ends an upload: `POST /devices/{id}/files/notifications`. If it went well, the service is told. What a hub does if
    /// there is no file although it went well is not documented; here the service is told of an empty one.
    ///
    /// # Errors
    ///
    /// The device has no such upload, or its time is over; or the caller is a module or has been deleted meanwhile.
    pub fn end_upload(
        &mut self,
        caller: &Caller,
        correlation_id: &str,
        is_success: bool,
        now: Now,
    ) -> Result<(), Error> {
        let device_id = caller.device("A module uploads no files.")?;
        let device = self.registry.device_mut(device_id)?;
        device.record.last_activity_at = Some(now.utc);
        let upload = device.uploads.0.remove(correlation_id).ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidFileUploadCorrelationId,
                "The device has no upload with this correlation id.",
            )
        })?;
        if upload.ends_at <= now.utc {
            return Err(Error::new(
                ErrorCode::ExpiredFileUploadCorrelationId,
                "The time for this upload is over.",
            ));
        }
        if !is_success {
            return Ok(());
        }
        let file = self.files.info(&upload.blob);
        self.file_log.push(FileNotification {
            sequence: 0,
            device_id: device_id.clone(),
            blob_uri: upload.blob_uri,
            blob: upload.blob,
            updated_at: file.as_ref().map_or(now.utc, |file| file.modified_at),
            bytes: file.map_or(0, |file| file.bytes),
            enqueued_at: now.utc,
        });
        Ok(())
    }

    /// The file notifications that are kept, from the number `from` on.
    #[must_use]
    pub fn file_notifications(&self, from: u64) -> Vec<FileNotification> {
        let records = self.file_log.records.iter();
        records.filter(|r| r.sequence >= from).cloned().collect()
    }

    /// Whether this token lets a file be written and read.
    ///
    /// # Errors
    ///
    /// It is none of ours, of another file, or its time is over.
    pub fn authorize_blob(&self, blob: &str, token: &BlobToken, now: Now) -> Result<(), FileError> {
        self.storage_key.check(blob, token, now.utc)
    }

    /// The stored files.
    #[must_use]
    pub const fn files(&self) -> &FileStore {
        &self.files
    }

    /// The stored files, to be written.
    pub const fn files_mut(&mut self) -> &mut FileStore {
        &mut self.files
    }
}

impl Uploads {
    /// Those whose time is over are known for another day, so that a device that is late is told so, and a hundred at most.
    fn forget(&mut self, now: Timestamp) {
        self.0
            .retain(|_, upload| upload.ends_at.saturating_add(REMEMBERED) > now);
        while self.0.len() >= limits::FILE_UPLOADS + OVER {
            let ended = self.0.iter().filter(|(_, upload)| upload.ends_at <= now);
            let oldest = ended.min_by_key(|(_, upload)| upload.ends_at);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.0.remove(&oldest);
        }
    }
}

impl FileLog {
    fn push(&mut self, notification: FileNotification) {
        self.written += 1;
        self.records.push_back(FileNotification {
            sequence: self.written,
            ..notification
        });
        while self.records.len() > NOTIFICATIONS {
            self.records.pop_front();
        }
    }
}

/// What Azure Storage takes ("Naming and referencing containers, blobs, and metadata").
fn check(name: &str, blob: &str) -> Result<(), Error> {
    let is_bad = name.is_empty()
        || blob.chars().count() > NAME
        || blob.split('/').count() > PARTS
        || blob.ends_with(['.', '/'])
        || blob.chars().any(char::is_control)
        || blob.split('/').any(|part| matches!(part, "." | ".."));
    if is_bad {
        return Err(Error::new(
            ErrorCode::InvalidStorageEndpointOrBlob,
            "Storage endpoint or blob name is invalid",
        ));
    }
    Ok(())
}

/// Characters of a blob's name.
const NAME: usize = 1024;
/// Parts of a blob's name.
const PARTS: usize = 254;
const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// Uploads whose time is over that are known of one device.
const OVER: usize = 100;
const NOTIFICATIONS: usize = 1000;
