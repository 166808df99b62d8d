//! Bodies of `POST .../token`: any accepted credential buys a gateway token.

use iothub::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the token should be good for.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// How long it should live, in seconds: 24 h if it is not there, 30 d at most. It never outlives a gateway token, or
    /// a token that only the hub can judge, that it is bought with: what it got stands in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 2_592_000)]
    pub lifetime_s: Option<u32>,
    /// What it should allow; everything that the credential allows if it is empty. More than the credential allows is
    /// 403.
    #[serde(default)]
    pub scope: Vec<Scope>,
}

/// A part of the API that a token may open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Sending telemetry, and its receipts.
    Telemetry,
    /// Receiving and settling cloud-to-device messages.
    Messages,
    /// Reading the twin and patching its reported properties.
    Twin,
    /// Receiving and answering direct methods.
    Methods,
    /// Uploading files.
    Files,
}

impl Scope {
    /// The text in a request.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Messages => "messages",
            Self::Twin => "twin",
            Self::Methods => "methods",
            Self::Files => "files",
        }
    }
}

/// A gateway token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenAnswer {
    /// The token: `Authorization: Bearer {token}`. Shown this once.
    pub token: String,
    /// Names the token where it is listed or revoked; no secret.
    pub token_id: String,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// What it allows.
    pub scope: Vec<Scope>,
}

/// Never shows the token.
impl std::fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenAnswer")
            .field("token_id", &self.token_id)
            .field("expires_at", &self.expires_at)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
