//! A hub with nobody in front of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::{FLEET, Hub, HubKind, LONGEST_LOAD};
use crate::fleet::Fleet;
use crate::load::devices::{Outcome, Plan, Step};
use crate::process;
use crate::rig::Rig;

/// A hub, running, that knows its devices. Ends when this is dropped.
pub(crate) struct HubStage<'a> {
    rig: &'a Rig,
    folder: PathBuf,
    hub: Hub,
}

impl<'a> HubStage<'a> {
    /// Starts it, with that many devices.
    pub(crate) async fn open(rig: &'a Rig, kind: HubKind, devices: usize) -> anyhow::Result<Self> {
        let folder = rig.new_folder(kind.name())?;
        let fleet = Fleet::new(devices)?;
        fleet.write(&folder.join(FLEET))?;
        let hub = Hub::open(rig, kind, &folder, &fleet).await?;
        Ok(Self { rig, folder, hub })
    }

    /// Has devices carry out these steps.
    pub(crate) async fn load(&mut self, steps: &[Step]) -> anyhow::Result<Vec<Outcome>> {
        let plan = Plan {
            hub: self.hub.endpoint.clone(),
            hub_pid: self.hub.process.id()?,
            fleet_file: self.folder.join(FLEET),
            steps: steps.to_vec(),
        };
        let arguments = ["devices".to_owned(), serde_json::to_string(&plan)?];
        let printed = process::output("the devices", &self.rig.own, arguments, LONGEST_LOAD).await;
        // A hub that has died is the better explanation.
        self.hub.process.ensure_running()?;
        serde_json::from_slice(&printed?)
            .context("the devices printed something else than outcomes")
    }

    /// How long the hub took to its first answer.
    pub(crate) fn start(&self) -> Duration {
        self.hub.start
    }

    /// Stops it.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        self.hub.process.stop().await
    }
}
