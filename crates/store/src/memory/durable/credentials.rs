//! Sealed credentials on the disk.

use std::sync::Arc;

use iothub::Identity;
use tokio::sync::oneshot;

use super::{super::Engine, record::Record, written};
use crate::{
    SealedCredential, StoreError,
    log::{Kind, Rewritten},
    memory::Location,
};

impl Engine {
    /// Keeps a credential of an identity; returns when that is flushed.
    pub(in crate::memory) async fn put_durable_credential(
        self: &Arc<Self>,
        identity: &Identity,
        credential: SealedCredential,
    ) -> Result<(), StoreError> {
        let now = self.now();
        self.tidy_some(now);
        let log = Arc::clone(self.log()?);
        let (tell, told) = oneshot::channel();
        let record = Record::Credential(identity.clone(), credential.clone()).encode();
        let (engine, of, kept) = (Arc::clone(self), identity.clone(), credential.clone());
        let done = move |result: Result<Location, _>| {
            let credentials = &engine.records.credentials;
            match result {
                Ok(at) => credentials.stored(&of, &kept, at),
                Err(_) => credentials.not_stored(&of, &kept),
            }
            // Nobody may wait: the record stands all the same.
            let _ = tell.send(result.map(drop));
        };
        let limit = self.config.sealed_credentials;
        let credentials = &self.records.credentials;
        credentials.put(identity, credential, limit, now.timestamp, || {
            Ok(log.append(Kind::Promise, record, done)?)
        })?;
        written(told).await
    }

    /// Writes a credential again whose segment goes; from memory, so the old record need not be readable.
    pub(super) fn rewrite_credential(
        self: &Arc<Self>,
        identity: &Identity,
        from: Location,
        done: Rewritten,
    ) -> bool {
        let now = self.now().timestamp;
        let Some(credential) = self.records.credentials.at(identity, from, now) else {
            return false;
        };
        let Ok(log) = self.log() else {
            return false;
        };
        let record = Record::Credential(identity.clone(), credential.clone()).encode();
        let (engine, identity) = (Arc::clone(self), identity.clone());
        let appended = log.append(Kind::Note, record, move |result| {
            if let Ok(to) = result {
                engine
                    .records
                    .credentials
                    .stored(&identity, &credential, to);
            }
            done.tell(&result);
        });
        if appended.is_err() {
            tracing::debug!("a credential is not written again: the log is closed");
        }
        true
    }
}
