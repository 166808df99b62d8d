//! The emulator as its users see it: real sockets, real TLS, a device on one side and the cloud on the other.
#![expect(clippy::unwrap_used, reason = "a test's way to fail")]

mod bulk;
mod device_api;
mod doors;
mod failover;
mod feedback;
mod files;
mod jobs;
mod limits;
mod provisioning;
mod query;
mod rig;
mod robustness;
mod roundtrip;
mod service;
mod state;
mod telemetry;
mod trouble;
mod websocket;
mod x509;
