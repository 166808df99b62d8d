//! Faults on request: what a real hub or network does on a bad day, as part of the API.
//!
//! A rule applies to one device or to all, a number of times, for a time, or until it is cleared. Where several rules
//! could apply, the one that was added first does.
//!
//! ```text
//! inject ──after──▶ in force ──times are used, time is over, cleared──▶ gone
//!                      └ faults that happen once are gone at once
//! ```
//!
//! A rule with a probability throws dice that come from the seed of the configuration, the number of the rule, whom it
//! strikes and how often that one could have been struck before: what happens to the third message of a device does not
//! hang on what other devices do meanwhile, so a run repeats with the same seed.

mod at_once;
mod kinds;
mod rule;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use iothub::{DeviceId, ErrorCode, Identity, ModuleId};
use mqtt_protocol_core::mqtt::result_code::ConnectReturnCode;
use serde::{Deserialize, Serialize};

use self::rule::Moment;
pub use self::{
    kinds::FaultKind,
    rule::{Api, ConnectRefusal, ErrorStatus, Fault, FaultRule, Pattern, Probability},
};
use super::{Error, Hub, Now, timers::Timer};

/// Names one rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// The rules in force, and those that will be.
pub(super) struct Faults {
    rules: Vec<Rule>,
    next: u64,
    seed: u64,
}

struct Rule {
    id: FaultId,
    rule: FaultRule,
    begins: Instant,
    ends: Option<Instant>,
    /// How often each of those who could be struck could have been; only with a probability.
    chances: HashMap<Option<Identity>, u64>,
}

/// What happens to one CONNECT.
pub(super) enum ConnectFault {
    Refuse(ConnectReturnCode),
    Unreachable,
}

/// What happens to one acknowledgement.
pub(super) enum PubackFault {
    Swallow,
    Delay(Duration),
    Duplicate,
}

/// What happens to one twin request.
pub(super) enum TwinFault {
    Ignore,
    Fail(u16),
    Delay(Duration),
    Throttle(Duration),
}

/// What happens to one answer to a direct method.
pub(super) enum AnswerFault {
    Swallow,
    Delay(Duration),
}

/// What happens to one HTTPS request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestFault {
    /// It is answered with this status.
    Fail(ErrorStatus),
    /// It is dealt with after this time.
    Delay(Duration),
    /// Its connection is closed.
    Drop,
    /// It waits so long, and is throttled then.
    Throttle(Duration),
}

