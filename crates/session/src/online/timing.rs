//! Pings, and what time brings about on a connection.

use std::time::Instant;

use super::{
    Online,
    leaving::{Phase, Renewal},
    settling::Settling,
};
use crate::{Event, LossReason, lasting::Lasting, state::Timer, wire};

/// Pings without an answer.
pub(super) struct Pings {
    unanswered: u8,
    deadline: Instant,
}

impl Online {
    /// Sends a ping; returns how many are unanswered with it.
    pub(super) fn ping(&mut self, lasting: &mut Lasting, now: Instant) -> u8 {
        wire::pingreq(lasting.out.packets(now));
        let pings = self.pings.get_or_insert(Pings {
            unanswered: 0,
            deadline: now + lasting.config.ping_timeout,
        });
        pings.unanswered = pings.unanswered.saturating_add(1);
        pings.unanswered
    }

    /// Reacts to the answer to a ping. One that nothing asked for is harmless.
    pub(super) fn on_pong(&mut self, lasting: &mut Lasting, now: Instant) {
        self.settling.on_pong(&lasting.config, now);
        if self.offering.on_pong() {
            let epoch = self.epoch;
            lasting.out.push(Event::MethodsOffered { epoch });
        }
        self.pings = self.pings.take().and_then(|pings| {
            let unanswered = pings.unanswered - 1;
            let deadline = now + lasting.config.ping_timeout;
            (unanswered > 0).then_some(Pings {
                unanswered,
                deadline,
            })
        });
    }

    pub(crate) fn on_timer(
        &mut self,
        timer: Timer,
        lasting: &mut Lasting,
        now: Instant,
    ) -> Result<(), LossReason> {
        match timer {
            // Timers of other states.
            Timer::BackOff | Timer::Connack => {}
            Timer::Renew => {
                self.renewal = Renewal::AwaitSocket;
                lasting.out.push(Event::Renew);
            }
            Timer::KeepAlive | Timer::Probe => {
                self.ping(lasting, now);
            }
            Timer::Ping => return Err(LossReason::PingTimeout),
            Timer::Ack => return Err(LossReason::AckTimeout),
            Timer::Twin => {
                let timeout = lasting.config.twin_timeout;
                lasting.twin.ask_again(timeout, &mut lasting.out, now);
            }
            Timer::Settle => {
                self.settling = Settling::Settled;
                lasting.out.push(Event::Settled { epoch: self.epoch });
            }
            Timer::Leave => self.advance_leaving(lasting, now)?,
        }
        Ok(())
    }

    /// The timer that is due first.
    pub(crate) fn next_timer(&self, lasting: &Lasting) -> Option<(Instant, Timer)> {
        let config = &lasting.config;
        let (renew, leave) = match (&self.phase, self.renewal) {
            (Phase::Serving, Renewal::Due(at)) => (at, None),
            (Phase::Serving, Renewal::Postponed(at)) => (Some(at), None),
            (Phase::Serving, Renewal::AwaitSocket) => (None, None),
            (Phase::Leaving { deadline, .. }, _) => (None, Some(*deadline)),
        };
        let oldest = self.oldest(lasting);
        let (ping, keep_alive, probe) = match &self.pings {
            Some(pings) => (Some(pings.deadline), None, None),
            None => {
                let last_write = lasting.out.last_write().unwrap_or(self.since);
                let silent_since = oldest.map(|oldest| oldest.max(self.last_read));
                (
                    None,
                    Some(last_write + config.keep_alive_duration()),
                    silent_since.map(|since| since + config.probe_after),
                )
            }
        };
        [
            (renew, Timer::Renew),
            (leave, Timer::Leave),
            (ping, Timer::Ping),
            (keep_alive, Timer::KeepAlive),
            (probe, Timer::Probe),
            (oldest.map(|oldest| oldest + config.ack_timeout), Timer::Ack),
            (lasting.twin.again_at(), Timer::Twin),
            (self.settling.due(), Timer::Settle),
        ]
        .into_iter()
        .filter_map(|(at, timer)| at.map(|at| (at, timer)))
        .min_by_key(|(at, _)| *at)
    }

    /// Since when the oldest of all that the hub should answer is unanswered.
    fn oldest(&self, lasting: &Lasting) -> Option<Instant> {
        [
            lasting.telemetry.oldest(),
            lasting.twin.oldest(),
            self.answers.oldest(),
            self.subscribed.oldest(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
