//! An IoT Hub for development, with the real one's rules.
//!
//! Two layers. [`hub::Hub`] is the hub as a state machine without socket or clock, fit for simulations; its documentation
//! says how it is run. [`Emulator`] puts sockets around it:
//!
//! - **MQTT over TLS** for devices and modules: any SDK or MQTT client, with their key
//! - **HTTPS** for devices that speak nothing else: telemetry, and cloud-to-device messages under a lock
//! - **HTTPS** for the cloud side: the hub's service REST API (devices, modules, twins, methods, statistics), and beside it
//!   `/emulator/...` for what a real hub does over AMQP (sending cloud-to-device messages, reading telemetry and feedback)
//!   and for faults on request
//!
//! State lives in memory. The caller brings the certificate: the emulator has no CA of its own.

mod config;
mod emulator;
mod http;
pub mod hub;
mod listen;
mod mqtt;
mod shell;

pub use config::{Config, Limits, Tls};
pub use emulator::{Emulator, ShutdownTimeout, StartError};
