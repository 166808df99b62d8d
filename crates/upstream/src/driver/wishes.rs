//! What is wanted of the session at this moment, and for how long.

use std::time::{Duration, Instant};

use session::Subscriptions;
use store::{Failure, Lane, LaneSet, Need, StoreError};

use super::{
    Driver, LOOK_AGAIN, Outlook, Phase,
    presence::{self, Span},
};
use crate::node::now;

impl Driver {
    pub(super) async fn on_time(&mut self) -> Result<(), StoreError> {
        let now = now();
        self.session.handle_timeout(now);
        while let Some((id, work)) = self.in_flight.take_overdue(now) {
            self.give_up(id, work, Failure::HubUnavailable).await?;
        }
        self.calls.expire(now);
        if self.held.until().is_some_and(|until| until <= now) {
            self.give_back(now);
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if self.look_at <= now {
            self.look_at = now + LOOK_AGAIN;
            let was_needed = self.current_needs.session == Need::Now;
            self.current_needs = self.needs.current();
            if !was_needed && self.current_needs.session == Need::Now {
                self.session.hurry(now);
            }
            if self.may_take() {
                self.take_work(LaneSet::ALL).await?;
            }
        }
        Ok(())
    }

    /// Brings the session in line with what is wanted of it at this moment.
    pub(super) fn on_changed_wishes(&mut self, now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        if self.has_lingered(now) {
            return self.close(now);
        }
        self.subscribe(now);
        if self.session.epoch().is_none() && self.has_waiting_client() {
            self.link.hurry();
        }
        self.read_if_followed(now);
    }

    /// Whether nobody has needed the session for the linger time, as far as the outbox has been looked at.
    pub(super) fn has_lingered(&self, now: Instant) -> bool {
        self.phase == Phase::Open
            && !self.session_span().is_on(now)
            && !self.in_flight.has_entries()
    }

    pub(super) fn subscribe(&mut self, now: Instant) {
        let wanted = Subscriptions {
            // IoT Hub has no cloud-to-device messages for modules.
            cloud_messages: self.identity.module_id().is_none(),
            desired: self.desired_span().is_on(now),
            methods: self.methods_span().is_on(now),
        };
        if wanted != self.wanted {
            self.wanted = wanted;
            self.session.set_wanted(wanted, now);
        }
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.phase = Phase::Closing;
        self.session.close(now);
    }

    /// Another device waits for a place: ends the session if nobody needs it.
    pub(super) fn make_room(&mut self, now: Instant) {
        self.current_needs = self.needs.current();
        if self.phase == Phase::Open && self.idle_since().is_some() {
            self.node.meters.displaced.increment(1);
            self.close(now);
        }
    }

    /// Since when nobody has needed the session, if nobody does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        // A backlog that cannot go out at present is no reason to keep a place from a device whose work may. But it is tried for
        // a while, so that many such devices do not take the place from each other without a pause.
        let has_tried = now().saturating_duration_since(self.began) >= TENURE;
        let waits_in_vain =
            has_tried && self.outlook != Outlook::Good && !self.has_waiting_client();
        let is_busy = self.in_flight.has_entries() && !waits_in_vain;
        if self.record.is_pinned || is_busy || !self.calls.is_empty() {
            return None;
        }
        match self.current_needs.session {
            Need::Now => None,
            Need::Until(end) => Some(end.max(self.last_work)),
            Need::Never => Some(self.last_work),
        }
    }

    /// Ends the session in the time that the node has left, also one that has begun to end.
    pub(super) fn stop(&mut self, now: Instant) {
        let stop_by = self.node.stop_by.get();
        let left = stop_by.map(|by| by.saturating_duration_since(now));
        self.phase = Phase::Stopping;
        self.session.close_within(left.unwrap_or_default(), now);
    }

    /// When something is due.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        let is_open = self.phase == Phase::Open;
        let after_now = |at: &Instant| *at > now;
        let due = [
            self.session.poll_timeout().map(|(at, _)| at),
            self.in_flight.deadline(),
            self.calls.deadline(),
            self.held.until().filter(|_| is_open),
            self.paused_until,
            Some(self.read_at)
                .filter(|_| self.wanted.desired)
                .filter(after_now),
            self.desired_span().ends_at(now),
            self.methods_span().ends_at(now),
            self.session_span().ends_at(now),
        ];
        due.into_iter().flatten().fold(self.look_at, Instant::min)
    }

    /// For how long the session is wanted.
    pub(super) fn session_span(&self) -> Span {
        if self.record.is_pinned {
            return Span::Open;
        }
        // Strangers' tokens are not to fill the node with sessions that never were.
        let linger = if self.credential.is_proved() {
            self.node.linger
        } else {
            Duration::ZERO
        };
        Span::of(self.current_needs.session, linger).or(Span::Until(self.last_work + linger))
    }

    /// For how long the device can answer direct methods.
    pub(super) fn presence(&self) -> Span {
        Span::of(self.current_needs.methods, self.node.presence_grace)
    }

    pub(super) fn methods_span(&self) -> Span {
        let has_open_calls = !self.calls.is_empty();
        presence::methods(self.record.method_policy, self.presence(), has_open_calls)
    }

    /// For how long the desired properties are followed.
    pub(super) fn desired_span(&self) -> Span {
        let linger = self.node.linger;
        let read = self
            .last_read
            .map_or(Span::Never, |read| Span::Until(read + linger));
        Span::of(self.current_needs.desired, linger).or(read)
    }

    pub(super) fn has_waiting_client(&self) -> bool {
        self.current_needs.session == Need::Now || self.in_flight.has_waiting_client()
    }

    pub(super) fn may_take(&self) -> bool {
        let has_room = || Lane::ALL.iter().any(|lane| self.room(*lane) > 0);
        let is_open = matches!(self.phase, Phase::Open | Phase::GivingBack);
        is_open && self.paused_until.is_none() && has_room()
    }

    pub(super) fn room(&self, lane: Lane) -> usize {
        let room = self.session.room();
        let one_at_a_time = |room: usize| match self.suspicion.is_any() {
            true if self.in_flight.has_sendable() => 0,
            true => room.min(1),
            false => room,
        };
        match lane {
            Lane::Answers => room.answers,
            Lane::Twin => one_at_a_time(room.twin),
            Lane::Telemetry => one_at_a_time(room.telemetry),
        }
    }
}

/// How long a session that cannot go on is left its place, at least.
const TENURE: Duration = Duration::from_secs(5);
