//! What a rule says: the form in which people write it, in a request and in a file alike.

use std::{num::NonZeroU32, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use iothub::{DeviceId, ModuleId};
use mqtt_protocol_core::mqtt::result_code::ConnectReturnCode;
use serde::{Deserialize, Serialize};

/// What goes wrong. [`Fault::KINDS`] shows each by an example.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Closes the connections that are up, once.
    DropConnection {},
    /// Leaves the connections that are up as they are, but neither reads from them nor writes to them for a time: TCP
    /// stays, nobody answers. What came and what was to be sent meanwhile is dealt with afterwards.
    FreezeConnection {
        /// How long, in milliseconds; an hour if absent.
        #[serde(default = "an_hour")]
        millis: u64,
    },
    /// Takes the tokens that were used so far for expired: closes the connections that they opened, and refuses them
    /// until their owners sign ones that end later.
    ExpireTokens {},
    /// Sets the hub's wall clock forward, or back if the number is negative.
    JumpClock {
        /// How far, in milliseconds.
        by_millis: i64,
    },
    /// The hub cannot be reached: connections are closed, CONNECT and HTTPS requests get no answer but the end of the
    /// connection.
    Unreachable {},
    /// Moves the hub to its other address, as a manual fail-over to the paired region does ("IoT Hub high availability and
    /// disaster recovery"): connections are closed, where it was nobody listens, and all that it knows is at the other
    /// address. Once more moves it back.
    FailOver {},
    /// Answers CONNECT with a code.
    RefuseConnect {
        /// The code in CONNACK.
        code: ConnectRefusal,
    },
    /// Has forgotten the session at CONNECT: no session is present, no subscription is left.
    LoseSession {},
    /// Holds queued cloud-to-device messages back after CONNACK.
    HoldMessages {
        /// How long, in milliseconds.
        millis: u64,
    },
    /// Acknowledges UNSUBSCRIBE and keeps the subscription.
    IgnoreUnsubscribe {},
    /// Takes a PUBLISH and never acknowledges it.
    SwallowPuback {},
    /// Acknowledges a PUBLISH late; later acknowledgements wait behind it.
    DelayPuback {
        /// How late, in milliseconds.
        millis: u64,
    },
    /// Acknowledges a PUBLISH twice.
    DuplicatePuback {},
    /// Closes the connection at a message whose payload has these bytes in it: the message that nobody survives.
    CloseOnPayload {
        /// What the payload has in it.
        contains: Pattern,
    },
    /// Throttles as a hub does whose limits are spent: telemetry over MQTT is neither taken nor acknowledged, and then the
    /// connection is closed; twin requests and HTTPS requests get 429.
    Throttle {
        /// How long a hub lets requests wait before it gives up on them, in milliseconds; 3 s if absent.
        #[serde(default = "three_seconds")]
        millis: u64,
    },
    /// Never answers a twin request.
    IgnoreTwinRequests {},
    /// Answers a twin request with an error.
    FailTwinRequests {
        /// 400 to 599.
        status: ErrorStatus,
    },
    /// Answers a twin request late; other answers wait behind it.
    DelayTwinRequests {
        /// How late, in milliseconds.
        millis: u64,
    },
    /// Loses what a device answers to a direct method: its caller waits to the end of its time.
    SwallowMethodAnswer {},
    /// Hands what a device answers to a direct method to its caller late, or not at all if that is after its time.
    DelayMethodAnswer {
        /// How late, in milliseconds.
        millis: u64,
    },
    /// Answers HTTPS requests with an error.
    FailRequests {
        /// Only this API; both if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api: Option<Api>,
        /// 400 to 599.
        status: ErrorStatus,
    },
    /// Deals with HTTPS requests late.
    DelayRequests {
        /// Only this API; both if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api: Option<Api>,
        /// How late, in milliseconds.
        millis: u64,
    },
    /// Closes the connection of HTTPS requests without an answer.
    DropRequests {
        /// Only this API; both if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api: Option<Api>,
    },
}

/// One of the two APIs that a hub has over HTTPS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// What devices use.
    Device,
    /// What the cloud side uses.
    Service,
}

/// A fault, for whom, and how often.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct FaultRule {
    /// Only this device and its modules; all devices if absent.
    pub(super) device: Option<DeviceId>,
    /// Only this module, of the device or of all devices.
    pub(super) module: Option<ModuleId>,
    /// How many times; until it is cleared if absent.
    pub(super) times: Option<NonZeroU32>,
    /// How likely it strikes when it could; always if absent.
    pub(super) probability: Option<Probability>,
    /// How long after it was asked for it begins.
    pub(super) after: Duration,
    /// How long it is in force from then on; until it is cleared if absent.
    pub(super) lasts: Option<Duration>,
    /// What goes wrong.
    pub(super) fault: Fault,
}

/// A rule as people write it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<DeviceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    module: Option<ModuleId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probability: Option<Probability>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after_millis: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    for_millis: Option<u64>,
    fault: Fault,
}

/// A rule that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Contradiction {
    #[error(
        "this fault is the whole hub's and happens once: device, module, times, probability and for_millis have no meaning"
    )]
    WholeHub,
    #[error("this fault happens once: for_millis has no meaning")]
    Once,
    #[error("after_millis and for_millis are at most {MOST_MILLIS}, a year")]
    TooLong,
}

/// When a fault does its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    /// Once, for the whole hub.
    OnceForAll,
    /// Once, for each connection that is up.
    Once,
    /// Once for each connection that is up, and then whenever something happens that it is about.
    OnceAndThen,
    /// Whenever something happens that it is about.
    Whenever,
}

