//! Receipts: what became of something that was stored.

use api::{Code, receipt};
use store::{Receipt, ReceiptState};

use super::{
    Gateway,
    answer::{self, Answer},
    extract::DeviceRequest,
    problem::Refusal,
};
use crate::devices;

/// `GET .../receipts/{receipt}`.
pub(super) async fn read(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let receipt = match devices::id_of(&request.item) {
        Some(id) => gateway.registry.receipt(request.identity(), id).await?,
        None => None,
    };
    let receipt = receipt.ok_or_else(|| {
        Refusal::new(
            Code::NotFound,
            "the device has no such receipt, or no longer",
        )
    })?;
    let is_open = match receipt.state {
        ReceiptState::Stored | ReceiptState::WaitingForCredential | ReceiptState::Sent => true,
        ReceiptState::Acknowledged { .. } | ReceiptState::Refused { .. } => false,
    };
    let mut shown = shown(receipt);
    if is_open && !request.grant.is_of_the_gateway() {
        shown.deliverable_until = gateway.devices.token_kept_until(request.identity()).await;
    }
    Ok(answer::json(&shown))
}

fn shown(receipt: Receipt) -> receipt::Receipt {
    let mut shown = receipt::Receipt {
        receipt: devices::text_of(receipt.id),
        state: receipt::State::Stored,
        stored_at: receipt.accepted_at,
        deliverable_until: None,
        acknowledged_at: None,
        refused_at: None,
        code: None,
        detail: None,
    };
    match receipt.state {
        ReceiptState::Stored => {}
        ReceiptState::WaitingForCredential => shown.state = receipt::State::WaitingForCredential,
        ReceiptState::Sent => shown.state = receipt::State::Sent,
        ReceiptState::Acknowledged { at } => {
            shown.state = receipt::State::Acknowledged;
            shown.acknowledged_at = Some(at);
        }
        ReceiptState::Refused { failure, at } => {
            let refusal = Refusal::from(failure);
            shown.state = receipt::State::Refused;
            shown.refused_at = Some(at);
            shown.code = Some(refusal.code());
            shown.detail = Some(refusal.detail().to_owned());
        }
    }
    shown
}
