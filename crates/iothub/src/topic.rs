//! Every MQTT topic that IoT Hub knows, built and parsed.
//!
//! [`ToHub`] is what a device publishes, [`ToDevice`] what the hub publishes, [`Filter`] what may be subscribed.
//! A topic outside these lists makes the hub close the connection, so parsing has no "other" case.

use std::fmt::Write as _;

use crate::{
    DeviceId, Identity, MethodName, ModuleId, ParseBagError, PropertyBag, limits, twin::TwinVersion,
};

/// A topic that a device publishes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToHub {
    /// `devices/{device}[/modules/{module}]/messages/events/{bag}`
    Telemetry {
        /// The device in the topic; the hub compares it with the session's.
        device: DeviceId,
        /// The module in the topic.
        module: Option<ModuleId>,
        /// System and application properties.
        bag: PropertyBag,
    },
    /// `$iothub/twin/GET/?$rid={rid}`
    TwinGet {
        /// Comes back in the answer.
        rid: RequestId,
    },
    /// `$iothub/twin/PATCH/properties/reported/?$rid={rid}`
    TwinPatchReported {
        /// Comes back in the answer.
        rid: RequestId,
    },
    /// `$iothub/methods/res/{status}/?$rid={rid}`
    MethodResponse {
        /// The device's number.
        status: i32,
        /// The request's own id, unchanged.
        rid: RequestId,
    },
}

/// A topic that the hub publishes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToDevice {
    /// `devices/{device}/messages/devicebound/{bag}`
    CloudMessage {
        /// The device that the message is for.
        device: DeviceId,
        /// System and application properties.
        bag: PropertyBag,
    },
    /// `$iothub/twin/res/{status}/?$rid={rid}[&$version={version}]`
    TwinResponse {
        /// HTTP's meaning: 200, 204, 4xx, 5xx.
        status: u16,
        /// The request's.
        rid: RequestId,
        /// The new version of the reported properties, with status 204.
        version: Option<TwinVersion>,
    },
    /// `$iothub/twin/PATCH/properties/desired/?$version={version}`
    DesiredPatch {
        /// The version that the patch leads to.
        version: Option<TwinVersion>,
    },
    /// `$iothub/methods/POST/{name}/?$rid={rid}`
    MethodRequest {
        /// Which method.
        name: MethodName,
        /// To be echoed.
        rid: RequestId,
    },
}

/// What a session may subscribe to.
#[derive(Clone, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Filter {
    /// `devices/{device}/messages/devicebound/#`, also with `+` for the device (Embedded C).
    CloudMessages,
    /// `$iothub/twin/res/#`
    TwinResponses,
    /// `$iothub/twin/PATCH/properties/desired/#`
    DesiredPatches,
    /// `$iothub/methods/POST/#`
    Methods,
    /// `$iothub/methods/POST/{name}/#`
    Method(MethodName),
    /// `devices/{device}/modules/{module}/#` and what stands below it: inputs of an Edge module. A hub delivers
    /// nothing on it.
    ModuleInputs,
}

/// The `$rid` of a request: opaque, echoed unchanged.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RequestId(Box<str>);

/// Why a text is no topic of IoT Hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTopicError {
    /// No topic that IoT Hub knows.
    #[error("IoT Hub knows no such topic")]
    Unknown,
    /// The property bag.
    #[error("property bag of the topic")]
    Bag(#[source] ParseBagError),
    /// No `$rid`, an empty one, or one longer than 64 characters.
    #[error("the topic needs a $rid of 1 to 64 characters")]
    RequestId,
    /// A status, version, id or name that breaks its own rule.
    #[error("the topic has a bad {0}")]
    Part(&'static str),
}

impl RequestId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks that the text fits into a topic: 1 to 64 visible characters, none of `&`, `/`, `+`, `#`.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn new(text: &str) -> Result<Self, ParseTopicError> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'&' | b'/' | b'+' | b'#'));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(ParseTopicError::RequestId)
        }
    }
}

impl From<u64> for RequestId {
    /// The lower-case hexadecimal form, as the hub counts its method requests.
    fn from(number: u64) -> Self {
        Self(format!("{number:x}").into())
    }
}

impl ToHub {
    /// The telemetry topic of an identity.
    #[must_use]
    pub fn telemetry(identity: &Identity, bag: PropertyBag) -> Self {
        Self::Telemetry {
            device: identity.device_id().clone(),
            module: identity.module_id().cloned(),
            bag,
        }
    }

