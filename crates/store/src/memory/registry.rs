//! Devices, tokens and credentials. Devices come from the configuration at every start; tokens are kept in a file, if there is
//! one, credentials and keys in the log.

mod credentials;
mod file;
mod keys;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use iothub::{Identity, Timestamp};
use parking_lot::{Mutex, RwLock};

pub(super) use self::credentials::Numbered;
pub use self::file::OpenError;
use self::{
    credentials::Credentials,
    file::{Replaced, TokenFile},
};
use super::{
    Memory,
    book::Progress,
    partitioned::{Partitioned, page_of},
};
use crate::{
    Answer, DeviceRecord, Fingerprint, KeyError, KeyId, KeyState, Page, Partition, PutTokenError,
    Receipt, Registry, SealedCredential, StoreError, SubmissionId, TokenHash, TokenId, TokenRecord,
};

/// Devices and tokens.
pub(super) struct Records {
    devices: Partitioned<DeviceRecord>,
    pub(super) credentials: Credentials,
    tokens: RwLock<Tokens>,
    /// Whoever changes the tokens holds it from the copy to the swap.
    file: Option<Mutex<TokenFile>>,
}

/// All tokens.
#[derive(Clone, Default)]
struct Tokens {
    by_hash: BTreeMap<TokenHash, TokenRecord>,
    /// In the order in which they came.
    hashes_by_identity: BTreeMap<Identity, Vec<TokenHash>>,
    /// Those that end, in the order in which they do.
    ends: BTreeSet<(Timestamp, TokenHash)>,
}

impl Records {
    /// Reads the file, or makes it.
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self, OpenError> {
        let mut tokens = Tokens::default();
        let file = match path {
            None => None,
            Some(path) => {
                let (file, records) = TokenFile::open(path)?;
                records.into_iter().for_each(|record| tokens.put(record));
                Some(Mutex::new(file))
            }
        };
        Ok(Self {
            devices: Partitioned::new(),
            credentials: Credentials::default(),
            tokens: RwLock::new(tokens),
            file,
        })
    }

    /// Changes the tokens: in the file first, so that what is answered survives a restart. Blocks if there is a file. A
    /// change that is refused writes nothing.
    fn change<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&mut Tokens) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(file) = &self.file else {
            return change(&mut self.tokens.write());
        };
        let file = file.lock();
        let mut tokens = self.tokens.read().clone();
        let answer = change(&mut tokens)?;
        let replaced = file.replace(tokens.in_order()).map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                path = %file.path().display(),
                "the registry file cannot be written"
            );
            StoreError::Unavailable
        })?;
        *self.tokens.write() = tokens;
        match replaced {
            Replaced::Durably => Ok(answer),
            Replaced::Perhaps(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    path = %file.path().display(),
                    "the registry file is replaced, but its folder cannot be flushed"
                );
                Err(StoreError::UnknownOutcome.into())
            }
        }
    }
}

impl Tokens {
    /// Adds a token, if its identity then has `limit` at most.
    fn put_within(&mut self, limit: usize, record: TokenRecord) -> Result<(), PutTokenError> {
        let others = self.of(&record.identity);
        if others.filter(|other| other.id != record.id).count() >= limit {
            return Err(PutTokenError::TooMany { limit });
        }
        self.put(record);
        Ok(())
    }

    /// Adds a token; one of the same identity and id, or of the same hash, makes way.
    fn put(&mut self, record: TokenRecord) {
        if self.by_hash.get(&record.hash) == Some(&record) {
            return;
        }
        self.revoke(&record.identity, &record.id);
        self.remove(&record.hash);
        let hashes = self.hashes_by_identity.entry(record.identity.clone());
        hashes.or_default().push(record.hash.clone());
        if let Some(end) = record.expires_at {
            self.ends.insert((end, record.hash.clone()));
        }
        self.by_hash.insert(record.hash.clone(), record);
    }

    fn revoke(&mut self, identity: &Identity, id: &TokenId) -> bool {
        let revoked = self.of(identity).find(|record| record.id == *id);
        let revoked = revoked.map(|record| record.hash.clone());
        revoked.is_some_and(|hash| self.remove(&hash))
    }

    /// Forgets the tokens that have ended.
    fn forget_ended(&mut self, now: Timestamp) {
        while let Some((end, hash)) = self.ends.first()
            && *end <= now
        {
            let hash = hash.clone();
            self.remove(&hash);
        }
    }

    fn remove(&mut self, hash: &TokenHash) -> bool {
        let Some(record) = self.by_hash.remove(hash) else {
            return false;
        };
        if let Some(end) = record.expires_at {
            self.ends.remove(&(end, record.hash));
        }
        if let Some(hashes) = self.hashes_by_identity.get_mut(&record.identity) {
            hashes.retain(|other| other != hash);
            if hashes.is_empty() {
                self.hashes_by_identity.remove(&record.identity);
            }
        }
        true
    }

