//! Devices of our own at a hub: what the hub costs, with nobody in between.
//!
//! Every device has its MQTT connection over TLS and is subscribed to its messages from the cloud. One thread, like the
//! rest of the load generator, and the connections stay open from step to step.

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::PAYLOAD;
use crate::fleet::{Device, Fleet};
use crate::machine::Neighbours;
use crate::mqtt::Session;
use crate::process::{processor_time, resident_kib};
use crate::tls::{self, Endpoint};

/// What the conductor wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) hub: Endpoint,
    pub(crate) hub_pid: u32,
    pub(crate) fleet_file: PathBuf,
    pub(crate) steps: Vec<Step>,
}

/// A part of a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Step {
    /// These devices connect, subscribe, and send one message each.
    Connect(Range<usize>),
    /// All that are connected send, with a window of 16 messages each, as fast as the hub acknowledges.
    Publish(Duration),
    /// All are silent.
    Quiet(Duration),
}

/// What a step brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Messages that the hub has acknowledged.
    pub(crate) done: u64,
    pub(crate) elapsed: Duration,
    /// Processor time of the two processes during the step.
    pub(crate) hub_time: Duration,
    pub(crate) load_time: Duration,
    /// What the rest of the machine did meanwhile: a share of all cores, if the system tells.
    pub(crate) neighbours: Option<f64>,
    /// Resident memory of the hub at the end of the step, in KiB.
    pub(crate) hub_kib: u64,
}

impl Outcome {
    /// Messages acknowledged in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }
}

/// Carries out a plan, and returns the outcomes of its steps.
pub(super) async fn carry_out(plan: Plan) -> anyhow::Result<Vec<Outcome>> {
    let fleet = Fleet::read(&plan.fleet_file)?;
    let tls = TlsConnector::from(tls::client(&plan.hub.ca_file, &[])?);
    let pids = [plan.hub_pid, std::process::id()];
    let mut connected: Vec<Sender> = Vec::new();
    let mut outcomes = Vec::new();
    for step in &plan.steps {
        let (hub, load) = (
            processor_time(plan.hub_pid)?,
            processor_time(std::process::id())?,
        );
        let neighbours = Neighbours::watch(&pids)?;
        let begun = Instant::now();
        let carried_out = async {
            match step {
                Step::Connect(range) => {
                    let devices = &fleet.devices[range.clone()];
                    connected.extend(connect(&plan.hub, &tls, devices).await?);
                    Ok(devices.len() as u64)
                }
                Step::Publish(duration) => {
                    let until = begun + *duration;
                    let (senders, done) = publish(std::mem::take(&mut connected), until).await?;
                    connected = senders;
                    Ok(done)
                }
                Step::Quiet(duration) => {
                    tokio::time::sleep(*duration).await;
                    anyhow::Ok(0)
                }
            }
        };
        let done = timeout(LONGEST_STEP, carried_out)
            .await
            .with_context(|| format!("{step:?} took longer than {LONGEST_STEP:?}"))??;
        let elapsed = begun.elapsed();
        outcomes.push(Outcome {
            done,
            elapsed,
            hub_time: processor_time(plan.hub_pid)?.saturating_sub(hub),
            load_time: processor_time(std::process::id())?.saturating_sub(load),
            neighbours: neighbours.share(&pids, elapsed)?,
            hub_kib: resident_kib(plan.hub_pid)?,
        });
    }
    Ok(outcomes)
}

/// A device that is connected.
struct Sender {
    session: Session,
    topic: String,
}

/// Several at a time: a hub with many cores shall not wait for us.
async fn connect(
    hub: &Endpoint,
    tls: &TlsConnector,
    devices: &[Device],
) -> anyhow::Result<Vec<Sender>> {
    let mut connected = Vec::with_capacity(devices.len());
    let mut work = JoinSet::new();
    for device in devices {
        if work.len() == CONNECTING {
            connected.extend(work.join_next().await.transpose()?.transpose()?);
        }
        work.spawn(Sender::connect(hub.clone(), tls.clone(), device.clone()));
    }
    while let Some(sender) = work.join_next().await {
        connected.push(sender??);
    }
    Ok(connected)
}

async fn publish(senders: Vec<Sender>, until: Instant) -> anyhow::Result<(Vec<Sender>, u64)> {
    let mut work = JoinSet::new();
    for sender in senders {
        work.spawn(sender.publish_until(until));
    }
    let mut done = 0;
    let mut senders = Vec::with_capacity(work.len());
    while let Some(sent) = work.join_next().await {
        let (sender, count) = sent??;
        senders.push(sender);
        done += count;
    }
    Ok((senders, done))
}

impl Sender {
    async fn connect(hub: Endpoint, tls: TlsConnector, device: Device) -> anyhow::Result<Self> {
        let mut session = Session::open(&hub, &tls, &device).await?;
        let id = &device.id;
        session
            .subscribe(&format!("devices/{id}/messages/devicebound/#"))
            .await?;
        let topic = format!("devices/{id}/messages/events/");
        let mut out = Vec::new();
        let number = session.publish(&topic, PAYLOAD.as_bytes(), &mut out)?;
        session.write(&out).await?;
        while !session.acknowledged().await?.contains(&number) {}
        Ok(Self { session, topic })
    }

    /// Keeps the window full, and returns when all that was sent is acknowledged.
    async fn publish_until(mut self, until: Instant) -> anyhow::Result<(Self, u64)> {
        let (mut done, mut in_flight) = (0, 0);
        let mut out = Vec::new();
        loop {
            if Instant::now() < until {
                out.clear();
                for _ in in_flight..WINDOW {
                    let payload = PAYLOAD.as_bytes();
                    self.session.publish(&self.topic, payload, &mut out)?;
                }
                self.session.write(&out).await?;
                in_flight = WINDOW;
            }
            if in_flight == 0 {
                return Ok((self, done));
            }
            let acknowledged = self.session.acknowledged().await?.len();
            in_flight = in_flight
                .checked_sub(acknowledged)
                .context("the hub acknowledged more than it was sent")?;
            done += acknowledged as u64;
        }
    }
}

/// What IoT Hub takes of one device before it has acknowledged.
const WINDOW: usize = 16;
const CONNECTING: usize = 64;
/// 15,000 handshakes at a hub that is slow.
const LONGEST_STEP: Duration = Duration::from_secs(180);
