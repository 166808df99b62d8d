//! An IoT Hub for development, with the real one's rules.
//!
//! Two layers. [`hub::Hub`] is the hub as a state machine without socket or clock, fit for simulations; its documentation
//! says how it is run. [`Emulator`] puts sockets around it:
//!
//! - **MQTT** for devices and modules, over TLS and over WebSocket: any SDK or MQTT client, with their key or
//!   certificate
//! - **HTTPS** for devices that speak nothing else: telemetry, cloud-to-device messages under a lock, and file upload with a
//!   storage of its own
//! - **HTTPS** for the cloud side: the hub's service REST API (devices, modules, twins, methods, statistics), and beside it
//!   `/emulator/...` for what a real hub does over AMQP (sending cloud-to-device messages, reading telemetry and feedback)
//!   and for faults on request
//!
//! [`provisioning`] is a Device Provisioning Service that assigns devices to such hubs.
//!
//! State lives in memory, and in a file from one start to the next if the configuration names one. The caller brings the
//! certificate: the emulator has no CA of its own.

mod config;
mod emulator;
mod fault_file;
mod http;
pub mod hub;
mod life;
mod listen;
mod mqtt;
mod packet;
pub mod provisioning;
mod shell;
mod state;
mod tls;
mod websocket;
mod wiring;
mod x509;

pub use config::{Config, Limits, Tls};
pub use emulator::{Emulator, HubHandle, ShutdownError, ShutdownTimeout, StartError};
pub use fault_file::{FaultFileError, FaultFormat, parse_faults};
pub use state::StateError;
pub use x509::{
    Authorities, Authority, AuthorityError, AuthorityInfo, CertificateError, InvalidThumbprint,
    Peer, Thumbprint,
};
