//! A connection that the hub has accepted.
//!
//! It serves until it is left or lost. Everything here returns `Err` when the connection is over, be it by a fault or
//! by DISCONNECT; the session then takes the connection apart with [`Online::end`].

mod answers;
mod inbound;
mod leaving;
mod offering;
mod packet_ids;
mod receipts;
mod settling;
mod subscriptions;
mod timing;

use std::time::Instant;

use iothub::{MethodResponse, topic::RequestId, twin::TwinVersion};

pub use self::subscriptions::Subscriptions;
use self::{
    answers::Answers,
    leaving::{Phase, Renewal},
    offering::Offering,
    receipts::Receipts,
    settling::Settling,
    subscriptions::{Subscribed, Topic},
    timing::Pings,
};
pub(crate) use self::{
    leaving::{Leave, Patience},
    packet_ids::PacketIds,
};
use crate::{
    ConnectionEpoch, Event, LossReason, Receipt, StaleReceipt, Violation, WorkId,
    lasting::Lasting,
    state::Next,
    wire::{self, Packet, Reader},
};

/// An accepted connection: everything that ends with it.
pub(crate) struct Online {
    epoch: ConnectionEpoch,
    since: Instant,
    reader: Reader,
    last_read: Instant,
    ids: PacketIds,
    pings: Option<Pings>,
    subscribed: Subscribed,
    answers: Answers,
    receipts: Receipts,
    settling: Settling,
    offering: Offering,
    desired_version: Option<TwinVersion>,
    renewal: Renewal,
    phase: Phase,
}

impl Online {
    /// Begins to serve. What is subscribed goes first, telemetry follows without waiting for the answer: a device
    /// that has just woken its session up waits for nothing but its own PUBACK.
    pub(crate) fn start(
        epoch: ConnectionEpoch,
        reader: Reader,
        session_present: bool,
        renew_at: Option<Instant>,
        lasting: &mut Lasting,
        now: Instant,
    ) -> Self {
        let earliest_renewal = now + lasting.config.stable_after;
        let mut online = Self {
            epoch,
            since: now,
            reader,
            last_read: now,
            ids: PacketIds::new(),
            pings: None,
            subscribed: Subscribed::new(),
            answers: Answers::new(),
            receipts: Receipts::new(),
            settling: Settling::Unsubscribed,
            offering: Offering::Unsubscribed,
            desired_version: None,
            renewal: Renewal::Due(renew_at.map(|at| at.max(earliest_renewal))),
            phase: Phase::Serving,
        };
        lasting
            .telemetry
            .on_connected(session_present, &mut online.ids);
        online.serve(lasting, now);
        online
    }

    /// Sends what waits, unless the connection is being left.
    pub(crate) fn serve(&mut self, lasting: &mut Lasting, now: Instant) {
        if !self.is_serving() {
            return;
        }
        self.subscribe(lasting.wanted, lasting, now);
        lasting.telemetry.send(&mut self.ids, &mut lasting.out, now);
        let timeout = lasting.config.twin_timeout;
        lasting.twin.ask(timeout, &mut lasting.out, now);
    }

    fn subscribe(&mut self, wanted: Subscriptions, lasting: &mut Lasting, now: Instant) {
        let had_desired = self.subscribed.is_on(Topic::Desired);
        let had_messages = self.subscribed.is_on(Topic::CloudMessages);
        let had_methods = self.subscribed.is_on(Topic::Methods);
        self.subscribed.tell(
            wanted,
            &lasting.identity,
            &mut self.ids,
            &mut lasting.out,
            now,
        );
        if had_desired && !self.subscribed.is_on(Topic::Desired) {
            self.desired_version = None;
            lasting.out.push(Event::DesiredStale);
        }
        match (had_messages, self.subscribed.is_on(Topic::CloudMessages)) {
            (false, true) => self.settling = Settling::Subscribing,
            (true, false) => self.settling = Settling::Unsubscribed,
            (false, false) | (true, true) => {}
        }
        match (had_methods, self.subscribed.is_on(Topic::Methods)) {
            (false, true) => self.offering = Offering::Subscribing,
            (true, false) => self.offering = Offering::Unsubscribed,
            (false, false) | (true, true) => {}
        }
    }

    /// The next packet out of the hub's bytes.
    pub(crate) fn read(
        &mut self,
        input: &mut &[u8],
        now: Instant,
    ) -> Result<Option<Packet>, Violation> {
        self.last_read = now;
        self.reader.next(input)
    }

