//! The command line, and what is said there.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    ops::Range,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::checker::Violation;

/// Bad days of the real program, and whether it has kept its promises.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  cargo build -p tombolo && cargo run -p tombolo-bad-days -- run\n  \
                  cargo run -p tombolo-bad-days -- run kill --rounds 10 --seed 7 --keep /tmp/history\n  \
                  cargo run -p tombolo-bad-days -- judge /tmp/history/kill-0/history.jsonl"
)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) role: Role,
}

/// What this process does.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Let bad days happen and judge them
    Run(Plan),
    /// Judge a history
    Judge {
        /// The file
        history: PathBuf,
    },
    /// Becomes another program that ends when this one does.
    #[command(hide = true)]
    Leashed {
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Which days, and how long.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Only these; all of them if none is named
    pub(crate) scenarios: Vec<Scenario>,
    /// The long form of each
    #[arg(long, env = "TOMBOLO_LONG", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) long: bool,
    /// What happens at random comes from this
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Rounds of each, or seconds where the hub is away, in place of its own number
    #[arg(long)]
    pub(crate) rounds: Option<u32>,
    /// How long a life is that a kill ends, in milliseconds, as FROM-TO
    #[arg(long, value_name = "FROM-TO", value_parser = life)]
    pub(crate) life: Option<Life>,
    /// The program
    #[arg(long, env = "TOMBOLO", default_value = "target/debug/tombolo")]
    pub(crate) program: PathBuf,
    /// Keep histories and logs in this folder; otherwise those of a day that went wrong are kept in a temporary one
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
}

/// Milliseconds, of which each life takes some.
#[derive(Clone, Debug)]
pub(crate) struct Life(pub(crate) Range<u64>);

fn life(text: &str) -> Result<Life, String> {
    let (from, to) = text.split_once('-').ok_or("two numbers, as 50-1500")?;
    let number = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
    let life: Range<u64> = number(from)?..number(to)?;
    if life.is_empty() {
        return Err("the first number is the smaller one".to_owned());
    }
    Ok(Life(life))
}

/// A kind of bad day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Scenario {
    /// Nothing goes wrong: everything arrives once
    Quiet,
    /// The gateway is killed again and again
    Kill,
    /// The hub is away for a time
    HubAway,
    /// The hub stands still for a time: its connections stay, and nothing moves
    HubStandsStill,
    /// The hub closes the connection on a message, whatever life of the gateway sends it
    Poison,
    /// A flush fails, then another one
    FlushFails,
    /// The disk is full
    DiskFull,
    /// The disk becomes read-only
    ReadOnly,
    /// A flush takes long
    SlowDisk,
    /// Files of the store are damaged between two lives
    Damage,
    /// The wall clock jumps
    Clock,
}

impl Scenario {
    /// Its name, as it is typed.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Says something to whoever has started this.
pub(crate) fn say(text: &str) {
    // Whoever has closed the pipe does not want to hear it.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Names what must not be, some of each kind.
pub(crate) fn say_violations(violations: &[Violation]) -> ExitCode {
    let mut last = None;
    let mut said = 0;
    for violation in violations {
        if last != Some(violation.rule) {
            (last, said) = (Some(violation.rule), 0);
            let of_it = violations
                .iter()
                .filter(|other| other.rule == violation.rule);
            say(&format!("{:?}: {}", violation.rule, of_it.count()));
        }
        said += 1;
        if said <= SAID_OF_EACH {
            say(&format!("  {}", violation.of));
        }
    }
    if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

const SAID_OF_EACH: usize = 10;
