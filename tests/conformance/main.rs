//! Foreign software as the judge: gateway and emulator share their vocabulary, so both could be wrong together.
//!
//! - `session_on_a_broker`: the session core against a stock mosquitto
//! - `clients_of_the_emulator`: mosquitto's clients against the emulator
//!
//! Plain `cargo test` needs nothing else installed, so these run with `TOMBOLO_CONFORMANCE=1` only: `./test conformance`.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

mod broker;
mod clients_of_the_emulator;
mod driver;
mod session_on_a_broker;

use std::{
    process::{Command, Output},
    time::Duration,
};

/// Whether these tests are asked for.
#[expect(
    clippy::print_stderr,
    reason = "who reads a test's output learns that nothing was tested"
)]
fn is_asked_for() -> bool {
    let is_asked_for = std::env::var_os("TOMBOLO_CONFORMANCE").is_some();
    if !is_asked_for {
        eprintln!("skipped: ./test conformance runs this");
    }
    is_asked_for
}

/// Runs one of mosquitto's clients to its end.
fn run(client: &mut Command) -> Output {
    let name = client.get_program().to_owned();
    client
        .output()
        .unwrap_or_else(|error| panic!("{name:?} could not be started: {error}"))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Time for anything that should happen at once.
const BOUND: Duration = Duration::from_secs(20);