    fn of(&self, identity: &Identity) -> impl Iterator<Item = &TokenRecord> {
        let hashes = self.hashes_by_identity.get(identity).into_iter().flatten();
        hashes.filter_map(|hash| self.by_hash.get(hash))
    }

    /// Every token: by identity, the newest last.
    fn in_order(&self) -> impl Iterator<Item = &TokenRecord> {
        let hashes = self.hashes_by_identity.values().flatten();
        hashes.filter_map(|hash| self.by_hash.get(hash))
    }
}

impl Memory {
    /// Changes the tokens that have not ended, off the async threads if that touches the disk. Goes on if whoever asked
    /// goes away.
    async fn change_tokens<T, E>(
        &self,
        change: impl FnOnce(&mut Tokens) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let records = Arc::clone(&self.0.records);
        let now = self.0.clock.timestamp();
        let change = move |tokens: &mut Tokens| {
            tokens.forget_ended(now);
            change(tokens)
        };
        if records.file.is_none() {
            return records.change(change);
        }
        tokio::task::spawn_blocking(move || records.change(change))
            .await
            .unwrap_or_else(|_| Err(StoreError::UnknownOutcome.into()))
    }
}

impl Memory {
    /// Remembers how far the request of an open key has come.
    async fn advance(
        &self,
        identity: &Identity,
        id: KeyId,
        progress: Progress,
    ) -> Result<(), StoreError> {
        if self.0.log().is_ok() {
            return self.0.advance_durable_key(identity, id, progress).await;
        }
        self.0.advance_key(identity, id, progress);
        Ok(())
    }
}

#[async_trait]
impl Registry for Memory {
    async fn device(&self, identity: &Identity) -> Result<Option<DeviceRecord>, StoreError> {
        Ok(self.0.records.devices.get(identity))
    }

    async fn put_device(&self, record: DeviceRecord) -> Result<(), StoreError> {
        let devices = &self.0.records.devices;
        devices.insert(record.identity.clone(), record);
        Ok(())
    }

    async fn devices(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<DeviceRecord>, StoreError> {
        let records = self.0.records.devices.in_partition(partition).into_iter();
        let records = records.map(|record| (record.identity.to_string(), record));
        Ok(page_of(records.collect(), after))
    }

    async fn put_token(&self, record: TokenRecord) -> Result<(), PutTokenError> {
        let limit = self.0.config.tokens;
        self.change_tokens(move |tokens| tokens.put_within(limit, record))
            .await
    }

    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        Ok(self.0.records.tokens.read().by_hash.get(hash).cloned())
    }

    async fn revoke_token(&self, identity: &Identity, id: &TokenId) -> Result<bool, StoreError> {
        let (identity, id) = (identity.clone(), id.clone());
        self.change_tokens(move |tokens| Ok(tokens.revoke(&identity, &id)))
            .await
    }

    async fn tokens(&self, identity: &Identity) -> Result<Vec<TokenRecord>, StoreError> {
        Ok(self.0.records.tokens.read().of(identity).cloned().collect())
    }

    async fn receipt(
        &self,
        identity: &Identity,
        id: SubmissionId,
    ) -> Result<Option<Receipt>, StoreError> {
        Ok(self.0.receipt(identity, id))
    }

    async fn begin_key(
        &self,
        identity: &Identity,
        id: KeyId,
        fingerprint: Fingerprint,
    ) -> Result<KeyState, KeyError> {
        if self.0.log().is_ok() {
            return self.0.begin_durable_key(identity, id, fingerprint).await;
        }
        self.0.begin_key(identity, id, fingerprint)
    }

    async fn note_key(
        &self,
        identity: &Identity,
        id: KeyId,
        note: Answer,
    ) -> Result<(), StoreError> {
        self.advance(identity, id, Progress::Noted(note)).await
    }

    async fn answer_key(
        &self,
        identity: &Identity,
        id: KeyId,
        answer: Answer,
    ) -> Result<(), StoreError> {
        self.advance(identity, id, Progress::Answered(answer)).await
    }

    async fn forget_key(&self, identity: &Identity, id: KeyId) -> Result<(), StoreError> {
        if self.0.log().is_ok() {
            return self.0.forget_durable_key(identity, id);
        }
        self.0.forget_key(identity, id);
        Ok(())
    }

    async fn put_credential(
        &self,
        identity: &Identity,
        credential: SealedCredential,
    ) -> Result<(), StoreError> {
        self.keep_credential(identity, credential).await
    }

    async fn forget_credential(
        &self,
        identity: &Identity,
        credential: &SealedCredential,
    ) -> Result<(), StoreError> {
        self.forget_this_credential(identity, credential)
    }

    async fn credential(
        &self,
        identity: &Identity,
    ) -> Result<Option<SealedCredential>, StoreError> {
        let now = self.0.clock.timestamp();
        Ok(self.0.records.credentials.get(identity, now))
    }
}
