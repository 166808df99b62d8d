//! Showing, counting and exporting: nothing is changed.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use api::admin::{Address, Content, Kept, Kind, Side};
use front::shown;
use iothub::Identity;
use store::Stock;
use store::embedded::{self, Held, Inspection, Said};

use super::{counted, inspect};
use crate::cli::WhichArgs;

/// A line for each thing.
pub(super) fn look(folder: &Path, which: &WhichArgs) -> Result<()> {
    let found = inspect(folder)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut waiting, mut dead) = (0, 0);
    for identity in devices(&found, which) {
        for (_, kept) in things(&found, &identity, which) {
            let count = if kept.dead.is_some() {
                &mut dead
            } else {
                &mut waiting
            };
            *count += 1;
            writeln!(out, "{}", line(&identity, &kept))?;
        }
    }
    out.flush()?;
    let mut err = io::stderr().lock();
    writeln!(
        err,
        "{}, {}",
        counted(waiting, "waits", "wait"),
        counted(dead, "dead letter", "dead letters")
    )?;
    if dead > 0 {
        writeln!(
            err,
            "tombolo store export writes what dead letters say, tombolo store replay puts them back."
        )?;
    }
    Ok(())
}

/// How much there is.
pub(super) fn count(folder: &Path, by_device: bool) -> Result<()> {
    let found = inspect(folder)?;
    let stocked = found.stocked();
    let recovery = found.recovery();
    let mut out = BufWriter::new(io::stdout().lock());
    let outbox: Stock = stocked.iter().map(|(_, outbox, _)| *outbox).sum();
    let inbox: Stock = stocked.iter().map(|(.., inbox)| *inbox).sum();
    writeln!(out, "outbox  {}", summary(&outbox))?;
    writeln!(out, "inbox   {}", summary(&inbox))?;
    writeln!(
        out,
        "kept    {}, {}, {}",
        counted(
            recovery.receipts_and_keys,
            "receipt or key",
            "receipts and keys"
        ),
        counted(recovery.log.segments as u64, "file", "files"),
        counted(recovery.log.bytes, "byte", "bytes")
    )?;
    if by_device {
        for (identity, outbox, inbox) in stocked {
            writeln!(out, "{identity}  outbox  {}", summary(&outbox))?;
            writeln!(out, "{identity}  inbox   {}", summary(&inbox))?;
        }
    }
    Ok(out.flush()?)
}

/// A line of JSON for each thing, with what it says.
pub(super) fn export(
    folder: &Path,
    which: &WhichArgs,
    what_waits_too: bool,
    to: Option<&Path>,
) -> Result<()> {
    let found = inspect(folder)?;
    let mut out: Box<dyn Write> = match to {
        None => Box::new(io::stdout().lock()),
        // It has what devices said.
        Some(path) => Box::new(
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .with_context(|| format!("could not make {}, which must be new", path.display()))?,
        ),
    };
    let mut out = BufWriter::new(&mut out);
    let (mut written, mut unsaid) = (0, 0);
    for identity in devices(&found, which) {
        for (held, kept) in things(&found, &identity, which) {
            if kept.dead.is_none() && !what_waits_too {
                continue;
            }
            let said = found.read(&held);
            let said = said.with_context(|| format!("could not read {}", folder.display()))?;
            let content = said.as_ref().and_then(content);
            unsaid += u64::from(content.is_none());
            let line = serde_json::to_string(&Kept { content, ..kept })?;
            writeln!(out, "{line}")?;
            written += 1;
        }
    }
    out.flush()?;
    let mut err = io::stderr().lock();
    writeln!(
        err,
        "{}{}",
        counted(written, "line", "lines"),
        to.map_or_else(String::new, |to| format!(" in {}", to.display()))
    )?;
    if unsaid > 0 {
        writeln!(
            err,
            "{} no content: it was not kept, or is damaged",
            counted(unsaid, "has", "have")
        )?;
    }
    Ok(())
}