impl Fault {
    pub(super) const fn moment(&self) -> Moment {
        match self {
            Self::JumpClock { .. } | Self::FailOver {} => Moment::OnceForAll,
            Self::DropConnection {} | Self::FreezeConnection { .. } | Self::ExpireTokens {} => {
                Moment::Once
            }
            Self::Unreachable {} => Moment::OnceAndThen,
            Self::RefuseConnect { .. }
            | Self::LoseSession {}
            | Self::HoldMessages { .. }
            | Self::IgnoreUnsubscribe {}
            | Self::SwallowPuback {}
            | Self::DelayPuback { .. }
            | Self::DuplicatePuback {}
            | Self::CloseOnPayload { .. }
            | Self::Throttle { .. }
            | Self::IgnoreTwinRequests {}
            | Self::FailTwinRequests { .. }
            | Self::DelayTwinRequests { .. }
            | Self::SwallowMethodAnswer {}
            | Self::DelayMethodAnswer { .. }
            | Self::FailRequests { .. }
            | Self::DelayRequests { .. }
            | Self::DropRequests { .. } => Moment::Whenever,
        }
    }
}

impl FaultRule {
    pub(super) fn is_for(&self, device: Option<&DeviceId>, module: Option<&ModuleId>) -> bool {
        self.device.as_ref().is_none_or(|id| Some(id) == device)
            && self.module.as_ref().is_none_or(|id| Some(id) == module)
    }
}

impl TryFrom<Written> for FaultRule {
    type Error = Contradiction;

    fn try_from(written: Written) -> Result<Self, Contradiction> {
        let Written {
            device,
            module,
            times,
            probability,
            after_millis,
            for_millis,
            fault,
        } = written;
        let is_narrowed =
            device.is_some() || module.is_some() || times.is_some() || probability.is_some();
        match fault.moment() {
            Moment::OnceForAll if is_narrowed || for_millis.is_some() => {
                return Err(Contradiction::WholeHub);
            }
            Moment::Once if for_millis.is_some() => return Err(Contradiction::Once),
            Moment::OnceForAll | Moment::Once | Moment::OnceAndThen | Moment::Whenever => {}
        }
        if [after_millis, for_millis]
            .iter()
            .flatten()
            .any(|millis| *millis > MOST_MILLIS)
        {
            return Err(Contradiction::TooLong);
        }
        Ok(Self {
            device,
            module,
            times,
            probability,
            after: Duration::from_millis(after_millis.unwrap_or(0)),
            lasts: for_millis.map(Duration::from_millis),
            fault,
        })
    }
}

impl From<FaultRule> for Written {
    fn from(rule: FaultRule) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            device: rule.device,
            module: rule.module,
            times: rule.times,
            probability: rule.probability,
            after_millis: Some(millis(rule.after)).filter(|millis| *millis > 0),
            for_millis: rule.lasts.map(millis),
            fault: rule.fault,
        }
    }
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

impl ConnectRefusal {
    pub(super) const fn to_return_code(self) -> ConnectReturnCode {
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

/// A status that is an error: 400 to 599.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct ErrorStatus(u16);

impl TryFrom<u16> for ErrorStatus {
    type Error = &'static str;

    fn try_from(status: u16) -> Result<Self, &'static str> {
        if (400..=599).contains(&status) {
            Ok(Self(status))
        } else {
            Err("status is 400 to 599")
        }
    }
}

impl From<ErrorStatus> for u16 {
    fn from(status: ErrorStatus) -> Self {
        status.0
    }
}

/// How likely: over 0, at most 1.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Probability(f64);

/// Never not-a-number.
impl Eq for Probability {}

impl TryFrom<f64> for Probability {
    type Error = &'static str;

    fn try_from(value: f64) -> Result<Self, &'static str> {
        if value > 0.0 && value <= 1.0 {
            Ok(Self(value))
        } else {
            Err("probability is over 0 and at most 1")
        }
    }
}

impl From<Probability> for f64 {
    fn from(probability: Probability) -> Self {
        probability.0
    }
}

/// Bytes to look for: `{"text": "..."}`, or `{"base64": "..."}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "WrittenPattern", into = "WrittenPattern")]
pub struct Pattern(Vec<u8>);

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenPattern {
    Text(String),
    Base64(String),
}

impl Pattern {
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        bytes.windows(self.0.len()).any(|window| window == self.0)
    }
}

impl TryFrom<WrittenPattern> for Pattern {
    type Error = &'static str;

    fn try_from(written: WrittenPattern) -> Result<Self, &'static str> {
        let bytes = match written {
            WrittenPattern::Text(text) => text.into_bytes(),
            WrittenPattern::Base64(text) => BASE64
                .decode(text)
                .map_err(|_| "the pattern is no base64")?,
        };
        if (1..=PATTERN_BYTES).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err("a pattern has 1 to 256 bytes")
        }
    }
}

impl From<Pattern> for WrittenPattern {
    fn from(pattern: Pattern) -> Self {
        String::from_utf8(pattern.0).map_or_else(
            |error| Self::Base64(BASE64.encode(error.as_bytes())),
            Self::Text,
        )
    }
}

const fn an_hour() -> u64 {
    3_600_000
}

/// As long as requests were seen to wait at most (250 reads of the registry in 10 s on a live hub of the free tier).
const fn three_seconds() -> u64 {
    3000
}

/// Bound on the bytes that every payload is searched for.
const PATTERN_BYTES: usize = 256;
/// Bound on the times of a rule, so that no sum of them leaves the range of a clock.
const MOST_MILLIS: u64 = 366 * 24 * 3_600_000;
