//! One device's MQTT session with IoT Hub, as a state machine without IO.
//!
//! [`Session`] connects, subscribes, publishes, answers and reconnects; whoever drives it owns the sockets, the
//! clock and the work. It opens no socket, starts no task, reads no clock and has no random numbers of its own, so a
//! whole life of a session can be played in a test within microseconds.
//!
//! - [`Session`]: the contract, and everything that can be asked of a session
//! - [`Config`]: times, windows, back-off; one for all sessions with the same policy
//! - [`Event`]: what a session reports, and what it asks its driver to do
//! - [`Subscriptions`]: what should come down
//! - [`WorkId`]: what should go up, in three lanes, each with its own window
//!
//! # What is kept, and for how long
//!
//! | | lives as long as |
//! | --- | --- |
//! | telemetry in flight | the session: it is published again, in order, on the next connection |
//! | a twin request | the session: it is asked again |
//! | the answer to a direct method | its connection: the hub counts its requests per connection |
//! | a receipt for a cloud-to-device message | its connection: the hub delivers again what was not acknowledged |
//!
//! # Which part of the MQTT library is used
//!
//! Packets are built, framed and parsed by `mqtt-protocol-core`. Its connection object is left aside on purpose: it
//! stores every publish a second time, and at "session present" it sends what it stored by itself, a method answer
//! included, which would then reach the hub under another connection's request id.

mod backoff;
mod config;
mod event;
mod lasting;
mod online;
mod session;
mod state;
mod telemetry;
mod twin;
mod wire;

pub use backoff::Backoff;
pub use config::Config;
pub use event::{
    ConnectionEpoch, Event, LossReason, MethodRequestId, NotTaken, Receipt, RefusalReason,
    StaleReceipt, TwinError, WorkId,
};
pub use online::Subscriptions;
pub use session::{Credentials, Room, Session};
pub use wire::Violation;
