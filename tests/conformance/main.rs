//! Foreign software as the judge: gateway and emulator share their vocabulary, so both could be wrong together.
//!
//! - `session_on_a_broker`: the session core against a stock mosquitto
//! - `clients_of_the_emulator`: mosquitto's clients against the emulator
//!
//! Plain `cargo test` needs nothing else installed, so it leaves these out: `./test conformance` runs them.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

mod broker;
mod clients_of_the_emulator;
mod driver;
mod session_on_a_broker;

use std::{
    process::{Command, Output},
    time::Duration,
};

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
