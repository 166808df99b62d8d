//! The gateway with a disk: how fast it writes, and how soon it is back.

use std::time::Instant;

use anyhow::bail;

use super::{WARM_UP, millis, neighbours};
use crate::load::{Step, Writing};
use crate::rig::Rig;
use crate::rows::{Figure, Gained};
use crate::stage::{Setting, Stage};

/// Rate and cost of one way to write.
pub(crate) async fn writes(rig: &Rig, writing: Writing) -> anyhow::Result<Gained> {
    let options = &rig.options;
    let setting = Setting {
        has_disk: true,
        is_hub_away: false,
    };
    let mut stage = Stage::open_gateway(rig, options.devices, setting).await?;
    // Also looks whether it is a disk.
    stage.kept()?;
    // Opens all sessions.
    let every_device = [Step::Once(0..stage.devices())];
    stage.load(options.connections, &every_device).await?;
    let steps = [Step::Closed(WARM_UP), Step::Closed(options.measured)];
    let outcomes = stage.write(writing, options.connections, &steps).await?;
    let ended = Instant::now();
    let done: u64 = outcomes.iter().map(|outcome| outcome.done).sum();
    let messages = done * writing.messages() as u64;
    stage.delivered(messages + stage.devices() as u64).await?;
    let rest = ended.elapsed();
    let mut gained = Gained::default();
    if let [warm_up, full] = &outcomes[..] {
        let rate = full.rate() * writing.messages() as f64;
        let cost = full.peer_time.as_secs_f64() / full.elapsed.as_secs_f64() / rate;
        let until_delivered = warm_up.elapsed + full.elapsed + rest;
        gained.note(Figure::Written, rate);
        gained.note(
            Figure::Delivered,
            messages as f64 / until_delivered.as_secs_f64(),
        );
        // Milliseconds a thousand are seconds a million.
        gained.note(Figure::WritesProcessor, cost * 1e6);
        if let Some(share) = neighbours(&[full]) {
            gained.note(Figure::WritesNeighbours, share * 100.0);
        }
    }
    stage.close().await?;
    Ok(gained)
}

/// Stores messages for a hub that is away, and starts again with them.
pub(crate) async fn recovery(rig: &Rig) -> anyhow::Result<Gained> {
    let messages = rig.options.messages;
    let setting = Setting {
        has_disk: true,
        is_hub_away: true,
    };
    // As many for each as its bound allows.
    let mut stage = Stage::open_gateway(rig, messages / OF_A_DEVICE, setting).await?;
    let before = stage.resident_kib()?;
    let steps = vec![Step::Once(0..stage.devices()); OF_A_DEVICE / Writing::Backlog.messages()];
    stage
        .write(Writing::Backlog, rig.options.connections, &steps)
        .await?;
    let stage = stage.restart().await?;
    let found = stage.recovered()?;
    if found != messages {
        bail!("{messages} messages were stored, and {found} are there after the restart");
    }
    let each = |all: f64| all / messages as f64;
    let memory = stage.resident_kib()?.saturating_sub(before) * 1024;
    let mut gained = Gained::default();
    gained.note(Figure::StoredStart, millis(stage.start()));
    gained.note(Figure::Recovery, each(millis(stage.start()) * 1000.0));
    gained.note(Figure::StoredOnDisk, each(stage.kept()?.bytes()? as f64));
    gained.note(Figure::StoredInMemory, each(memory as f64));
    stage.close().await?;
    Ok(gained)
}

/// Messages of a device that wait: the default of `store.outbox_entries`.
const OF_A_DEVICE: usize = 1000;
