//! The sessions of a node as their two neighbours see them: the store on one side, the hub's socket on the other.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a helper that cannot go on fails its test"
)]

extern crate tombolo_upstream as upstream;

mod hub;
mod key_rotation;
mod rig;

mod backlog;
mod checked;
mod connection;
mod desired;
mod messages;
mod methods;
mod pass_through;
mod storm;
mod telemetry;
mod time;