/// Whose things are asked for.
fn devices(found: &Inspection, which: &WhichArgs) -> Vec<Identity> {
    let stocked = found.stocked().into_iter();
    let identities = stocked.map(|(identity, ..)| identity);
    identities.filter(|identity| which.has(identity)).collect()
}

/// A device's things that are asked for.
fn things<'a>(
    found: &'a Inspection,
    identity: &'a Identity,
    which: &'a WhichArgs,
) -> impl Iterator<Item = (Held, Kept)> {
    let held = found.held(identity).into_iter();
    let all = held.map(|held| {
        let kept = kept(identity, &held.kept);
        (held, kept)
    });
    all.filter(|(_, kept)| which.side.is_none_or(|side| side == kept.side))
}

impl WhichArgs {
    pub(super) fn has(&self, identity: &Identity) -> bool {
        let device = self.device.as_ref();
        device.is_none_or(|device| device == identity.device_id())
    }
}

/// One thing in the form of the admin API.
fn kept(identity: &Identity, kept: &embedded::Kept) -> Kept {
    match kept {
        embedded::Kept::Entry {
            id,
            submission,
            lane,
            bytes,
            accepted_at,
        } => Kept {
            of: Address::from(identity),
            side: Side::Outbox,
            id: id.0,
            kind: shown::kind_of(*lane),
            received_at: *accepted_at,
            expires_at: None,
            attempts: None,
            delivery_count: None,
            message_id: None,
            receipt: Some(shown::receipt(*submission)),
            bytes: *bytes as u64,
            dead: None,
            content: None,
        },
        embedded::Kept::Unsent(letter) => shown::unsent(letter),
        embedded::Kept::Message {
            sequence,
            message_id,
            bytes,
            delivery_count,
            arrived_at,
            expires_at,
        } => Kept {
            of: Address::from(identity),
            side: Side::Inbox,
            id: *sequence,
            kind: Kind::Message,
            received_at: *arrived_at,
            expires_at: *expires_at,
            attempts: None,
            delivery_count: Some(*delivery_count),
            message_id: message_id.clone(),
            receipt: None,
            bytes: *bytes as u64,
            dead: None,
            content: None,
        },
        embedded::Kept::Unread(letter) => shown::unread(letter),
    }
}

fn content(said: &Said) -> Option<Content> {
    match said {
        Said::Work(work) => shown::work(work),
        Said::Message(message) => Some(Content::from(message.as_ref())),
    }
}

fn line(identity: &Identity, kept: &Kept) -> String {
    let kind = match kept.kind {
        Kind::Telemetry => "telemetry",
        Kind::Reported => "reported properties",
        Kind::Message => "message",
    };
    let mut line = format!(
        "{side:<6}  {identity}  {kind} {id}, {bytes}, ",
        side = kept.side.as_str(),
        id = kept.id,
        bytes = counted(kept.bytes, "byte", "bytes")
    );
    // Writing to a text does not fail.
    let _ = match &kept.dead {
        None => write!(line, "waits since {}", kept.received_at),
        Some(dead) => write!(line, "dead letter since {}: {}", dead.at, dead.reason),
    };
    if let Some(end) = kept.expires_at {
        let _ = write!(line, ", lapses {end}");
    }
    if let Some(count) = kept.delivery_count.filter(|count| *count > 0) {
        let _ = write!(
            line,
            ", abandoned {}",
            counted(count.into(), "time", "times")
        );
    }
    line
}

fn summary(stock: &Stock) -> String {
    let mut summary = format!(
        "{}, {}, {}",
        counted(stock.waiting, "waits", "wait"),
        counted(stock.bytes, "byte", "bytes"),
        counted(stock.dead_letters, "dead letter", "dead letters")
    );
    if let Some(oldest) = stock.oldest {
        // Writing to a text does not fail.
        let _ = write!(summary, ", the oldest since {oldest}");
    }
    summary
}
