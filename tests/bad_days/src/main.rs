//! Bad days of the real program, and whether it has kept its promises.
//!
//! ```text
//!    devices ──HTTPS──►  tombolo serve  ──MQTT──►  tombolo emulator  ──►  what the cloud sees
//!       │                     ▲                                               │
//!       │            kill, disk, clock                                        │
//!       └──────────────► history.jsonl ◄──────────────────────────────────────┘
//!                             │
//!                          checker ──► counts, and what must not be
//! ```
//!
//! A *scenario* starts both programs in a folder, lets devices and cloud work ([`workload`]), makes trouble, waits until all is
//! settled that can be, and has the [`checker`] judge the [`history`], which it reads from the file like anybody else
//! (`tombolo-bad-days judge FILE`). Everything stays on loopback, is bounded in time, and ends with this process: children
//! are killed when it drops them, and by the kernel should it die first ([`process::leash`]).

mod checker;
mod day;
mod device;
mod history;
mod hub;
mod options;
mod process;
mod rig;
mod scenarios;
mod strace;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::options::{Arguments, Role};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match play(arguments.role) {
        Ok(code) => code,
        Err(error) => {
            options::say(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn play(role: Role) -> Result<ExitCode> {
    match role {
        Role::Run(plan) => {
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            // Nobody else in this process has chosen one.
            let _ = provider.install_default();
            let runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = { runtime }.enable_all().build()?;
            runtime.block_on(scenarios::run(&plan))
        }
        Role::Judge { history } => {
            let verdict = checker::judge(history::read(&history)?)?;
            options::say(&serde_json::to_string_pretty(&verdict.counts)?);
            Ok(options::say_violations(&verdict.violations))
        }
        Role::Leashed { command } => process::leash(&command).map(|()| ExitCode::SUCCESS),
    }
}
