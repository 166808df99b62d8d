//! The body of `GET .../receipts/{receipt}`: what became of something that was stored.

use iothub::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Code;

/// How far something stored has come. Kept for 8 days.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// Its own id.
    pub receipt: String,
    /// How far it has come.
    pub state: State,
    /// When it was stored.
    #[schema(value_type = String, format = DateTime)]
    pub stored_at: Timestamp,
    /// Of what waits for a device whose own token opens its session: when the one ends that the gateway keeps. It waits for the
    /// device to show a newer one after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deliverable_until: Option<Timestamp>,
    /// When the hub acknowledged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub acknowledged_at: Option<Timestamp>,
    /// Of a refused one: since when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub refused_at: Option<Timestamp>,
    /// Of a refused one: what went wrong, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Of a refused one: what went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The states of something stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// On the gateway's disk.
    Stored,
    /// On its way; the hub has not acknowledged it yet.
    Sent,
    /// The hub has acknowledged it. It stays so.
    Acknowledged,
    /// It waits, because the hub refuses the credential of the device, or the gateway has none.
    WaitingForCredential,
    /// It will not reach the hub; `code` says why. It stays so.
    Refused,
}
