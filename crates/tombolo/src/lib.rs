//! An HTTPS gateway to Azure IoT Hub for devices that speak nothing else.
//!
//! This crate is the composition root: it reads what was asked ([`cli`]) and how ([`config`]), hands the store to both
//! halves of the gateway ([`gateway`]), waits, and stops in order. It decides nothing about requests or messages.
//!
//! # A telemetry message goes up
//!
//! 1. [`front`] accepts the connection, finds out who is speaking, and makes an [`iothub::Telemetry`] of headers and body.
//! 2. Its verb checks size and quota and submits an entry to the [`store::Outbox`]; it holds a [`store::Ticket`].
//! 3. The task in [`upstream`] that owns the device's session takes the entry and publishes it.
//! 4. The session makes bytes of it. The hub's PUBACK comes back as bytes, and becomes an event.
//! 5. [`upstream`] settles the entry, the ticket resolves, and the request is answered 204.
//!
//! # A cloud-to-device message comes down
//!
//! 1. Bytes from the hub become a message with a receipt; [`upstream`] appends it to the [`store::Inbox`].
//! 2. Whoever watches the device wakes up: a long-poll of [`front`], or the next `GET`. Reading never consumes.
//! 3. The device completes, abandons or rejects the message. The settlement goes back through the inbox, and the session
//!    lets the PUBACK go, in the order of arrival: that is what tells the hub.

pub mod cli;
pub mod config;
#[cfg(feature = "emulator")]
mod curl;
pub mod data_folder;
#[cfg(feature = "emulator")]
mod dev;
#[cfg(feature = "emulator")]
pub mod development_ca;
mod gateway;
mod http_client;
#[cfg(feature = "emulator")]
mod hub_behaviour;
pub mod listen;
#[cfg(feature = "emulator")]
mod local_hub;
pub mod logs;
mod metrics;
mod serve;
mod stop;
mod store_folder;
mod token;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cli::{Cli, Command};
use crate::config::Mistakes;

/// Does what the command line asks, to the end.
pub fn run(cli: Cli) -> ExitCode {
    let Err(error) = carry_out(cli.command) else {
        return ExitCode::SUCCESS;
    };
    // Nobody to tell if standard error is gone.
    let _ = writeln!(std::io::stderr(), "tombolo: {error:#}");
    if error.is::<Mistakes>() {
        ExitCode::from(MISUSED)
    } else {
        ExitCode::FAILURE
    }
}

fn carry_out(command: Command) -> Result<()> {
    // Both ways to say which cryptography rustls uses lead to this one; a second call would change nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match command {
        #[cfg(feature = "emulator")]
        Command::Dev(args) => to_the_end(dev::run(args)),
        #[cfg(feature = "emulator")]
        Command::Emulator(args) => to_the_end(local_hub::run(args)),
        Command::Serve(args) => match serve::prepare(args)? {
            Some(config) => to_the_end(serve::run(config)),
            None => Ok(()),
        },
        Command::Token(args) => to_the_end(token::run(args)),
        Command::Store(args) => store_folder::run(args),
    }
}

fn to_the_end(task: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let result = runtime.block_on(task);
    // A name look-up can hang in a thread that nobody can stop; what had to end in order has ended.
    runtime.shutdown_background();
    result
}

/// The exit code for a command line or a configuration that is wrong; clap uses the same.
const MISUSED: u8 = 2;