impl Faults {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            rules: Vec::new(),
            next: 0,
            seed,
        }
    }

    /// Whether nothing at all goes wrong, as is usual.
    pub(super) const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn on_connect(&mut self, identity: &Identity, now: Now) -> Option<ConnectFault> {
        self.take(identity, now, |fault| {
            if let Fault::RefuseConnect { code } = fault {
                Some(ConnectFault::Refuse(code.to_return_code()))
            } else {
                matches!(fault, Fault::Unreachable {}).then_some(ConnectFault::Unreachable)
            }
        })
    }

    /// Whether the session is lost.
    pub(super) fn on_session(&mut self, identity: &Identity, now: Now) -> bool {
        let is_lost = |fault: &Fault| matches!(fault, Fault::LoseSession {}).then_some(());
        self.take(identity, now, is_lost).is_some()
    }

    pub(super) fn on_connected(&mut self, identity: &Identity, now: Now) -> Option<Duration> {
        self.take(identity, now, |fault| {
            if let Fault::HoldMessages { millis } = fault {
                Some(Duration::from_millis(*millis))
            } else {
                None
            }
        })
    }

    pub(super) fn on_unsubscribe(&mut self, identity: &Identity, now: Now) -> bool {
        let is_ignored = |fault: &Fault| matches!(fault, Fault::IgnoreUnsubscribe {}).then_some(());
        self.take(identity, now, is_ignored).is_some()
    }

    /// There if a payload closes the connection.
    pub(super) fn on_payload(
        &mut self,
        identity: &Identity,
        payload: &[u8],
        now: Now,
    ) -> Option<()> {
        let closes = |fault: &Fault| {
            if let Fault::CloseOnPayload { contains } = fault {
                contains.is_in(payload).then_some(())
            } else {
                None
            }
        };
        self.take(identity, now, closes)
    }

    /// How long telemetry waits before its connection is closed.
    pub(super) fn on_telemetry(&mut self, identity: &Identity, now: Now) -> Option<Duration> {
        self.take(identity, now, throttled)
    }

    pub(super) fn on_puback(&mut self, identity: &Identity, now: Now) -> Option<PubackFault> {
        self.take(identity, now, |fault| {
            if let Fault::DelayPuback { millis } = fault {
                Some(PubackFault::Delay(Duration::from_millis(*millis)))
            } else if matches!(fault, Fault::DuplicatePuback {}) {
                Some(PubackFault::Duplicate)
            } else {
                matches!(fault, Fault::SwallowPuback {}).then_some(PubackFault::Swallow)
            }
        })
    }

    pub(super) fn on_twin_request(&mut self, identity: &Identity, now: Now) -> Option<TwinFault> {
        self.take(identity, now, |fault| {
            if let Fault::FailTwinRequests { status } = fault {
                Some(TwinFault::Fail((*status).into()))
            } else if let Fault::DelayTwinRequests { millis } = fault {
                Some(TwinFault::Delay(Duration::from_millis(*millis)))
            } else if let Some(wait) = throttled(fault) {
                Some(TwinFault::Throttle(wait))
            } else {
                matches!(fault, Fault::IgnoreTwinRequests {}).then_some(TwinFault::Ignore)
            }
        })
    }

    pub(super) fn on_method_answer(
        &mut self,
        identity: &Identity,
        now: Now,
    ) -> Option<AnswerFault> {
        self.take(identity, now, |fault| {
            if let Fault::DelayMethodAnswer { millis } = fault {
                Some(AnswerFault::Delay(Duration::from_millis(*millis)))
            } else {
                matches!(fault, Fault::SwallowMethodAnswer {}).then_some(AnswerFault::Swallow)
            }
        })
    }

    /// `whom` is whom the request names, if the hub knows that one.
    fn on_request(
        &mut self,
        asked: Api,
        whom: Option<&Identity>,
        now: Now,
    ) -> Option<RequestFault> {
        let is_for = |api: &Option<Api>| api.is_none_or(|api| api == asked);
        self.take(whom, now, |fault| {
            if let Fault::FailRequests { api, status } = fault {
                is_for(api).then_some(RequestFault::Fail(*status))
            } else if let Fault::DelayRequests { api, millis } = fault {
                is_for(api).then_some(RequestFault::Delay(Duration::from_millis(*millis)))
            } else if let Fault::DropRequests { api } = fault {
                is_for(api).then_some(RequestFault::Drop)
            } else if matches!(fault, Fault::Unreachable {}) {
                Some(RequestFault::Drop)
            } else {
                throttled(fault).map(RequestFault::Throttle)
            }
        })
    }

    /// The first rule for this identity that `pick` wants and that strikes, counted down.
    fn take<'a, T>(
        &mut self,
        whom: impl Into<Option<&'a Identity>>,
        now: Now,
        pick: impl Fn(&Fault) -> Option<T>,
    ) -> Option<T> {
        if self.rules.is_empty() {
            return None;
        }
        let (whom, seed) = (whom.into(), self.seed);
        let (index, picked) = self
            .rules
            .iter_mut()
            .enumerate()
            .find_map(|(index, rule)| {
                if !rule.is_in_force(now) || !rule.is_for(whom) {
                    return None;
                }
                let picked = pick(&rule.rule.fault)?;
                rule.strikes(whom, seed).then_some((index, picked))
            })?;
        let times = &mut self.rules[index].rule.times;
        if let Some(left) = *times {
            match NonZeroU32::new(left.get() - 1) {
                Some(left) => *times = Some(left),
                None => drop(self.rules.remove(index)),
            }
        }
        Some(picked)
    }
}

impl Rule {
    fn is_in_force(&self, now: Now) -> bool {
        self.begins <= now.at && self.ends.is_none_or(|ends| now.at < ends)
    }

    fn is_for(&self, whom: Option<&Identity>) -> bool {
        let (device, module) = (
            whom.map(Identity::device_id),
            whom.and_then(Identity::module_id),
        );
        self.rule.is_for(device, module)
    }

