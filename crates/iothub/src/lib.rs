//! The words of Azure IoT Hub.
//!
//! Pure values and functions: no MQTT packets, no HTTP, no clock, no files. Both halves of the gateway and the
//! emulator speak with these types, so the judge of this crate is foreign: golden vectors in `tests/golden`
//! come from Microsoft's documentation and from captures of Microsoft's own SDKs, never from our encoder.
//!
//! - [`Identity`], [`HubName`], [`DeviceId`], [`ModuleId`]: who speaks, at which hub
//! - [`PropertyBag`]: the key-values at the end of a topic
//! - [`Telemetry`], [`CloudMessage`]: a message up, a message down
//! - [`MethodRequest`], [`MethodResponse`]: a direct method and its answer
//! - [`twin`]: the twin document, its versions and its rules
//! - [`topic`]: every MQTT topic that IoT Hub knows, built and parsed
//! - [`sas`]: shared access signatures
//! - [`connect`]: client id and username of an MQTT CONNECT
//! - [`HubError`]: the hub's error codes and the JSON body that carries them
//! - [`limits`]: the numbers

mod bag;
pub mod connect;
mod error;
mod ids;
pub mod limits;
mod message;
mod method;
pub mod sas;
mod timestamp;
pub mod topic;
pub mod twin;

pub use bag::{ParseBagError, PropertyBag};
pub use error::{ErrorCode, HubError};
pub use ids::{
    DeviceId, DigestHasher, HubName, Identity, IdentityMap, InvalidHubName, InvalidId, ModuleId,
};
pub use message::{AckRequest, CloudMessage, Properties, SystemProperties, Telemetry};
pub use method::{InvalidMethodName, MethodName, MethodRequest, MethodResponse};
pub use timestamp::Timestamp;