    /// The wire form. May be longer than [`limits::TOPIC_BYTES`]; who publishes checks that.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Telemetry {
                device,
                module,
                bag,
            } => {
                let mut topic = String::with_capacity(64);
                push(&mut topic, format_args!("devices/{device}/"));
                if let Some(module) = module {
                    push(&mut topic, format_args!("modules/{module}/"));
                }
                topic.push_str("messages/events/");
                bag.encode_onto(&mut topic);
                topic
            }
            Self::TwinGet { rid } => format!("{TWIN_GET}?$rid={}", rid.0),
            Self::TwinPatchReported { rid } => format!("{TWIN_PATCH_REPORTED}?$rid={}", rid.0),
            Self::MethodResponse { status, rid } => {
                format!("{METHOD_RESPONSE}{status}/?$rid={}", rid.0)
            }
        }
    }

    /// Reads the wire form in the spellings of Microsoft's SDKs: the telemetry topic with or without its last slash,
    /// and with one behind the bag (Node module outputs, Java modules).
    ///
    /// # Errors
    ///
    /// The hub would close the connection.
    pub fn parse(topic: &str) -> Result<Self, ParseTopicError> {
        if let Some(rest) = topic.strip_prefix("devices/") {
            let (device, rest) = rest.split_once('/').ok_or(ParseTopicError::Unknown)?;
            let device = device
                .parse()
                .map_err(|_| ParseTopicError::Part("device id"))?;
            let (module, rest) = match rest.strip_prefix("modules/") {
                None => (None, rest),
                Some(rest) => {
                    let (module, rest) = rest.split_once('/').ok_or(ParseTopicError::Unknown)?;
                    (
                        Some(
                            module
                                .parse()
                                .map_err(|_| ParseTopicError::Part("module id"))?,
                        ),
                        rest,
                    )
                }
            };
            let bag = match rest.strip_prefix("messages/events") {
                Some("") => "",
                Some(rest) => rest.strip_prefix('/').ok_or(ParseTopicError::Unknown)?,
                None => return Err(ParseTopicError::Unknown),
            };
            let bag = bag.strip_suffix('/').unwrap_or(bag);
            let bag = PropertyBag::parse(bag.strip_prefix('?').unwrap_or(bag))
                .map_err(ParseTopicError::Bag)?;
            return Ok(Self::Telemetry {
                device,
                module,
                bag,
            });
        }
        if let Some(query) = topic.strip_prefix(TWIN_GET) {
            return Ok(Self::TwinGet {
                rid: Query::parse(query)?.rid()?,
            });
        }
        if let Some(query) = topic.strip_prefix(TWIN_PATCH_REPORTED) {
            return Ok(Self::TwinPatchReported {
                rid: Query::parse(query)?.rid()?,
            });
        }
        if let Some(rest) = topic.strip_prefix(METHOD_RESPONSE) {
            let (status, query) = rest.split_once('/').ok_or(ParseTopicError::Unknown)?;
            let status = status
                .parse()
                .map_err(|_| ParseTopicError::Part("status"))?;
            return Ok(Self::MethodResponse {
                status,
                rid: Query::parse(query)?.rid()?,
            });
        }
        Err(ParseTopicError::Unknown)
    }
}

impl ToDevice {
    /// The wire form. `$rid` comes first, because the C SDK reads it at the start of the query.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::CloudMessage { device, bag } => {
                let mut topic = format!("devices/{device}/messages/devicebound/");
                bag.encode_onto(&mut topic);
                topic
            }
            Self::TwinResponse {
                status,
                rid,
                version,
            } => {
                let mut topic = format!("{TWIN_RESPONSE}{status}/?$rid={}", rid.0);
                if let Some(version) = version {
                    push(&mut topic, format_args!("&$version={}", version.0));
                }
                topic
            }
            Self::DesiredPatch { version } => {
                let mut topic = format!("{DESIRED_PATCH}?");
                if let Some(version) = version {
                    push(&mut topic, format_args!("$version={}", version.0));
                }
                topic
            }
            Self::MethodRequest { name, rid } => format!("{METHOD_REQUEST}{name}/?$rid={}", rid.0),
        }
    }

    /// Reads the wire form.
    ///
    /// # Errors
    ///
    /// The hub has never been seen to publish to such a topic.
    pub fn parse(topic: &str) -> Result<Self, ParseTopicError> {
        if let Some(rest) = topic.strip_prefix("devices/") {
            let (device, bag) = rest
                .split_once("/messages/devicebound")
                .ok_or(ParseTopicError::Unknown)?;
            let device = device
                .parse()
                .map_err(|_| ParseTopicError::Part("device id"))?;
            let bag = match bag.strip_prefix('/') {
                Some(bag) => PropertyBag::parse(bag).map_err(ParseTopicError::Bag)?,
                None if bag.is_empty() => PropertyBag::new(),
                None => return Err(ParseTopicError::Unknown),
            };
            return Ok(Self::CloudMessage { device, bag });
        }
        if let Some(rest) = topic.strip_prefix(TWIN_RESPONSE) {
            let (status, query) = rest.split_once('/').ok_or(ParseTopicError::Unknown)?;
            let status = status
                .parse()
                .map_err(|_| ParseTopicError::Part("status"))?;
            let query = Query::parse(query)?;
            return Ok(Self::TwinResponse {
                status,
                rid: query.rid()?,
                version: query.version()?,
            });
        }
        if let Some(query) = topic.strip_prefix(DESIRED_PATCH) {
            return Ok(Self::DesiredPatch {
                version: Query::parse(query)?.version()?,
            });
        }
        if let Some(rest) = topic.strip_prefix(METHOD_REQUEST) {
            let (name, query) = rest.split_once('/').ok_or(ParseTopicError::Unknown)?;
            let name = name
                .parse()
                .map_err(|_| ParseTopicError::Part("method name"))?;
            return Ok(Self::MethodRequest {
                name,
                rid: Query::parse(query)?.rid()?,
            });
        }
        Err(ParseTopicError::Unknown)
    }
}

