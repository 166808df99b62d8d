//! `tombolo store`: looks after the folder in which a gateway keeps what must survive.
//!
//! What was asked for goes to standard output, and what to know or to do about it to standard error, so that lines can be
//! handed on to other programs.

mod look;
mod replay;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use store::embedded::{self, Damage, Inspection, OpenError};

use crate::cli::{StoreArgs, StoreCommand};

/// Shows, counts, exports, replays, verifies or salvages what a folder has.
///
/// # Errors
///
/// When it can not be read, when it is damaged, and when something of it could not be replayed.
pub(crate) fn run(args: StoreArgs) -> Result<()> {
    let done = match args.command {
        StoreCommand::Look { folder, which } => look::look(&folder.folder, &which),
        StoreCommand::Count { folder, by_device } => look::count(&folder.folder, by_device),
        StoreCommand::Export {
            folder,
            which,
            all,
            to,
        } => look::export(&folder.folder, &which, all, to.as_deref()),
        StoreCommand::Replay { folder, which, .. } => replay::replay(&folder.folder, &which),
        StoreCommand::Verify { folder } => verify(&folder.folder),
        StoreCommand::Salvage { folder, to } => salvage(&folder, &to),
    };
    match done {
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        done => done,
    }
}

fn verify(folder: &Path) -> Result<()> {
    must_be_there(folder)?;
    let found = match embedded::verify(folder) {
        Ok(found) => found,
        Err(OpenError::Damaged(damage)) => {
            list(&damage)?;
            bail!(
                "{folder} is damaged in {places}: restore it from a copy, or let tombolo store salvage --folder {folder} \
                 --to DIR copy what can be read",
                folder = folder.display(),
                places = counted(damage.len() as u64, "place", "places")
            );
        }
        Err(error) => return Err(explained(error, folder)),
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} is whole: {} in {}, {}, {}",
        folder.display(),
        counted(found.records, "record", "records"),
        counted(found.groups, "group", "groups"),
        counted(found.segments as u64, "file", "files"),
        counted(found.bytes, "byte", "bytes")
    )?;
    if let Some(torn) = found.torn {
        writeln!(
            out,
            "its end was never promised to anybody and goes at the next start: {torn}"
        )?;
    }
    if found.damaged_marks > 0 {
        writeln!(
            out,
            "{} of its mark damaged, without harm",
            counted(found.damaged_marks as u64, "entry is", "entries are")
        )?;
    }
    Ok(())
}

fn salvage(folder: &Path, to: &Path) -> Result<()> {
    must_be_there(folder)?;
    let salvaged = embedded::salvage(folder, to).map_err(|error| explained(error, folder))?;
    list(&salvaged.damage)?;
    writeln!(
        io::stdout(),
        "{} copied to {}; {} could not be read",
        counted(salvaged.records, "record is", "records are"),
        to.display(),
        counted(salvaged.damage.len() as u64, "part", "parts")
    )?;
    writeln!(
        io::stderr(),
        "Name {} in disk.folder, and start the gateway. An outcome that could not be read means that its message is sent \
         once more, under the same id.",
        to.display()
    )?;
    Ok(())
}

/// Reads a folder, to show what it has.
fn inspect(folder: &Path) -> Result<Inspection> {
    must_be_there(folder)?;
    say_if_it_takes_long(folder)?;
    embedded::inspect(folder).map_err(|error| explained(error, folder))
}

/// A folder that is opened is made; a mistyped one would be found whole and empty.
fn must_be_there(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        bail!("{} is no folder", folder.display());
    }
    let is_store = embedded::is_store(folder);
    if !is_store.with_context(|| format!("could not read {}", folder.display()))? {
        bail!(
            "{} holds no store: is it what disk.folder in the configuration names?",
            folder.display()
        );
    }
    Ok(())
}

/// What is wrong with a folder, and what to do.
fn explained(error: OpenError, folder: &Path) -> anyhow::Error {
    let folder = folder.display();
    let what_to_do = match &error {
        OpenError::InUse(_) => {
            "stop the gateway first; what it holds while it runs, its admin API tells".to_owned()
        }
        OpenError::Damaged(_) => format!(
            "tombolo store verify --folder {folder} lists all of it, and tombolo store salvage --folder {folder} \
             --to DIR copies what can be read"
        ),
        OpenError::NotEmpty(_) => {
            "name a folder that is empty, or not there, with --to DIR".to_owned()
        }
        OpenError::Registry(_) | OpenError::Io { .. } | OpenError::Version { .. } => {
            return error.into();
        }
    };
    anyhow!("{:#}; {what_to_do}", anyhow::Error::new(error))
}

fn list(damage: &[Damage]) -> Result<()> {
    let mut out = io::stdout().lock();
    for part in damage {
        writeln!(out, "{part}")?;
    }
    Ok(())
}

/// Whoever waits at a terminal is told what for.
fn say_if_it_takes_long(folder: &Path) -> Result<()> {
    if !io::stderr().is_terminal() {
        return Ok(());
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    if bytes >= LONG {
        writeln!(io::stderr(), "reading {} MB ...", bytes / 1_000_000)?;
    }
    Ok(())
}

/// A number and what it counts.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Bytes that take a second or more to read.
const LONG: u64 = 50_000_000;
