//! Leaving a connection in order.
//!
//! ```text
//! Serving ──▶ Draining ──in flight is answered──▶ Farewell ──UNSUBACK──▶ DISCONNECT
//!    ▲            │                                  (both at the latest after their time, see `Patience`)
//!    └── stay ────┘
//! ```
//!
//! Nothing new is sent meanwhile. The method subscription is taken back last before DISCONNECT, because the hub would
//! remember it and offer methods to a device that is away, and during a renewal it is missed for as short as possible.

use std::time::{Duration, Instant};

use super::{Online, Subscriptions};
use crate::{Config, LossReason, lasting::Lasting, session::Credentials, wire};

/// Whether a connection serves or is being left.
pub(super) enum Phase {
    Serving,
    Leaving {
        why: Leave,
        stage: Stage,
        /// The end of the stage.
        deadline: Instant,
        /// How long the farewell may last.
        farewell: Duration,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Draining,
    Farewell,
}

/// Why a connection is left.
pub(crate) enum Leave {
    Close,
    Reconnect,
    Renew(Credentials),
}

/// How long an orderly end may last.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    drain: Duration,
    farewell: Duration,
}

impl Patience {
    /// As long as is configured.
    pub(crate) const fn of(config: &Config) -> Self {
        Self {
            drain: config.drain_timeout,
            farewell: config.farewell_timeout,
        }
    }

    /// Not longer than `limit` in all. The farewell has its part kept free: what is in flight may be sent again later,
    /// but a subscription that is not taken back makes the hub offer methods to a device that is away.
    pub(crate) fn within(self, limit: Duration) -> Self {
        let farewell = self.farewell.min(limit / 2);
        Self {
            drain: self.drain.min(limit - farewell),
            farewell,
        }
    }
}

/// What becomes of credentials that get old.
#[derive(Clone, Copy)]
pub(super) enum Renewal {
    /// A second socket is asked for then, if ever.
    Due(Option<Instant>),
    /// There was none, or no fresher credentials; it is asked for again then.
    Postponed(Instant),
    /// The driver opens it.
    AwaitSocket,
}

impl Online {
    pub(super) const fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving)
    }

    /// Whether a second socket is asked for.
    pub(crate) const fn awaits_socket(&self) -> bool {
        matches!(self.renewal, Renewal::AwaitSocket)
    }

    /// The second socket is there. If the connection is being left for another reason, the socket is not used.
    pub(crate) fn renew(
        &mut self,
        credentials: Credentials,
        lasting: &mut Lasting,
        now: Instant,
    ) -> Result<(), LossReason> {
        self.renewal = Renewal::Due(Some(now));
        if !self.is_serving() {
            return Ok(());
        }
        let patience = Patience::of(&lasting.config);
        self.leave(Leave::Renew(credentials), patience, lasting, now)
    }

    /// There is no second socket.
    pub(crate) const fn postpone_renewal(&mut self, until: Instant) {
        self.renewal = Renewal::Postponed(until);
    }

    /// There are fresher credentials.
    pub(crate) const fn hurry_renewal(&mut self, now: Instant) {
        if let Renewal::Postponed(until) = &mut self.renewal {
            *until = now;
        }
    }

    /// Begins an orderly end. A later reason takes the place of an earlier one, and less patience that of more.
    pub(crate) fn leave(
        &mut self,
        reason: Leave,
        patience: Patience,
        lasting: &mut Lasting,
        now: Instant,
    ) -> Result<(), LossReason> {
        match &mut self.phase {
            Phase::Leaving {
                why,
                stage,
                deadline,
                farewell,
            } => {
                // A renewal gives back as well, and its socket is open.
                if !matches!((&*why, &reason), (Leave::Renew(_), Leave::Reconnect)) {
                    *why = reason;
                }
                *deadline = (*deadline).min(match stage {
                    Stage::Draining => now + patience.drain,
                    Stage::Farewell => now + patience.farewell,
                });
                *farewell = (*farewell).min(patience.farewell);
            }
            Phase::Serving => {
                self.phase = Phase::Leaving {
                    why: reason,
                    stage: Stage::Draining,
                    deadline: now + patience.drain,
                    farewell: patience.farewell,
                };
            }
        }
        self.advance_leaving(lasting, now)
    }

    /// The session is wanted again: goes on to serve if the hub cannot have noticed.
    pub(crate) fn stay(&mut self, lasting: &mut Lasting, now: Instant) {
        if let Phase::Leaving {
            why: Leave::Close,
            stage: Stage::Draining,
            ..
        } = self.phase
        {
            self.phase = Phase::Serving;
            self.serve(lasting, now);
        }
    }

    pub(super) fn advance_leaving(
        &mut self,
        lasting: &mut Lasting,
        now: Instant,
    ) -> Result<(), LossReason> {
        let Phase::Leaving {
            why,
            stage,
            deadline,
            farewell,
        } = &mut self.phase
        else {
            return Ok(());
        };
        let reason = match why {
            Leave::Close => LossReason::Closed,
            Leave::Reconnect => LossReason::Reconnected,
            Leave::Renew(_) => LossReason::Renewed,
        };
        let is_late = *deadline <= now;
        let is_over = match stage {
            Stage::Draining => {
                let is_drained = lasting.telemetry.oldest().is_none()
                    && lasting.twin.oldest().is_none()
                    && self.answers.oldest().is_none();
                if !is_drained && !is_late {
                    return Ok(());
                }
                *stage = Stage::Farewell;
                *deadline = now + *farewell;
                let without_methods = Subscriptions {
                    methods: false,
                    ..self.subscribed.current()
                };
                self.subscribe(without_methods, lasting, now);
                false
            }
            Stage::Farewell => is_late,
        };
        let is_answered = self.subscribed.oldest().is_none() && self.answers.oldest().is_none();
        if is_over || is_answered {
            wire::disconnect(lasting.out.packets(now));
            return Err(reason);
        }
        Ok(())
    }
}
