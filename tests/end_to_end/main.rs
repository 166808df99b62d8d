//! Real gateway, real emulator, real sockets: one file per feature.

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
