//! The program; everything it does is in the library beside it.

use std::process::ExitCode;

// Sessions and entries are many and small.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let _ = <tombolo::cli::Cli as clap::Parser>::parse();
    ExitCode::SUCCESS
}
