//! Real gateway, real emulator, real sockets: one file per feature.

#![expect(clippy::unwrap_used, reason = "what is not expected ends the test")]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's tasks end with its runtime"
)]

mod bad_input;
mod cloud_messages;
mod inbox;
mod methods;
mod outage;
mod pass_through;
mod sessions;
mod side_by_side;
mod telemetry;
mod twin;
