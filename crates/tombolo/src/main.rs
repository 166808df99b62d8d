//! The program; everything it does is in the library beside it.

use std::process::ExitCode;

use clap::Parser as _;
use tombolo::cli::Cli;

// Sessions and entries are many and small.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tombolo::run(Cli::parse())
}
