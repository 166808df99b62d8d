//! The file that keeps tokens across a restart.
//!
//! JSON lines. The first says what the file is and in which version of the format; then one line per token, with the
//! token's hash and never the token itself:
//!
//! ```text
//! {"format":"tombolo-tokens","version":1}
//! {"id":"..","hub":"..","device":"..","hash":"..","created_at":".."}
//! ```
//!
//! The file is small and seldom changes, so each change writes all of it: to a file beside it, flushed, renamed over
//! it, the folder flushed. A crash leaves the older or the newer one, whole. Damage from elsewhere refuses the start:
//! to go on without some of the tokens would look to their devices like a revocation.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use iothub::{DeviceId, HubName, Identity, ModuleId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Scopes, TokenHash, TokenId, TokenOrigin, TokenRecord};

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is there and cannot be read.
    #[error("cannot read the registry file {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not there and cannot be made.
    #[error("cannot make the registry file {}", path.display())]
    Make {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line of the file is not what this program writes there.
    #[error(
        "the registry file {} is damaged in line {line}: restore it from a copy, or move it away and make new tokens",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The file is of a version that this program does not know.
    #[error(
        "the registry file {} has version {version} of the format {format:?}, and this program reads version {known} of {known_format:?}",
        path.display(),
        known = VERSION,
        known_format = FORMAT
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// What it says it is.
        format: String,
        /// The version that it says.
        version: u32,
    },
}

/// The file of tokens.
pub(super) struct TokenFile {
    path: PathBuf,
}

/// How sure it is that the file is replaced.
pub(super) enum Replaced {
    /// It is, also after a crash.
    Durably,
    /// It is, but after a crash of the machine it may be the older one.
    Perhaps(io::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: TokenId,
    hub: HubName,
    device: DeviceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    module: Option<ModuleId>,
    hash: TokenHash,
    created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// Not there: all of them.
    #[serde(default = "all_scopes", skip_serializing_if = "is_all_scopes")]
    scopes: Scopes,
    /// Not there: an operator.
    #[serde(default, skip_serializing_if = "is_of_operator")]
    origin: TokenOrigin,
}

const fn all_scopes() -> Scopes {
    Scopes::ALL
}

fn is_all_scopes(scopes: &Scopes) -> bool {
    *scopes == Scopes::ALL
}

fn is_of_operator(origin: &TokenOrigin) -> bool {
    *origin == TokenOrigin::Operator
}

impl TokenFile {
    /// Reads the file, or makes an empty one, so that a folder that cannot be written to is found at the start.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Vec<TokenRecord>), OpenError> {
        let file = Self { path };
        let records = match fs::read_to_string(&file.path) {
            Ok(text) => file.parse(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = file.replace(std::iter::empty());
                made.map_err(|source| OpenError::Make {
                    path: file.path.clone(),
                    source,
                })?;
                Vec::new()
            }
            Err(source) => {
                return Err(OpenError::Read {
                    path: file.path,
                    source,
                });
            }
        };
        Ok((file, records))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the whole file. An error means that it is what it was.
    pub(super) fn replace<'a>(
        &self,
        records: impl Iterator<Item = &'a TokenRecord>,
    ) -> io::Result<Replaced> {
        let fresh = self.path.with_added_extension("new");
        write_flushed(&fresh, records)?;
        fs::rename(&fresh, &self.path)?;
        Ok(match flush_folder_of(&self.path) {
            Ok(()) => Replaced::Durably,
            Err(error) => Replaced::Perhaps(error),
        })
    }

    fn parse(&self, text: &str) -> Result<Vec<TokenRecord>, OpenError> {
        let damaged = |line, source| OpenError::Damaged {
            path: self.path.clone(),
            line,
            source,
        };
        let mut lines = text.lines().zip(1..);
        let (first, _) = lines.next().unwrap_or_default();
        let header: Header = serde_json::from_str(first).map_err(|error| damaged(1, error))?;
        if header.format != FORMAT || header.version != VERSION {
            return Err(OpenError::Version {
                path: self.path.clone(),
                format: header.format,
                version: header.version,
            });
        }
        lines
            .map(|(text, number)| {
                let line: Line =
                    serde_json::from_str(text).map_err(|error| damaged(number, error))?;
                Ok(line.into())
            })
            .collect()
    }
}

impl From<Line> for TokenRecord {
    fn from(line: Line) -> Self {
        let identity = match line.module {
            None => Identity::device(line.hub, line.device),
            Some(module) => Identity::module(line.hub, line.device, module),
        };
        Self {
            id: line.id,
            identity,
            hash: line.hash,
            created_at: line.created_at,
            expires_at: line.expires_at,
            scopes: line.scopes,
            origin: line.origin,
        }
    }
}

impl From<&TokenRecord> for Line {
    fn from(record: &TokenRecord) -> Self {
        Self {
            id: record.id.clone(),
            hub: record.identity.hub().clone(),
            device: record.identity.device_id().clone(),
            module: record.identity.module_id().cloned(),
            hash: record.hash.clone(),
            created_at: record.created_at,
            expires_at: record.expires_at,
            scopes: record.scopes,
            origin: record.origin.clone(),
        }
    }
}

fn write_flushed<'a>(
    path: &Path,
    records: impl Iterator<Item = &'a TokenRecord>,
) -> io::Result<()> {
    let mut writer = BufWriter::new(create_private(path)?);
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
    };
    write_line(&mut writer, &header)?;
    for record in records {
        write_line(&mut writer, &Line::from(record))?;
    }
    writer.into_inner()?.sync_all()
}

fn write_line(writer: &mut impl io::Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, line)?;
    writer.write_all(b"\n")
}

/// An empty file that only its owner can read. One that a crash left behind is removed, so its mode does not matter.
fn create_private(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a rename in the file's folder survive a crash of the machine.
#[cfg(unix)]
fn flush_folder_of(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file.
#[cfg(not(unix))]
fn flush_folder_of(_path: &Path) -> io::Result<()> {
    Ok(())
}

const FORMAT: &str = "tombolo-tokens";
const VERSION: u32 = 1;
