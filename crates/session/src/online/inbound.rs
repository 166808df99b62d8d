//! What the hub publishes.

use std::time::Instant;

use iothub::{
    CloudMessage, MethodRequest,
    topic::{RequestId, ToDevice},
    twin::DesiredPatch,
};

use super::{Online, answers};
use crate::{
    Event, LossReason, MethodRequestId, Receipt, Violation, lasting::Lasting, wire::Publish,
};

impl Online {
    pub(super) fn on_publish(
        &mut self,
        publish: Publish,
        lasting: &mut Lasting,
        now: Instant,
    ) -> Result<(), LossReason> {
        let Publish {
            packet_id,
            topic,
            payload,
        } = publish;
        match ToDevice::parse(&topic) {
            Ok(ToDevice::CloudMessage { device, bag }) => {
                if device != *lasting.identity.device_id() {
                    return Err(Violation::WrongDevice.into());
                }
                self.settling.on_message(&lasting.config, now);
                let receipt = self.hold(packet_id)?;
                let message = Box::new(CloudMessage::from_bag(&bag, payload));
                lasting.out.push(Event::Received { receipt, message });
            }
            Ok(ToDevice::TwinResponse {
                status,
                rid,
                version,
            }) => {
                self.pass(packet_id, lasting, now)?;
                let Lasting { twin, out, .. } = lasting;
                if twin.on_response(&rid, status, version, &payload, out) {
                    self.serve(lasting, now);
                }
            }
            Ok(ToDevice::DesiredPatch { .. }) => {
                self.pass(packet_id, lasting, now)?;
                self.on_desired(&payload, lasting);
            }
            Ok(ToDevice::MethodRequest { name, rid }) => {
                self.pass(packet_id, lasting, now)?;
                self.on_method(rid, MethodRequest { name, payload }, lasting, now);
            }
            Err(error) => {
                let receipt = match packet_id {
                    None => None,
                    Some(_) => Some(self.hold(packet_id)?),
                };
                lasting.out.push(Event::Unreadable {
                    receipt,
                    topic,
                    error,
                });
            }
        }
        Ok(())
    }

    fn hold(&mut self, packet_id: Option<u16>) -> Result<Receipt, Violation> {
        Ok(Receipt {
            epoch: self.epoch,
            number: self.receipts.hold(packet_id)?,
        })
    }

    /// Acknowledges in its turn what nobody needs a receipt for. The hub publishes it with QoS 0, but a subscription
    /// that another client left behind may have QoS 1.
    fn pass(
        &mut self,
        packet_id: Option<u16>,
        lasting: &mut Lasting,
        now: Instant,
    ) -> Result<(), Violation> {
        if let Some(packet_id) = packet_id {
            self.receipts.pass(packet_id)?;
            self.send_pubacks(lasting, now);
        }
        Ok(())
    }

    fn on_desired(&mut self, body: &[u8], lasting: &mut Lasting) {
        let Ok(change) = DesiredPatch::parse(body) else {
            self.desired_version = None;
            lasting.out.push(Event::DesiredStale);
            return;
        };
        let version = change.version;
        if self
            .desired_version
            .is_some_and(|last| version.0 > last.0 + 1)
        {
            lasting.out.push(Event::DesiredStale);
        }
        self.desired_version = self.desired_version.max(Some(version));
        lasting.out.push(Event::DesiredChanged(change));
    }

    /// Offers a direct method to the driver, or answers it here if nobody can: the subscription may have been taken
    /// back while the request was on its way, and an answer that would come after DISCONNECT cannot come at all.
    fn on_method(
        &self,
        rid: RequestId,
        request: MethodRequest,
        lasting: &mut Lasting,
        now: Instant,
    ) {
        if self.is_serving() && lasting.wanted.methods {
            let epoch = self.epoch;
            let id = MethodRequestId { epoch, rid };
            lasting.out.push(Event::MethodRequested { id, request });
        } else {
            let asleep = &lasting.config.asleep_answer;
            answers::write_unawaited(rid, asleep, &mut lasting.out, now);
        }
    }
}
