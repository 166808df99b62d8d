//! Faults on request: what a real hub or network does on a bad day, as part of the API.
//!
//! A rule applies to one device or to all, a number of times or until it is cleared. Where several rules could apply, the
//! one that was added first does.

use std::time::Duration;

use iothub::{DeviceId, ErrorCode, Identity, ModuleId};
use mqtt_protocol_core::mqtt::result_code::ConnectReturnCode;
use serde::{Deserialize, Serialize};

use super::{CloseReason, Error, Hub, Now};

/// What goes wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Closes the connections that are up, at once and once; never stored as a rule.
    DropConnection,
    /// Answers CONNECT with a code.
    RefuseConnect {
        /// The code in CONNACK.
        code: ConnectRefusal,
    },
    /// Takes a PUBLISH and never acknowledges it.
    SwallowPuback,
    /// Acknowledges a PUBLISH late; later acknowledgements wait behind it.
    DelayPuback {
        /// How late, in milliseconds.
        millis: u64,
    },
    /// Holds queued cloud-to-device messages back after CONNACK.
    HoldMessages {
        /// How long, in milliseconds.
        millis: u64,
    },
    /// Never answers a twin request.
    IgnoreTwinRequests,
    /// Answers a twin request with an error.
    FailTwinRequests {
        /// 400 to 599.
        status: u16,
    },
    /// Acknowledges UNSUBSCRIBE and keeps the subscription.
    IgnoreUnsubscribe,
}

/// A code of CONNACK that refuses: 1 to 5 (MQTT 3.1.1, section 3.2.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum ConnectRefusal {
    /// 1
    UnacceptableProtocolVersion,
    /// 2
    IdentifierRejected,
    /// 3: the hub's own trouble.
    ServerUnavailable,
    /// 4
    BadUserNameOrPassword,
    /// 5: what a hub says to every wrong credential.
    NotAuthorized,
}

/// A fault, for whom, and how often.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Only this device and its modules; all devices if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// Only this module, of the device or of all devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleId>,
    /// How many times; until it is cleared if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// What goes wrong.
    pub fault: Fault,
}

/// Names one rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// The rules in force.
#[derive(Default)]
pub(super) struct Faults {
    rules: Vec<(FaultId, FaultRule)>,
    next: u64,
}

/// What happens to one acknowledgement.
pub(super) enum PubackFault {
    Swallow,
    Delay(Duration),
}

/// What happens to one twin request.
pub(super) enum TwinFault {
    Ignore,
    Fail(u16),
}

impl Faults {
    pub(super) fn on_connect(&mut self, identity: &Identity) -> Option<ConnectReturnCode> {
        self.take(identity, |fault| {
            if let Fault::RefuseConnect { code } = fault {
                Some(code.to_return_code())
            } else {
                None
            }
        })
    }

    pub(super) fn on_connected(&mut self, identity: &Identity) -> Option<Duration> {
        self.take(identity, |fault| {
            if let Fault::HoldMessages { millis } = fault {
                Some(Duration::from_millis(*millis))
            } else {
                None
            }
        })
    }

    pub(super) fn on_puback(&mut self, identity: &Identity) -> Option<PubackFault> {
        self.take(identity, |fault| {
            if let Fault::DelayPuback { millis } = fault {
                Some(PubackFault::Delay(Duration::from_millis(*millis)))
            } else {
                matches!(fault, Fault::SwallowPuback).then_some(PubackFault::Swallow)
            }
        })
    }

    pub(super) fn on_twin_request(&mut self, identity: &Identity) -> Option<TwinFault> {
        self.take(identity, |fault| {
            if let Fault::FailTwinRequests { status } = fault {
                Some(TwinFault::Fail(*status))
            } else {
                matches!(fault, Fault::IgnoreTwinRequests).then_some(TwinFault::Ignore)
            }
        })
    }

    pub(super) fn on_unsubscribe(&mut self, identity: &Identity) -> bool {
        let is_ignored = |fault: &Fault| matches!(fault, Fault::IgnoreUnsubscribe).then_some(());
        self.take(identity, is_ignored).is_some()
    }

