//! Bodies of the admin API.

use api::{
    admin::{Address, Stock},
    token::Scope,
};
use iothub::Timestamp;
use serde::{Deserialize, Serialize};
use store::{
    ConnectionEpoch, Custody, MethodPolicy, SessionState, Status, TokenId, TokenOrigin, TokenRecord,
};

use crate::http::tokens;

/// Whose token is to be made, and for how long.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateToken {
    pub(super) hub: Option<String>,
    pub(super) device: String,
    pub(super) module: Option<String>,
    /// Until revoked, if it is not there.
    pub(super) lifetime_s: Option<u64>,
    /// Everything, if it is empty.
    #[serde(default)]
    pub(super) scope: Vec<Scope>,
}

/// A token that was made. The token itself is shown this once.
#[derive(Serialize)]
pub(super) struct CreatedToken<'a> {
    pub(super) token: &'a str,
    #[serde(flatten)]
    pub(super) shown: ShownToken,
}

#[derive(Serialize)]
pub(super) struct ShownToken {
    pub(super) token_id: TokenId,
    #[serde(flatten)]
    pub(super) identity: Address,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) scope: Vec<Scope>,
    pub(super) origin: &'static str,
}

#[derive(Serialize)]
pub(super) struct ShownTokens {
    pub(super) tokens: Vec<ShownToken>,
}

#[derive(Serialize)]
pub(super) struct ShownDevice {
    #[serde(flatten)]
    pub(super) identity: Address,
    pub(super) custody: Custody,
    pub(super) method_policy: MethodPolicy,
    pub(super) pinned: bool,
    pub(super) session: ShownSession,
    pub(super) outbox: Stock,
    pub(super) inbox: ShownInbox,
}

#[derive(Serialize)]
pub(super) struct ShownSession {
    pub(super) state: &'static str,
    /// In hexadecimal, as in the request ids of direct methods.
    pub(super) connection: Option<String>,
    pub(super) since: Option<Timestamp>,
    pub(super) last_error: Option<String>,
}

#[derive(Serialize)]
pub(super) struct ShownInbox {
    #[serde(flatten)]
    pub(super) stock: Stock,
    pub(super) methods: usize,
    pub(super) desired_version: Option<u64>,
}

impl From<TokenRecord> for ShownToken {
    fn from(record: TokenRecord) -> Self {
        Self {
            token_id: record.id,
            identity: Address::from(&record.identity),
            created_at: record.created_at,
            expires_at: record.expires_at,
            scope: tokens::shown(record.scopes),
            origin: match record.origin {
                TokenOrigin::Operator => "operator",
                TokenOrigin::Key => "key",
                TokenOrigin::Hub => "hub",
                TokenOrigin::Token(_) => "token",
            },
        }
    }
}

impl From<Status> for ShownSession {
    fn from(status: Status) -> Self {
        Self {
            state: match status.state {
                SessionState::Closed => "closed",
                SessionState::Connecting => "connecting",
                SessionState::Connected => "connected",
                SessionState::Settled => "settled",
                SessionState::Refused => "refused",
                SessionState::Unreachable => "unreachable",
            },
            connection: status
                .connection
                .map(|ConnectionEpoch(epoch)| format!("{epoch:x}")),
            since: status.since,
            last_error: status.last_error,
        }
    }
}
