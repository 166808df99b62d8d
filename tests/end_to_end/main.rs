//! Real gateway, real emulator, real sockets: one file per feature.

mod cloud_messages;
mod inbox;
mod methods;
mod outage;
mod sessions;
mod telemetry;
mod twin;
