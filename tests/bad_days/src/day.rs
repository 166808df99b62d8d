//! A day: a rig, everybody at work, and what came of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    checker::{self, Verdict},
    device::Device,
    history,
    options::{Plan, Scenario},
    process::Line,
    rig::{Crowd, Rig, Setup},
    workload::{Load, Workload},
};

/// A day that has begun.
pub(crate) struct Day {
    /// Hub and gateway.
    pub(crate) rig: Rig,
    /// Everybody at work.
    pub(crate) workload: Workload,
    folder: PathBuf,
    /// What lies in it is of use only if something went wrong.
    is_kept: bool,
}

/// What is special about a day.
#[derive(Clone, Debug, Default)]
pub(crate) struct Special {
    /// Lines for the section `[disk]`.
    pub(crate) disk: String,
    /// The store's folder, if it is not in the day's.
    pub(crate) store: Option<PathBuf>,
}

impl Day {
    /// Starts hub and gateway. The number tells the days of a scenario apart.
    pub(crate) async fn begin(
        plan: &Plan,
        scenario: Scenario,
        number: u64,
        crowd: Crowd,
        special: Special,
    ) -> Result<Self> {
        let name = format!("{}-{number}", scenario.name());
        let folder = match &plan.keep {
            Some(folder) => folder.join(name),
            None => std::env::temp_dir()
                .join(format!("tombolo-bad-days-{}", std::process::id()))
                .join(name),
        };
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let program = fs::canonicalize(&plan.program);
        let program = program.with_context(|| {
            format!(
                "there is no {}: cargo build -p tombolo",
                plan.program.display()
            )
        })?;
        let setup = Setup {
            program,
            folder: folder.clone(),
            crowd,
            disk: special.disk,
            store: special.store,
        };
        let mut rig = Rig::start(setup).await?;
        rig.start_gateway(&Line::default()).await?;
        let devices = Device::of(&rig, plan.seed.wrapping_add(number))?;
        let workload = Workload::new(devices, rig.hub.cloud());
        Ok(Self {
            rig,
            workload,
            folder,
            is_kept: plan.keep.is_some(),
        })
    }

    /// Lets everybody work.
    pub(crate) fn work(&mut self, load: Load) {
        self.workload.begin(load);
    }

    /// Waits until everything is settled that can be, and has it judged. The gateway runs.
    pub(crate) async fn end(self) -> Result<Verdict> {
        let (verdict, ()) = self.end_and(|_| Ok(())).await?;
        Ok(verdict)
    }

    /// The same, and looks into the history's file for something else.
    pub(crate) async fn end_and<R>(
        mut self,
        look: impl FnOnce(&Path) -> Result<R>,
    ) -> Result<(Verdict, R)> {
        self.workload.end().await?;
        self.rig.stop_gateway().await?;
        self.rig.recorder.finish()?;
        let path = self.rig.history();
        let verdict = checker::judge(history::read(&path)?)?;
        let seen = look(&path)?;
        if verdict.violations.is_empty() && !self.is_kept {
            fs::remove_dir_all(&self.folder)?;
        }
        Ok((verdict, seen))
    }

    /// Where its history and its logs are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.clone()
    }
}
