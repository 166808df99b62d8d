//! Sealed credentials on the disk.

use std::sync::Arc;

use iothub::Identity;
use tokio::sync::oneshot;

use super::{super::Engine, record::Record, written};
use crate::{
    SealedCredential, StoreError,
    log::{Kind, Rewritten},
    memory::{Location, registry::Numbered},
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
        let (engine, of) = (Arc::clone(self), identity.clone());
        let limit = self.config.sealed_credentials;
        let credentials = &self.records.credentials;
        credentials.put(identity, credential, limit, now.timestamp, |numbered| {
            let record = record_of(identity, numbered);
            let numbered = numbered.clone();
            let done = move |result: Result<Location, _>| {
                if let Ok(at) = result {
                    let stored = Some(at);
                    let numbered = Numbered { stored, ..numbered };
                    engine.records.credentials.stands(of, numbered);
                }
                // Nobody may wait: the record stands all the same.
                let _ = tell.send(result.map(drop));
            };
            Ok(log.append(Kind::Promise, record, done)?)
        })?;
        written(told).await
    }

    /// Leaves it to the log that a credential is forgotten. Nobody waits for that: the hub refuses it again.
    pub(in crate::memory) fn leave_forgotten_credential(
        self: &Arc<Self>,
        identity: &Identity,
        number: u64,
    ) -> Result<(), StoreError> {
        let Ok(log) = self.log() else {
            return Ok(());
        };
        let record = Record::CredentialForgotten(identity.clone(), number).encode();
        Ok(log.append(Kind::Note, record, |_| {})?)
    }

    /// Writes a credential again whose segment goes; from memory, so the old record need not be readable.
    pub(super) fn rewrite_credential(
        self: &Arc<Self>,
        identity: &Identity,
        from: Location,
        done: Rewritten,
    ) -> bool {
        let Ok(log) = self.log() else {
            return false;
        };
        let (engine, of) = (Arc::clone(self), identity.clone());
        let credentials = &self.records.credentials;
        credentials.leave_again(identity, from, |numbered| {
            let record = record_of(identity, numbered);
            let appended = log.append(Kind::Note, record, move |result| {
                if let Ok(to) = result {
                    engine.records.credentials.moved(&of, from, to);
                }
                done.tell(&result);
            });
            if appended.is_err() {
                tracing::debug!("a credential is not written again: the log is closed");
            }
        })
    }
}

fn record_of(identity: &Identity, numbered: &Numbered) -> Vec<u8> {
    let credential = numbered.credential.clone();
    Record::Credential(identity.clone(), numbered.number, credential).encode()
}
