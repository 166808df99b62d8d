//! The project's own benchmark.
//!
//! One program plays every part that is ours, each part in a process of its own:
//!
//! ```text
//!              HTTPS                      MQTT over TLS
//!   load  ───────────────►  peer  ───────────────────────►  hub
//!
//!   tombolo-bench load       tombolo serve                   mosquitto
//!                            tombolo-bench bare-proxy
//!                            node gateway.js
//! ```
//!
//! The emulator is measured as a hub, beside mosquitto, by devices of the load generator's own:
//!
//! ```text
//!                  MQTT over TLS
//!   devices  ───────────────────────►  hub
//!
//!   tombolo-bench devices               mosquitto
//!                                       tombolo emulator
//! ```
//!
//! The conductor (the program without a role) starts a hub and one peer, or a hub alone, has the load generator drive it, reads
//! what the processes used from `/proc`, stops everything and goes on with the next. A *trial* is one such pass.
//! Subjects are started afresh for every trial, and their order is rotated from round to round, so that none of them always
//! has the warm or the cold machine. What counts is the ratio of two peers within a round; absolute numbers say more
//! about the machine than about the program.
//!
//! - [`options`]: the command line · [`rows`]: the figures, their goals, which trial brings them
//! - [`rig`]: what all trials share · [`stage`]: one hub and one peer, running · [`trial`]: what is done with them
//! - [`load`]: the load generator · [`bare_proxy`]: the floor to compare with
//! - [`report`]: tables and JSON
//!
//! Everything stays on loopback, is bounded in time and in count, and ends with the conductor: children are killed when
//! it drops them, and by the kernel should it die first ([`process::leash`]).

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

use crate::options::{Arguments, Role};

mod bare_proxy;
mod fleet;
mod http_client;
mod load;
mod machine;
mod mqtt;
mod options;
mod process;
mod report;
mod rig;
mod rows;
mod stage;
mod tls;
mod trial;

// The gateway's allocator, for the bare proxy's sake.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.role {
        None => rig::conduct(&arguments.options()),
        Some(Role::Load { plan }) => load::drive_peer(&plan),
        Some(Role::Devices { plan }) => load::drive_hub(&plan),
        Some(Role::BareProxy { settings }) => bare_proxy::run(&settings),
        Some(Role::Leashed { command }) => process::leash(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}
