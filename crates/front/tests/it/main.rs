//! The front as devices and operators see it: real sockets, the memory engine, and a hub side that knows nothing but the
//! store's contract.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where by panicking"
)]

mod admin;
mod bad_input;
mod batches;
mod copies;
mod dead_letters;
mod defects;
mod hostile;
mod hub;
mod idempotency;
mod inbox;
mod limits;
mod messages;
mod methods;
mod modules;
mod rig;
mod routes;
mod shutdown;
mod signatures;
mod stored;
mod sync;
mod telemetry;
mod tokens;
mod twin;