    pub(crate) fn on_packet(
        &mut self,
        packet: Packet,
        lasting: &mut Lasting,
        now: Instant,
    ) -> Result<(), LossReason> {
        match packet {
            Packet::Connack(_) => return Err(Violation::Unexpected.into()),
            Packet::Publish(publish) => self.on_publish(publish, lasting, now)?,
            Packet::Puback(packet_id) => self.on_puback(packet_id, lasting)?,
            Packet::Suback { packet_id, granted } => {
                self.subscribed
                    .on_suback(packet_id, &granted, &mut self.ids)?;
                self.begin_round_trip(lasting, now);
            }
            Packet::Unsuback(packet_id) => {
                self.subscribed.on_unsuback(packet_id, &mut self.ids)?;
                self.begin_round_trip(lasting, now);
            }
            Packet::Pingresp => self.on_pong(lasting, now),
        }
        self.advance_leaving(lasting, now)
    }

    /// Sends the ping that follows SUBACK, one for both who wait for its answer. What was told in between may be
    /// acknowledged last, by UNSUBACK.
    fn begin_round_trip(&mut self, lasting: &mut Lasting, now: Instant) {
        let settles = self.settling == Settling::Subscribing
            && self.subscribed.is_acknowledged(Topic::CloudMessages);
        let offers = self.offering == Offering::Subscribing
            && self.subscribed.is_acknowledged(Topic::Methods);
        if !settles && !offers {
            return;
        }
        let pongs = self.ping(lasting, now);
        if settles {
            self.settling = Settling::RoundTrip { pongs };
        }
        if offers {
            self.offering = Offering::RoundTrip { pongs };
        }
    }

    fn on_puback(&mut self, packet_id: u16, lasting: &mut Lasting) -> Result<(), LossReason> {
        let telemetry = lasting.telemetry.on_puback(packet_id);
        let id = telemetry
            .or_else(|| self.answers.on_puback(packet_id))
            .ok_or(Violation::UnknownPacketId)?;
        self.ids.release(packet_id);
        if let Some(id) = id {
            lasting.out.push(Event::Delivered(id));
        }
        Ok(())
    }

    /// Sends the driver's answer to a direct method.
    pub(crate) fn answer(
        &mut self,
        id: WorkId,
        rid: RequestId,
        response: &MethodResponse,
        lasting: &mut Lasting,
        now: Instant,
    ) {
        let out = &mut lasting.out;
        self.answers
            .send(id, rid, response, &mut self.ids, out, now);
    }

    pub(crate) fn acknowledge(
        &mut self,
        receipt: Receipt,
        lasting: &mut Lasting,
        now: Instant,
    ) -> Result<(), StaleReceipt> {
        if receipt.epoch != self.epoch {
            return Err(StaleReceipt);
        }
        self.receipts.acknowledge(receipt.number)?;
        self.send_pubacks(lasting, now);
        Ok(())
    }

    fn send_pubacks(&mut self, lasting: &mut Lasting, now: Instant) {
        while let Some((number, held)) = self.receipts.pop_acknowledged() {
            if let Some(packet_id) = held.packet_id {
                wire::puback(lasting.out.packets(now), packet_id);
            }
            if held.has_receipt {
                let epoch = self.epoch;
                let receipt = Receipt { epoch, number };
                lasting.out.push(Event::Acknowledged(receipt));
            }
        }
    }

    /// Forgets an answer; goes on with what any cancelled work has held back.
    pub(crate) fn cancel(
        &mut self,
        id: WorkId,
        lasting: &mut Lasting,
        now: Instant,
    ) -> Result<(), LossReason> {
        self.answers.cancel(id);
        self.serve(lasting, now);
        self.advance_leaving(lasting, now)
    }

    /// Takes the connection apart. Returns what follows, if the way it ended says so.
    pub(crate) fn end(self, reason: LossReason, lasting: &mut Lasting) -> Option<Next> {
        lasting.telemetry.on_disconnected();
        lasting.twin.on_disconnected();
        let epoch = self.epoch;
        lasting.out.push(Event::Disconnected { epoch, reason });
        for id in self.answers.unfinished() {
            lasting.out.push(Event::Gone(id));
        }
        if self.subscribed.is_on(Topic::Desired) {
            lasting.out.push(Event::DesiredStale);
        }
        match self.phase {
            Phase::Leaving {
                why: Leave::Close, ..
            } => Some(Next::Connect),
            Phase::Leaving {
                why: Leave::Renew(credentials),
                ..
            } => Some(Next::UseSocket(credentials)),
            Phase::Leaving {
                why: Leave::Reconnect,
                ..
            }
            | Phase::Serving => match self.renewal {
                Renewal::Due(_) | Renewal::Postponed(_) => None,
                Renewal::AwaitSocket => Some(Next::AwaitSocket),
            },
        }
    }

    pub(crate) fn epoch(&self) -> ConnectionEpoch {
        self.epoch
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settling == Settling::Settled
    }

    pub(crate) fn offers_methods(&self) -> bool {
        self.offering == Offering::Offered
    }

    /// How many of the driver's answers are in flight.
    pub(crate) fn answers_in_flight(&self) -> usize {
        self.answers.len()
    }
}