    /// The first rule for this identity that `pick` wants, counted down.
    fn take<T>(&mut self, identity: &Identity, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let (index, picked) = self
            .rules
            .iter()
            .enumerate()
            .find_map(|(index, (_, rule))| {
                rule.is_for(identity)
                    .then(|| pick(&rule.fault))
                    .flatten()
                    .map(|picked| (index, picked))
            })?;
        if let Some(times) = &mut self.rules[index].1.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.rules.remove(index);
            }
        }
        Some(picked)
    }
}

impl Hub {
    /// Adds a rule, or does at once what is done once: then there is no id.
    ///
    /// # Errors
    ///
    /// A status that is no error, no times at all, or too many rules.
    pub fn inject(&mut self, rule: FaultRule, now: Now) -> Result<Option<FaultId>, Error> {
        let invalid = |text: &str| Err(Error::new(ErrorCode::ArgumentInvalid, text));
        if rule.times == Some(0) {
            return invalid("times is at least 1");
        }
        if let Fault::FailTwinRequests { status } = rule.fault
            && !(400..=599).contains(&status)
        {
            return invalid("status is 400 to 599");
        }
        if let Fault::DropConnection = rule.fault {
            self.drop_connections(&rule, now);
            return Ok(None);
        }
        if self.faults.rules.len() >= RULES {
            return invalid("there are as many fault rules as there may be; clear some");
        }
        let id = FaultId(self.faults.next);
        self.faults.next += 1;
        self.faults.rules.push((id, rule));
        Ok(Some(id))
    }

    /// The rules in force, oldest first.
    #[must_use]
    pub fn faults(&self) -> &[(FaultId, FaultRule)] {
        &self.faults.rules
    }

    /// Takes a rule away, or all of them. Returns how many there were.
    pub fn clear_faults(&mut self, id: Option<FaultId>) -> usize {
        let before = self.faults.rules.len();
        self.faults
            .rules
            .retain(|(rule, _)| id.is_some_and(|id| id != *rule));
        before - self.faults.rules.len()
    }

    fn drop_connections(&mut self, rule: &FaultRule, now: Now) {
        let open = self.registry.iter().flat_map(|(_, d)| d.connections());
        for connection in Vec::from_iter(open) {
            if self.speaker(connection).is_ok_and(|who| rule.is_for(&who)) {
                self.close(connection, CloseReason::Dropped, now);
            }
        }
    }
}

impl FaultRule {
    fn is_for(&self, identity: &Identity) -> bool {
        let is_device = |device: &DeviceId| device == identity.device_id();
        let is_module = |module: &ModuleId| Some(module) == identity.module_id();
        self.device.as_ref().is_none_or(is_device) && self.module.as_ref().is_none_or(is_module)
    }
}

impl ConnectRefusal {
    const fn to_return_code(self) -> ConnectReturnCode {
        match self {
            Self::UnacceptableProtocolVersion => ConnectReturnCode::UnacceptableProtocolVersion,
            Self::IdentifierRejected => ConnectReturnCode::IdentifierRejected,
            Self::ServerUnavailable => ConnectReturnCode::ServerUnavailable,
            Self::BadUserNameOrPassword => ConnectReturnCode::BadUserNameOrPassword,
            Self::NotAuthorized => ConnectReturnCode::NotAuthorized,
        }
    }
}

impl TryFrom<u8> for ConnectRefusal {
    type Error = &'static str;

    fn try_from(code: u8) -> Result<Self, &'static str> {
        match code {
            1 => Ok(Self::UnacceptableProtocolVersion),
            2 => Ok(Self::IdentifierRejected),
            3 => Ok(Self::ServerUnavailable),
            4 => Ok(Self::BadUserNameOrPassword),
            5 => Ok(Self::NotAuthorized),
            _ => Err("a code that refuses is 1 to 5"),
        }
    }
}

impl From<ConnectRefusal> for u8 {
    fn from(refusal: ConnectRefusal) -> Self {
        refusal.to_return_code() as Self
    }
}

/// Bound on the rules: each is looked at for each packet.
const RULES: usize = 100;
