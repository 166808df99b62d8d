//! The session as its driver sees it, against a hub that a test plays by hand.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "the helpers of tests fail as tests do, and look for one thing at a time"
)]

mod closing;
mod cloud_messages;
mod connecting;
mod direct_methods;
mod life;
mod liveness;
mod packets;
mod presence;
mod renewal;
mod rig;
mod splitting;
mod telemetry;
mod twin;
