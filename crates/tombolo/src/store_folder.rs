//! `tombolo store`: looks after the folder in which a gateway keeps what must survive.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Result, bail};
use store::embedded::{self, Damage, OpenError};

use crate::cli::{StoreArgs, StoreCommand};

/// Verifies or salvages a folder.
///
/// # Errors
///
/// When it can not be read, and when it is damaged.
pub(crate) fn run(args: StoreArgs) -> Result<()> {
    match args.command {
        StoreCommand::Verify { folder } => verify(&folder),
        StoreCommand::Salvage { folder, to } => salvage(&folder, &to),
    }
}

fn verify(folder: &Path) -> Result<()> {
    must_be_there(folder)?;
    let found = match embedded::verify(folder) {
        Ok(found) => found,
        Err(OpenError::Damaged(damage)) => {
            list(&damage)?;
            bail!(
                "{} is damaged in {} places: restore it from a copy, or see tombolo help store salvage",
                folder.display(),
                damage.len()
            );
        }
        Err(error) => return Err(error.into()),
    };
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} is whole: {} records in {} groups, {} files, {} bytes",
        folder.display(),
        found.records,
        found.groups,
        found.segments,
        found.bytes
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
            "{} entries of its mark are damaged, without harm",
            found.damaged_marks
        )?;
    }
    Ok(())
}

fn salvage(folder: &Path, to: &Path) -> Result<()> {
    must_be_there(folder)?;
    let salvaged = embedded::salvage(folder, to)?;
    list(&salvaged.damage)?;
    writeln!(
        std::io::stdout(),
        "{} records are copied to {}; {} parts could not be read",
        salvaged.records,
        to.display(),
        salvaged.damage.len()
    )?;
    Ok(())
}

/// A folder that is opened is made; a mistyped one would be found whole.
fn must_be_there(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        Ok(())
    } else {
        bail!("{} is no folder", folder.display());
    }
}

fn list(damage: &[Damage]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for part in damage {
        writeln!(out, "{part}")?;
    }
    Ok(())
}