impl Filter {
    /// The wire form for an identity.
    #[must_use]
    pub fn encode(&self, identity: &Identity) -> String {
        match self {
            Self::CloudMessages => {
                format!("devices/{}/messages/devicebound/#", identity.device_id())
            }
            Self::TwinResponses => format!("{TWIN_RESPONSE}#"),
            Self::DesiredPatches => format!("{DESIRED_PATCH}#"),
            Self::Methods => format!("{METHOD_REQUEST}#"),
            Self::Method(name) => format!("{METHOD_REQUEST}{name}/#"),
            Self::ModuleInputs => match identity.module_id() {
                Some(module) => format!("devices/{}/modules/{module}/#", identity.device_id()),
                None => format!("devices/{}/#", identity.device_id()),
            },
        }
    }

    /// Reads the wire form as a hub does that speaks with `identity`.
    ///
    /// # Errors
    ///
    /// The filter is not allowed; the hub closes the connection (azure-iot-middleware-freertos PR 89).
    pub fn parse(text: &str, identity: &Identity) -> Result<Self, ParseTopicError> {
        if let Some(rest) = text.strip_prefix("devices/") {
            let (device, rest) = rest.split_once('/').ok_or(ParseTopicError::Unknown)?;
            if device != "+" && device != identity.device_id().as_str() {
                return Err(ParseTopicError::Unknown);
            }
            return match identity.module_id() {
                None if rest == "messages/devicebound/#" => Ok(Self::CloudMessages),
                None => Err(ParseTopicError::Unknown),
                Some(module) => {
                    let below = rest
                        .strip_prefix("modules/")
                        .and_then(|rest| rest.strip_prefix(module.as_str()));
                    match below {
                        Some("/#" | "/inputs/#" | "/messages/devicebound/#") => {
                            Ok(Self::ModuleInputs)
                        }
                        _ => Err(ParseTopicError::Unknown),
                    }
                }
            };
        }
        match text {
            "$iothub/twin/res/#" => Ok(Self::TwinResponses),
            "$iothub/twin/PATCH/properties/desired/#" => Ok(Self::DesiredPatches),
            "$iothub/methods/POST/#" => Ok(Self::Methods),
            _ => {
                let name = text
                    .strip_prefix(METHOD_REQUEST)
                    .and_then(|rest| rest.strip_suffix("/#"));
                let name = name.ok_or(ParseTopicError::Unknown)?;
                name.parse()
                    .map(Self::Method)
                    .map_err(|_| ParseTopicError::Part("method name"))
            }
        }
    }

    /// Whether a publish to `topic` goes to who subscribed to this.
    #[must_use]
    pub fn matches(&self, topic: &ToDevice) -> bool {
        match topic {
            ToDevice::CloudMessage { .. } => matches!(self, Self::CloudMessages),
            ToDevice::TwinResponse { .. } => matches!(self, Self::TwinResponses),
            ToDevice::DesiredPatch { .. } => matches!(self, Self::DesiredPatches),
            ToDevice::MethodRequest { name, .. } => match self {
                Self::Methods => true,
                Self::Method(wanted) => wanted == name,
                Self::CloudMessages
                | Self::TwinResponses
                | Self::DesiredPatches
                | Self::ModuleInputs => false,
            },
        }
    }
}

/// Whether a topic's wire form fits into an MQTT packet.
#[must_use]
pub const fn fits(topic: &str) -> bool {
    topic.len() <= limits::TOPIC_BYTES
}

/// The `?key=value&...` at the end of a `$iothub` topic. Values are not percent-decoded: `$rid` is echoed as it came.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn parse(text: &'a str) -> Result<Self, ParseTopicError> {
        text.strip_prefix('?')
            .map(Self)
            .ok_or(ParseTopicError::Unknown)
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(k, _)| *k == key)
            .map(|(_, value)| value)
    }

    fn rid(&self) -> Result<RequestId, ParseTopicError> {
        RequestId::new(self.get("$rid").ok_or(ParseTopicError::RequestId)?)
    }

    fn version(&self) -> Result<Option<TwinVersion>, ParseTopicError> {
        let number = self.get("$version").map(str::parse).transpose();
        number
            .map(|number| number.map(TwinVersion))
            .map_err(|_| ParseTopicError::Part("$version"))
    }
}

/// Writing to a `String` cannot fail.
fn push(topic: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = topic.write_fmt(text);
}

const TWIN_GET: &str = "$iothub/twin/GET/";
const TWIN_PATCH_REPORTED: &str = "$iothub/twin/PATCH/properties/reported/";
const TWIN_RESPONSE: &str = "$iothub/twin/res/";
const DESIRED_PATCH: &str = "$iothub/twin/PATCH/properties/desired/";
const METHOD_REQUEST: &str = "$iothub/methods/POST/";
const METHOD_RESPONSE: &str = "$iothub/methods/res/";
