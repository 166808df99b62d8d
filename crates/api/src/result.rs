//! What a success promises, alone and in a list.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Code;

/// How far a write has come when its answer is sent: the header `Tombolo-Delivery`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// IoT Hub has acknowledged it.
    Hub,
    /// It is on the gateway's disk, and will reach the hub at least once. The status is 202.
    Stored,
    /// The gateway has done it; the hub hears of it later.
    Gateway,
}

/// How one item of a list went: what an answer of its own would have said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ItemResult {
    /// The HTTP status that the item alone would have had.
    #[schema(minimum = 200, maximum = 599)]
    pub status: u16,
    /// Of a success: how far the item has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Of an item that was stored: where its fate can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Of a failure: what went wrong, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Of a failure: what went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Of a failure: whether the same item may succeed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// Of a failure that is retryable: seconds to wait before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u32>,
}

impl Delivery {
    /// The value of the header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Stored => "stored",
            Self::Gateway => "gateway",
        }
    }

    /// The status of a success without a body.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Hub | Self::Gateway => 204,
            Self::Stored => 202,
        }
    }
}

impl ItemResult {
    /// An item that has come this far.
    #[must_use]
    pub const fn delivered(delivery: Delivery) -> Self {
        Self {
            status: delivery.status(),
            delivery: Some(delivery),
            receipt: None,
            code: None,
            detail: None,
            retryable: None,
            retry_after_s: None,
        }
    }

    /// An item that is stored, with its receipt.
    #[must_use]
    pub fn stored(receipt: impl Into<String>) -> Self {
        Self {
            receipt: Some(receipt.into()),
            ..Self::delivered(Delivery::Stored)
        }
    }

    /// An item that failed.
    #[must_use]
    pub fn failed(code: Code, detail: impl Into<String>, retry_after: Option<Duration>) -> Self {
        let retry_after_s =
            retry_after.map(|after| u32::try_from(after.as_secs()).unwrap_or(u32::MAX));
        Self {
            status: code.status(),
            delivery: None,
            receipt: None,
            code: Some(code),
            detail: Some(detail.into()),
            retryable: Some(code.is_retryable()),
            retry_after_s: retry_after_s.or_else(|| code.retry_after_s()),
        }
    }

    /// Says that the same item will fail again, where its code alone would let one hope.
    #[must_use]
    pub const fn without_retry(mut self) -> Self {
        self.retryable = Some(false);
        self.retry_after_s = None;
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_item_says_no_more_than_it_has_to() {
        let json = |result: ItemResult| serde_json::to_value(result).unwrap();
        assert_eq!(
            json(ItemResult::delivered(Delivery::Hub)),
            json!({"status": 204, "delivery": "hub"})
        );
        assert_eq!(
            json(ItemResult::stored("rc-1")),
            json!({"status": 202, "delivery": "stored", "receipt": "rc-1"})
        );
        assert_eq!(
            json(ItemResult::failed(Code::LockLost, "gone", None)),
            json!({"status": 412, "code": "lock_lost", "detail": "gone", "retryable": false})
        );
        assert_eq!(
            json(ItemResult::failed(Code::HubTimeout, "late", None).without_retry()),
            json!({"status": 504, "code": "hub_timeout", "detail": "late", "retryable": false})
        );
    }
}
