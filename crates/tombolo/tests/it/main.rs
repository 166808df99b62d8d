//! The program as its users start it.
#![cfg(feature = "emulator")]
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

mod admin_lines;
mod custody;
mod damage;
mod dev;
mod emulator;
mod limits;
mod lines;
mod metrics;
mod program;
mod provisioning;
mod serve;
mod served;
mod signals;
mod store;
mod token;
