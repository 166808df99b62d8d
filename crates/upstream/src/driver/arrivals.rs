//! Down: direct methods and cloud-to-device messages.

use std::{sync::atomic::Ordering, time::Instant};

use bytes::Bytes;
use iothub::{AckRequest, CloudMessage, MethodRequest, MethodResponse, topic::ParseTopicError};
use session::Receipt;
use store::{Arrival, ConnectionEpoch, Custody, MethodRequestId, StoreError};

use super::{Driver, Phase, in_flight::Origin, presence};
use crate::{
    connect::chain,
    node::{now, wall_now},
};

impl Driver {
    pub(super) async fn on_method(
        &mut self,
        id: session::MethodRequestId,
        request: MethodRequest,
    ) -> Result<(), StoreError> {
        let meters = &self.node.meters;
        let policy = self.record.method_policy;
        if let Some(status) = presence::answers_itself(policy, self.presence(), now()) {
            meters.methods_answered.increment(1);
            self.answer(&id, status, Bytes::new());
            return Ok(());
        }
        let name = MethodRequestId {
            connection: ConnectionEpoch(id.epoch.0),
            rid: id.rid.clone(),
        };
        let timeout = self.node.method_timeout;
        let deadline = now() + timeout;
        let arrival = Arrival::Method {
            id: name.clone(),
            request,
            deadline,
            deadline_at: wall_now().saturating_add(timeout),
        };
        let arrived = self.held.next_id();
        if self.desk.append(&[(arrived, arrival)]).await?.is_empty() {
            meters.methods_refused.increment(1);
            self.answer(&id, 503, Bytes::from_static(br#"{"code":"inbox_full"}"#));
        } else {
            meters.methods_offered.increment(1);
            self.calls.open(name, deadline);
        }
        Ok(())
    }

    pub(super) fn answer(
        &mut self,
        request: &session::MethodRequestId,
        status: i32,
        payload: Bytes,
    ) {
        let now = now();
        let id = self
            .in_flight
            .begin(Origin::OwnAnswer, None, None, true, now);
        let response = MethodResponse { status, payload };
        if let Err(error) = self.session.answer(id, request, &response, now) {
            // The caller hears of it from the hub, when its time is over.
            tracing::debug!(device = %self.identity, %error, "a direct method is not answered");
            self.in_flight.end(id);
        }
    }

    /// No delivery will ever make it readable, and over MQTT there is no other way to reject it than the PUBACK of
    /// every message. If it were given back, the hub would offer it again, and the messages behind it with it.
    pub(super) fn on_unreadable(&mut self, receipt: Option<Receipt>, error: &ParseTopicError) {
        self.node.meters.messages_unreadable.increment(1);
        let error = chain(error);
        tracing::warn!(device = %self.identity, error, "the hub delivered a message that cannot be read");
        if let Some(receipt) = receipt {
            self.acknowledge(receipt);
        }
    }

    pub(super) fn on_settlement(&mut self, receipt: Option<Receipt>) {
        match receipt {
            Some(receipt) => self.acknowledge(receipt),
            None => self.give_back(now()),
        }
    }

    /// Says, once, what a sender's feedback means in custody `gateway`.
    pub(super) fn warn_of_feedback(&self, message: &CloudMessage) {
        if self.record.custody == Custody::Gateway
            && message.ack != AckRequest::None
            && !self
                .node
                .has_warned_of_feedback
                .swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                device = %self.identity,
                "a message asks for feedback: \"Success\" says that the gateway has it, not the device; custody = \"hub\" \
                 changes that, device by device"
            );
        }
    }

    pub(super) fn acknowledge(&mut self, receipt: Receipt) {
        if let Err(error) = self.session.acknowledge(receipt, now()) {
            // Whoever has settled hears of it when the connection's messages are withdrawn.
            tracing::debug!(device = %self.identity, %error, "a message was settled too late");
        }
    }

    /// Ends the connection, so that the hub takes back what it has no PUBACK for and counts the delivery.
    pub(super) fn give_back(&mut self, now: Instant) {
        match self.phase {
            Phase::Open => {
                tracing::info!(device = %self.identity, "messages are given back to the hub");
                self.phase = Phase::GivingBack;
                if self.session_span().is_on(now) {
                    self.session.reconnect(now);
                } else {
                    self.close(now);
                }
            }
            Phase::GivingBack | Phase::Closing | Phase::Stopping | Phase::Closed => {}
        }
    }
}
