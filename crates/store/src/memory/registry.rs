//! Devices and tokens. Devices come from the configuration at every start; tokens are kept in a file, if there is one.

mod file;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use iothub::Identity;
use parking_lot::{Mutex, RwLock};

pub use self::file::OpenError;
use self::file::{Replaced, TokenFile};
use super::{
    Memory,
    partitioned::{Partitioned, page_of},
};
use crate::{DeviceRecord, Page, Partition, Registry, StoreError, TokenHash, TokenId, TokenRecord};

/// Devices and tokens.
pub(super) struct Records {
    devices: Partitioned<DeviceRecord>,
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
            tokens: RwLock::new(tokens),
            file,
        })
    }

    /// Changes the tokens: in the file first, so that what is answered survives a restart. Blocks if there is a file.
    fn change<T>(&self, change: impl FnOnce(&mut Tokens) -> T) -> Result<T, StoreError> {
        let Some(file) = &self.file else {
            return Ok(change(&mut self.tokens.write()));
        };
        let file = file.lock();
        let mut tokens = self.tokens.read().clone();
        let answer = change(&mut tokens);
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
                Err(StoreError::UnknownOutcome)
            }
        }
    }
}

impl Tokens {
    /// Adds a token; one of the same identity and id makes way.
    fn put(&mut self, record: TokenRecord) {
        if self.by_hash.get(&record.hash) == Some(&record) {
            return;
        }
        self.revoke(&record.identity, &record.id);
        let hashes = self.hashes_by_identity.entry(record.identity.clone());
        hashes.or_default().push(record.hash.clone());
        self.by_hash.insert(record.hash.clone(), record);
    }

    fn revoke(&mut self, identity: &Identity, id: &TokenId) -> bool {
        let Some(hashes) = self.hashes_by_identity.get_mut(identity) else {
            return false;
        };
        let by_hash = &mut self.by_hash;
        let count = hashes.len();
        hashes.retain(|hash| {
            let is_revoked = by_hash.get(hash).is_none_or(|record| record.id == *id);
            if is_revoked {
                by_hash.remove(hash);
            }
            !is_revoked
        });
        let is_revoked = hashes.len() < count;
        if hashes.is_empty() {
            self.hashes_by_identity.remove(identity);
        }
        is_revoked
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
    /// Changes the tokens, off the async threads if that touches the disk. Goes on if whoever asked goes away.
    async fn change_tokens<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Tokens) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let records = Arc::clone(&self.0.records);
        if records.file.is_none() {
            return records.change(change);
        }
        tokio::task::spawn_blocking(move || records.change(change))
            .await
            .unwrap_or(Err(StoreError::UnknownOutcome))
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

    async fn put_token(&self, record: TokenRecord) -> Result<(), StoreError> {
        self.change_tokens(|tokens| tokens.put(record)).await
    }

    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        Ok(self.0.records.tokens.read().by_hash.get(hash).cloned())
    }

    async fn revoke_token(&self, identity: &Identity, id: &TokenId) -> Result<bool, StoreError> {
        let (identity, id) = (identity.clone(), id.clone());
        self.change_tokens(move |tokens| tokens.revoke(&identity, &id))
            .await
    }

    async fn tokens(&self, identity: &Identity) -> Result<Vec<TokenRecord>, StoreError> {
        Ok(self.0.records.tokens.read().of(identity).cloned().collect())
    }
}
