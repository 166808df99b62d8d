//! The program as its users start it.
#![cfg(feature = "emulator")]
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

mod custody;
mod dev;
mod emulator;
mod limits;
mod lines;
mod program;
mod provisioning;
mod serve;
mod store;
mod token;
