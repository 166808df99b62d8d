//! The gateway as a whole: the store, and the two halves that meet in it.
//!
//! It stops in the order in which promises are kept: devices first (nothing new is accepted, long-polls end with what is
//! known, writes in flight get their answers), then the sessions (what is in flight is awaited, DISCONNECT). The store
//! serves both to the end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};
use front::{Front, ReportDisk};
use iothub::Timestamp;
use rustix::process::{Resource, getrlimit, setrlimit};
use secrecy::SecretString;
use store::{
    NodeId, Store,
    embedded::{Keeper, OpenError, Recovery},
};
use tokio::task::JoinSet;
use upstream::Upstream;

use crate::config::{Config, Mistakes};
use crate::listen::Listener;
use crate::metrics::Recorder;

/// A gateway that runs.
pub(crate) struct Gateway {
    front: front::Handle,
    upstream: Upstream,
    /// Ended when this is dropped.
    _upkeep: JoinSet<()>,
}

/// What to say of the gateway's listeners when they cannot have their address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listeners {
    pub(crate) devices: Listener,
    pub(crate) admin: Listener,
}

impl Gateway {
    /// Starts both halves around the store, the hub's side first: whoever is let in can be served.
    ///
    /// # Errors
    ///
    /// When the configuration can not be followed. [`Mistakes`] if it is the configuration that is wrong.
    pub(crate) async fn start(
        config: Config,
        store: Store,
        report_disk: ReportDisk,
        admin_token: SecretString,
        listeners: Listeners,
    ) -> Result<Self> {
        raise_limit_of_open_files();
        // Before anything that measures.
        let recorder = Recorder::install()?;
        store::metrics::describe();
        let Config {
            front,
            mut upstream,
            store: _,
            disk: _,
            admin: _,
            log: _,
        } = config;
        upstream.gateway_names = front.names.iter().map(ToString::to_string).collect();
        let hubs = upstream.hubs.iter().map(|hub| hub.name.clone()).collect();
        // One node has this store for itself, so any name will do.
        let node = NodeId::new(&format!("process-{}", std::process::id()));
        let upstream = Upstream::start(upstream, store.clone(), node)
            .await
            .map_err(in_the_configuration)?;
        let reach = upstream.reach();
        let parts = front::Parts {
            store,
            hubs,
            admin_token,
            render_metrics: recorder.render(),
            report_hubs: Arc::new(move || {
                let hubs = reach.hubs();
                hubs.map(|(hub, reached)| front::HubReport {
                    hub: hub.clone(),
                    reached,
                })
                .collect()
            }),
            report_disk,
        };
        let front = start_front(front, parts, listeners).await?;
        let mut upkeep = JoinSet::new();
        upkeep.spawn(recorder.keep_up());
        Ok(Self {
            front,
            upstream,
            _upkeep: upkeep,
        })
    }

    /// Stops in order, within [`FRONT_TIME`] and [`UPSTREAM_TIME`].
    ///
    /// # Errors
    ///
    /// When something had to be cut off.
    pub(crate) async fn stop(self) -> Result<()> {
        let front = self.front.shutdown(FRONT_TIME).await;
        let upstream = self.upstream.shutdown(UPSTREAM_TIME).await;
        front?;
        Ok(upstream?)
    }

    /// Reads the certificate of the device API again.
    pub(crate) async fn reload_certificate(&self) -> Result<(), front::CertificateError> {
        self.front.reload_certificate().await
    }

    /// The device-facing half.
    #[cfg(feature = "emulator")]
    pub(crate) const fn front(&self) -> &front::Handle {
        &self.front
    }
}

/// Every connection of a device and every session with the hub is an open file. Shells start programs with 1,024 of
/// them, which is meant for those that use `select`; the system's own limit stays.
fn raise_limit_of_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// What the owner of a store holds on to: the disk, if it has one.
pub(crate) struct StoreKeeper(Option<OnDisk>);

/// A store's disk, and what the start found there.
struct OnDisk {
    keeper: Arc<Keeper>,
    bytes_at_most: u64,
    recovery: api::admin::Recovery,
}

impl StoreKeeper {
    /// What the admin API tells of the disk.
    pub(crate) fn report(&self) -> ReportDisk {
        let Some(disk) = &self.0 else {
            return Arc::new(|| None);
        };
        let keeper = Arc::clone(&disk.keeper);
        let (bytes_at_most, recovery) = (disk.bytes_at_most, disk.recovery.clone());
        Arc::new(move || {
            Some(api::admin::Disk {
                bytes: keeper.bytes(),
                bytes_at_most,
                recovery: recovery.clone(),
            })
        })
    }

