//! A Device Provisioning Service beside the hubs: it tells devices which hub is theirs, and makes them known there.
//!
//! Two layers, like the hub's: [`service`] is the service as a state machine, [`Provisioning`] puts sockets around it:
//!
//! - **MQTT** for devices, over TLS and over WebSocket at any path, because the SDKs do not agree on one
//! - **HTTPS** for devices that speak nothing else
//! - **HTTPS** for operators: the service's REST API (enrollments, groups, registrations)
//!
//! The hubs are [`Emulator`](crate::Emulator)s of the same process; the service reaches them by their
//! [`HubHandle`](crate::HubHandle)s alone, from outside as any operator would.

mod http;
mod hubs;
mod server;
pub mod service;

pub use server::{Config, Provisioning};
