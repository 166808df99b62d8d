//! What all trials share: a folder, certificates, programs to start. And the conductor, who goes through the rounds.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::machine::Machine;
use crate::options::Options;
use crate::report::{Report, say};
use crate::rows::{Run, Samples, Subject, Trial};
use crate::stage::certificates::Certificates;
use crate::stage::{HubKind, PeerKind, gateway, node};
use crate::trial;

/// What all trials share.
pub(crate) struct Rig {
    pub(crate) options: Options,
    pub(crate) certificates: Certificates,
    /// This program's own file.
    pub(crate) own: PathBuf,
    /// The gateway's, if it is needed.
    tombolo: Option<PathBuf>,
    folder: TempDir,
    trials: AtomicUsize,
}

/// Measures everything that the options ask for, and reports.
pub(crate) fn conduct(options: &Options) -> anyhow::Result<()> {
    // Children die with the thread that started them (see `process::leash`), so that has to be the main thread.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?
        .block_on(async {
            let mut terminated = signal(SignalKind::terminate())?;
            tokio::select! {
                // What runs is stopped as it is dropped, when another branch ends first.
                measured = measure(options) => measured,
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted?;
                    bail!("interrupted; everything was stopped")
                }
                _ = terminated.recv() => bail!("terminated; everything was stopped"),
            }
        })
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        say(format_args!(
            "built without --release: the figures say whether it works, not how fast"
        ));
    }
    allow_many_files(options.sessions)?;
    let (rig, skipped) = Rig::prepare(options).await?;
    let mut samples = Samples::default();
    for trial in Trial::wanted(&options.rows) {
        let rounds = trial.rounds(options.rounds);
        let runs = trial.runs(&rig.options.peers);
        for round in 0..rounds {
            // Nobody is always first.
            for turn in 0..runs.len() {
                let run = runs[(round + turn) % runs.len()];
                let subject = run.subject();
                let gained = match run {
                    Run::Telemetry(peer) => trial::telemetry(&rig, peer).await,
                    Run::Cold(peer) => trial::cold(&rig, peer).await,
                    Run::Memory(peer) => trial::memory(&rig, peer).await,
                    Run::Writes(writing) => trial::writes(&rig, writing).await,
                    Run::Recovery => trial::recovery(&rig).await,
                    Run::Intake(hub) => trial::intake(&rig, hub).await,
                    Run::Connections(hub) => trial::connections(&rig, hub).await,
                }
                .with_context(|| format!("the {trial} trial of the {} failed", subject.name()))?;
                say(format_args!(
                    "{trial}, round {} of {rounds}, {}: {gained}",
                    round + 1,
                    subject.name()
                ));
                samples.add(subject, &gained);
            }
        }
    }
    let report = Report::new(Machine::look().await, &rig.options, skipped, &samples);
    report.print();
    match &options.json {
        Some(path) => report.write(path),
        None => Ok(()),
    }
}

impl Rig {
    /// Makes everything ready; the peers that this machine cannot have are skipped, with the reason.
    async fn prepare(options: &Options) -> anyhow::Result<(Self, Vec<(PeerKind, String)>)> {
        let mut options = options.clone();
        let mut skipped = Vec::new();
        let mut tombolo = None;
        let wanted = Vec::from_iter(Trial::wanted(&options.rows));
        let is_wanted = |subject| {
            let runs = wanted.iter().flat_map(|trial| trial.runs(&options.peers));
            let programs = runs.map(|run| run.subject().program());
            programs.into_iter().any(|needed| needed == subject)
        };
        let is_hub = options.hub == HubKind::Emulator;
        let (gateway, emulator) = (
            Subject::Peer(PeerKind::Gateway),
            Subject::Hub(HubKind::Emulator),
        );
        if is_wanted(gateway) || is_wanted(emulator) || is_hub {
            tombolo = Some(match &options.gateway_binary {
                Some(path) => path.clone(),
                None => gateway::build().await?,
            });
        }
        if is_wanted(Subject::Peer(PeerKind::Node))
            && let Err(error) = node::prepare().await
        {
            options.peers.retain(|&peer| peer != PeerKind::Node);
            say(format_args!("the Node gateway is left out: {error:#}"));
            skipped.push((PeerKind::Node, format!("{error:#}")));
        }
        if options.peers.is_empty() {
            bail!("no peer is left to be measured");
        }
        let folder = tempfile::tempdir().context("could not make a folder for this run")?;
        let rig = Self {
            options,
            certificates: Certificates::make(folder.path())?,
            own: std::env::current_exe().context("could not find this program's own file")?,
            tombolo,
            folder,
            trials: AtomicUsize::new(0),
        };
        Ok((rig, skipped))
    }

    /// A folder for one trial.
    pub(crate) fn new_folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let number = self.trials.fetch_add(1, Ordering::Relaxed);
        let folder = self
            .folder
            .path()
            .join(format!("{number}-{}", name.replace(' ', "-")));
        std::fs::create_dir(&folder)
            .with_context(|| format!("could not make {}", folder.display()))?;
        Ok(folder)
    }

    /// The gateway's program, which is the emulator's too.
    pub(crate) fn tombolo(&self) -> anyhow::Result<&Path> {
        self.tombolo.as_deref().context("the gateway was not built")
    }
}

/// A session takes a file descriptor at the peer and one at the hub; they inherit this limit.
fn allow_many_files(sessions: usize) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("could not raise the limit of open files")?;
    let needed = sessions as u64 + 1000;
    match limit.maximum {
        Some(maximum) if maximum < needed => bail!(
            "{sessions} sessions need {needed} open files, the limit is {maximum}: raise it (ulimit -n) or give --sessions"
        ),
        Some(_) | None => Ok(()),
    }
}