    /// Waits until the store has failed; without a disk it can not.
    pub(crate) async fn failed(&self) {
        match &self.0 {
            Some(disk) => disk.keeper.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Closes the store, after everything that uses it.
    ///
    /// # Errors
    ///
    /// When it has failed.
    pub(crate) async fn close(self) -> Result<()> {
        let Some(OnDisk { keeper, .. }) = self.0 else {
            return Ok(());
        };
        let has_failed = tokio::task::spawn_blocking(move || {
            keeper.close();
            keeper.has_failed()
        });
        if has_failed.await? {
            bail!(
                "the store has failed: a flush did, so what the disk has is not known. Look at the disk, then start \
                 again: everything that was promised is found there, or named"
            );
        }
        Ok(())
    }
}

/// Opens the store of a configuration, and says what it has found.
///
/// # Errors
///
/// When its files can not be used, or are damaged.
pub(crate) async fn open_store(
    config: store::memory::Config,
    disk: Option<store::embedded::Config>,
) -> Result<(Store, StoreKeeper)> {
    // It may read files.
    let opened = tokio::task::spawn_blocking(move || {
        let Some(disk) = disk else {
            return Ok((store::memory::open(config)?, StoreKeeper(None)));
        };
        match store::embedded::open(config, &disk) {
            Ok(opened) => {
                tell(&opened.recovery);
                let on_disk = OnDisk {
                    recovery: shown(&opened.recovery),
                    keeper: Arc::new(opened.keeper),
                    bytes_at_most: disk.bytes,
                };
                Ok((opened.store, StoreKeeper(Some(on_disk))))
            }
            Err(error) => Err(explained(error, &disk.folder)),
        }
    });
    opened.await?.context("could not open the store")
}

/// What is wrong, and what to do about it.
fn explained(error: OpenError, folder: &Path) -> anyhow::Error {
    let folder = folder.display();
    let what_to_do = match &error {
        OpenError::Damaged(_) => format!(
            "nothing starts on damage: restore {folder} from a copy; or tombolo store verify --folder {folder} lists \
             all of it, and tombolo store salvage --folder {folder} --to DIR copies what can be read"
        ),
        OpenError::InUse(_) => {
            "one gateway at a time has a folder: stop the other one, or name another folder in disk.folder"
                .to_owned()
        }
        OpenError::Io { .. } => format!("look at {folder}, which disk.folder names"),
        OpenError::Registry(_) | OpenError::Version { .. } | OpenError::NotEmpty(_) => {
            return error.into();
        }
    };
    anyhow!("{:#}; {what_to_do}", anyhow::Error::new(error))
}

/// What a start found, for the admin API.
fn shown(recovery: &Recovery) -> api::admin::Recovery {
    let Recovery {
        log,
        entries,
        oldest,
        messages,
        dead_letters,
        receipts_and_keys,
        took,
    } = recovery;
    let at = Timestamp::from(SystemTime::now());
    api::admin::Recovery {
        at,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        entries: *entries,
        oldest: *oldest,
        age_of_oldest_s: oldest.map(|oldest| at.saturating_since(oldest).as_secs()),
        messages: *messages,
        dead_letters: *dead_letters,
        receipts_and_keys: *receipts_and_keys,
        files: log.segments as u64,
        bytes: log.bytes,
        torn: log.torn.clone().map(|torn| api::admin::Damage {
            file: torn.file,
            offset: torn.offset,
            bytes: torn.bytes,
            what: torn.what.to_owned(),
        }),
        damaged_marks: log.damaged_marks as u64,
    }
}

fn tell(recovery: &Recovery) {
    tracing::info!(
        entries = recovery.entries,
        oldest = recovery.oldest.map(tracing::field::display),
        messages = recovery.messages,
        dead_letters = recovery.dead_letters,
        receipts_and_keys = recovery.receipts_and_keys,
        bytes = recovery.log.bytes,
        took_ms = u64::try_from(recovery.took.as_millis()).unwrap_or(u64::MAX),
        "the store is open"
    );
    if let Some(torn) = &recovery.log.torn {
        tracing::warn!(%torn, "the end of the store was cut off by a crash: nobody was told of it");
    }
    if recovery.log.damaged_marks > 0 {
        tracing::warn!(
            entries = recovery.log.damaged_marks,
            "the store's mark was damaged; the store itself is whole"
        );
    }
}

async fn start_front(
    config: front::Config,
    parts: front::Parts,
    listeners: Listeners,
) -> Result<front::Handle> {
    let admin_address = config.admin_listen;
    match Front::start(config, parts).await {
        Ok(handle) => Ok(handle),
        Err(front::StartError::Bind { address, source }) => {
            let listener = if address == admin_address {
                listeners.admin
            } else {
                listeners.devices
            };
            Err(listener.refused(address, &source))
        }
        Err(other) => Err(other).context("could not start the device API"),
    }
}

fn in_the_configuration(error: upstream::StartError) -> anyhow::Error {
    match error {
        upstream::StartError::Config(mistakes) => Mistakes::from(mistakes).into(),
        other @ (upstream::StartError::Hub(_)
        | upstream::StartError::Registry(_)
        | upstream::StartError::Randomness(_)) => {
            anyhow::Error::new(other).context("could not start the sessions with the hub")
        }
    }
}

/// Together with the hub's side and the emulator's this stays below the five seconds within which Ctrl-C ends.
const FRONT_TIME: Duration = Duration::from_millis(2500);
const UPSTREAM_TIME: Duration = Duration::from_millis(1500);
