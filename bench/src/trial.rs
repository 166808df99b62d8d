//! What is done with a peer: each trial starts it afresh and brings the samples of some figures.

use std::time::Duration;

use crate::load::{Outcome, Step, devices};
use crate::rig::Rig;
use crate::rows::{Figure, Gained};
use crate::stage::{HubKind, HubStage, PeerKind, Stage};

mod durable;

pub(crate) use durable::{recovery, writes};

/// Rate, cost, latency at half load.
pub(crate) async fn telemetry(rig: &Rig, peer: PeerKind) -> anyhow::Result<Gained> {
    let options = &rig.options;
    let mut stage = Stage::open(rig, peer, options.devices).await?;
    let steps = [
        // Opens all sessions.
        Step::Once(0..stage.devices()),
        Step::Closed(WARM_UP),
        Step::Closed(options.measured),
        Step::Open {
            share: 0.5,
            duration: options.measured,
        },
    ];
    let outcomes = stage.load(options.connections, &steps).await?;
    let mut gained = Gained::default();
    if let [_, _, full, half] = &outcomes[..] {
        let per_thousand = |time: Duration| millis(time) / full.done as f64 * 1000.0;
        gained.note(Figure::Rate, full.rate());
        gained.note(Figure::Processor, per_thousand(full.peer_time));
        gained.note(Figure::HubProcessor, per_thousand(full.hub_time));
        gained.note(Figure::LoadProcessor, per_thousand(full.load_time));
        gained.note(Figure::HalfLoad, half.rate());
        gained.note(Figure::LatencyP50, micros(half.p50));
        gained.note(Figure::LatencyP99, micros(half.p99));
        if let Some(share) = neighbours(&[full, half]) {
            gained.note(Figure::Neighbours, share * 100.0);
        }
    }
    stage.close().await?;
    Ok(gained)
}

/// The start, and then the first request of devices that have no session: one at a time, on a connection that is warm.
pub(crate) async fn cold(rig: &Rig, peer: PeerKind) -> anyhow::Result<Gained> {
    let mut stage = Stage::open(rig, peer, rig.options.devices).await?;
    let measured = COLD_WARM_UP..COLD_WARM_UP + COLD;
    let steps = [
        Step::Once(0..COLD_WARM_UP),
        Step::Once(measured.clone()),
        Step::Once(measured),
    ];
    let outcomes = stage.load(1, &steps).await?;
    let mut gained = Gained::default();
    gained.note(Figure::Start, millis(stage.start()));
    if let [_, cold, warm] = &outcomes[..] {
        gained.note(Figure::Cold, micros(cold.p50));
        gained.note(Figure::Warm, micros(warm.p50));
    }
    stage.close().await?;
    Ok(gained)
}

/// Memory with a tenth of the sessions, and with all; the difference is the sessions'.
pub(crate) async fn memory(rig: &Rig, peer: PeerKind) -> anyhow::Result<Gained> {
    let options = &rig.options;
    let mut stage = Stage::open(rig, peer, options.sessions).await?;
    let few = options.sessions / 10;
    let mut weighed = Vec::new();
    for devices in [0..few, few..options.sessions] {
        let mut steps = vec![Step::Once(devices.clone())];
        // Only at a plain broker may anybody publish to a device.
        if peer.is_receiving() && options.hub == HubKind::Mosquitto {
            steps.push(Step::Receive(devices));
        }
        stage.load(options.connections, &steps).await?;
        tokio::time::sleep(options.quiet).await;
        weighed.push(stage.resident_kib()? as f64);
    }
    let mut gained = Gained::default();
    if let [before, after] = weighed[..] {
        let sessions = (options.sessions - few) as f64;
        gained.note(Figure::SessionMemory, (after - before) / sessions);
        gained.note(Figure::ResidentMemory, after / 1024.0);
    }
    stage.close().await?;
    Ok(gained)
}

/// A hub's start, and what it takes from devices that have their connections open.
pub(crate) async fn intake(rig: &Rig, hub: HubKind) -> anyhow::Result<Gained> {
    let options = &rig.options;
    let mut stage = HubStage::open(rig, hub, options.connections).await?;
    let steps = [
        devices::Step::Connect(0..options.connections),
        devices::Step::Publish(WARM_UP),
        devices::Step::Publish(options.measured),
    ];
    let outcomes = stage.load(&steps).await?;
    let mut gained = Gained::default();
    gained.note(Figure::HubStart, millis(stage.start()));
    if let [_, _, full] = &outcomes[..] {
        let per_thousand = |time: Duration| millis(time) / full.done as f64 * 1000.0;
        gained.note(Figure::Intake, full.rate());
        gained.note(Figure::IntakeProcessor, per_thousand(full.hub_time));
        gained.note(Figure::IntakeLoadProcessor, per_thousand(full.load_time));
        if let Some(share) = full.neighbours {
            gained.note(Figure::IntakeNeighbours, share * 100.0);
        }
    }
    stage.close().await?;
    Ok(gained)
}

/// Memory of a hub with a tenth of the connections, and with all; the difference is the connections'.
pub(crate) async fn connections(rig: &Rig, hub: HubKind) -> anyhow::Result<Gained> {
    let options = &rig.options;
    let mut stage = HubStage::open(rig, hub, options.sessions).await?;
    let few = options.sessions / 10;
    let steps = [
        devices::Step::Connect(0..few),
        devices::Step::Quiet(options.quiet),
        devices::Step::Connect(few..options.sessions),
        devices::Step::Quiet(options.quiet),
    ];
    let outcomes = stage.load(&steps).await?;
    let mut gained = Gained::default();
    if let [_, before, _, after] = &outcomes[..] {
        let (before, after) = (before.hub_kib as f64, after.hub_kib as f64);
        let connections = (options.sessions - few) as f64;
        gained.note(Figure::ConnectionMemory, (after - before) / connections);
        gained.note(Figure::ConnectionsResident, after / 1024.0);
    }
    stage.close().await?;
    Ok(gained)
}

fn neighbours(outcomes: &[&Outcome]) -> Option<f64> {
    let shares = outcomes.iter().map(|outcome| outcome.neighbours);
    shares.reduce(|most, share| Some(most?.max(share?)))?
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

const WARM_UP: Duration = Duration::from_secs(1);
const COLD_WARM_UP: usize = 50;
const COLD: usize = 200;
