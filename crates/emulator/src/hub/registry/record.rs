//! What the hub keeps for whoever connects, device or module.

use std::{collections::BTreeSet, sync::Arc};

use iothub::Timestamp;
use serde::{Deserialize, Serialize};

use super::Authentication;
use crate::hub::{CallId, ConnectionId, Now, Random, session::Session, twin::TwinRecord};

/// An identity with its twin and its session.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::hub) struct Record {
    pub(in crate::hub) generation_id: Arc<str>,
    pub(in crate::hub) etag: String,
    pub(in crate::hub) authentication: Authentication,
    pub(in crate::hub) connection_updated_at: Option<Timestamp>,
    pub(in crate::hub) last_activity_at: Option<Timestamp>,
    pub(in crate::hub) twin: TwinRecord,
    /// What outlives a connection; none before the first one, and after one with clean session 1.
    pub(in crate::hub) session: Option<Session>,
    #[serde(skip)]
    pub(in crate::hub) connection: Option<ConnectionId>,
    /// How many connections there have been.
    pub(in crate::hub) connections: u64,
    /// When the token of this identity ends that ends last, of those that were used.
    #[serde(skip)]
    pub(in crate::hub) newest_token: Option<Timestamp>,
    /// Tokens that end by then are taken for expired (a fault).
    #[serde(skip)]
    pub(in crate::hub) tokens_expired_until: Option<Timestamp>,
    /// Direct methods that wait for this identity to connect or to answer.
    #[serde(skip)]
    pub(in crate::hub) calls: BTreeSet<CallId>,
}

impl Record {
    pub(super) fn new(
        authentication: Option<Authentication>,
        random: &mut Random,
        now: Now,
    ) -> Self {
        Self {
            // Eighteen digits ("Understand the identity registry"), here the time and a random number.
            generation_id: format!(
                "{:09}{}",
                now.utc.unix_seconds() % 1_000_000_000,
                random.number()
            )
            .into(),
            etag: random.etag(),
            authentication: authentication.unwrap_or_else(|| Authentication::mint(random)),
            connection_updated_at: None,
            last_activity_at: None,
            twin: TwinRecord::new(now),
            session: None,
            connection: None,
            connections: 0,
            newest_token: None,
            tokens_expired_until: None,
            calls: BTreeSet::new(),
        }
    }

    /// Replaces the identity and keeps the rest. Keys that are left out are made afresh (live hub).
    pub(super) fn replace(&mut self, authentication: Option<Authentication>, random: &mut Random) {
        self.authentication = authentication.unwrap_or_else(|| Authentication::mint(random));
        self.etag = random.etag();
    }
}