    fn strikes(&mut self, whom: Option<&Identity>, seed: u64) -> bool {
        let Some(probability) = self.rule.probability else {
            return true;
        };
        let chance = self.chances.entry(whom.cloned()).or_default();
        let mut hasher = DefaultHasher::new();
        let text = whom.map(Identity::client_id);
        (seed, self.id, text, *chance).hash(&mut hasher);
        *chance += 1;
        fastrand::Rng::with_seed(hasher.finish()).f64() < probability.into()
    }
}

impl Hub {
    /// Adds a rule, or does at once what is done once: then there is no id.
    ///
    /// # Errors
    ///
    /// There are as many rules as there may be, or the hub shall move and has nowhere to go.
    pub fn inject(&mut self, rule: FaultRule, now: Now) -> Result<Option<FaultId>, Error> {
        if self.faults.rules.len() >= RULES {
            return Err(Error::new(
                ErrorCode::ArgumentInvalid,
                format!("There are {RULES} fault rules, as many as there may be; clear some."),
            ));
        }
        if rule.fault == (Fault::FailOver {}) && !self.config.has_other_address {
            return Err(Error::new(
                ErrorCode::ArgumentInvalid,
                "The hub has one address only: start the emulator with another (--failover-address).",
            ));
        }
        let id = FaultId(self.faults.next);
        self.faults.next += 1;
        let begins = now.at + rule.after;
        self.faults.rules.push(Rule {
            id,
            begins,
            ends: rule.lasts.map(|lasts| begins + lasts),
            chances: HashMap::new(),
            rule,
        });
        self.on_fault_timer(id, now);
        let is_there = self.faults.rules.iter().any(|rule| rule.id == id);
        Ok(is_there.then_some(id))
    }

    /// The rules in force and those that will be, oldest first.
    pub fn faults(&self) -> impl Iterator<Item = (FaultId, &FaultRule)> {
        self.faults.rules.iter().map(|rule| (rule.id, &rule.rule))
    }

    /// Takes a rule away, or all of them. Returns how many there were.
    pub fn clear_faults(&mut self, id: Option<FaultId>) -> usize {
        let before = self.faults.rules.len();
        self.faults
            .rules
            .retain(|rule| id.is_some_and(|id| id != rule.id));
        before - self.faults.rules.len()
    }

    /// What goes wrong with an HTTPS request that names this device or module, or none.
    pub fn request_fault(
        &mut self,
        api: Api,
        device: Option<DeviceId>,
        module: Option<ModuleId>,
        now: Now,
    ) -> Option<RequestFault> {
        if self.faults.is_empty() {
            return None;
        }
        // Who is not there has no chances of its own, so nobody can fill the memory with names.
        let whom = device.map(|device| self.identity(device, module));
        let whom = whom.filter(|whom| self.registry.record(whom).is_ok());
        self.faults.on_request(api, whom.as_ref(), now)
    }

    /// A rule begins, or ends.
    pub(super) fn on_fault_timer(&mut self, id: FaultId, now: Now) {
        let Some(index) = self.faults.rules.iter().position(|rule| rule.id == id) else {
            return;
        };
        let rule = &self.faults.rules[index];
        if rule.ends.is_some_and(|ends| ends <= now.at) {
            self.faults.rules.remove(index);
        } else if now.at < rule.begins {
            self.timers.set(rule.begins, Timer::Fault(id));
        } else {
            if let Some(ends) = rule.ends {
                self.timers.set(ends, Timer::Fault(id));
            }
            match rule.rule.fault.moment() {
                Moment::Whenever => {}
                Moment::OnceAndThen => self.strike_now(index, now),
                Moment::Once | Moment::OnceForAll => {
                    self.strike_now(index, now);
                    self.faults.rules.retain(|rule| rule.id != id);
                }
            }
        }
    }
}

fn throttled(fault: &Fault) -> Option<Duration> {
    if let Fault::Throttle { millis } = fault {
        Some(Duration::from_millis(*millis))
    } else {
        None
    }
}

/// Bound on the rules: each is looked at for each packet.
const RULES: usize = 100;
