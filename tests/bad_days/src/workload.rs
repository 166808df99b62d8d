//! What devices and cloud do on any day, good or bad.
//!
//! Each device sends messages in every way that there is, one way after the other, at a pace of its own that does not wait
//! for answers; it patches its reported properties one by one; it reads its messages and completes most of them at once; it
//! answers direct methods. The cloud sends messages, calls methods and reads twins.

pub(crate) mod calls;
pub(crate) mod messages;
pub(crate) mod patches;
pub(crate) mod receipts;
pub(crate) mod telemetry;

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{device::Device, history::Kind, hub::Cloud};

/// How much is going on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Messages that all devices together send in a second.
    pub(crate) messages_per_second: u32,
    /// Messages that the cloud sends to all devices together in a second; 0 for none, and no patches then either.
    pub(crate) cloud_messages_per_second: u32,
    /// Direct methods that the cloud calls in a second, of all devices together.
    pub(crate) calls_per_second: u32,
    /// In which ways devices send.
    pub(crate) ways: &'static [telemetry::Way],
}

/// How far a day is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Hour {
    /// Everybody works.
    Day,
    /// Nobody begins anything; what was begun is brought to its end.
    Evening,
    /// Nobody does anything.
    Night,
}

/// Everybody at work.
pub(crate) struct Workload {
    hour: watch::Sender<Hour>,
    devices: Vec<Device>,
    cloud: Cloud,
    /// They end in the evening.
    senders: JoinSet<()>,
    /// They end at night.
    readers: JoinSet<()>,
    /// It ends when it is dropped.
    hub: JoinSet<Result<()>>,
}

impl Workload {
    /// Begins to write down what arrives at the hub.
    pub(crate) fn new(devices: Vec<Device>, cloud: Cloud) -> Self {
        let mut hub = JoinSet::new();
        hub.spawn(cloud.clone().follow());
        Self {
            hour: watch::Sender::new(Hour::Day),
            devices,
            cloud,
            senders: JoinSet::new(),
            readers: JoinSet::new(),
            hub,
        }
    }

    /// Lets everybody begin.
    pub(crate) fn begin(&mut self, load: Load) {
        let count = u32::try_from(self.devices.len()).unwrap_or(u32::MAX).max(1);
        for device in &self.devices {
            let pace = f64::from(load.messages_per_second) / f64::from(count);
            let hour = self.hour.subscribe();
            let sending = telemetry::send(device.clone(), load.ways, pace, hour);
            self.senders.spawn(sending);
            if load.cloud_messages_per_second > 0 {
                let patching = patches::write(device.clone(), self.hour.subscribe());
                self.senders.spawn(patching);
            }
            let has_messages = match device.kind {
                Kind::GatewayKeeps | Kind::HubKeeps => true,
                Kind::Module | Kind::PassedThrough => false,
            };
            if load.cloud_messages_per_second > 0 && has_messages {
                let between = Duration::from_secs(1) * count / load.cloud_messages_per_second;
                let (cloud, hour) = (self.cloud.clone(), self.hour.subscribe());
                let sending = messages::send(cloud, device.clone(), between, hour);
                self.senders.spawn(sending);
                let reading = messages::receive(device.clone(), self.hour.subscribe());
                self.readers.spawn(reading);
            }
            if load.calls_per_second > 0 {
                let between = Duration::from_secs(1) * count / load.calls_per_second;
                let (cloud, hour) = (self.cloud.clone(), self.hour.subscribe());
                let calling = calls::make(cloud, device.clone(), between, hour);
                self.senders.spawn(calling);
                let answering = calls::answer(device.clone(), self.hour.subscribe());
                self.readers.spawn(answering);
            }
        }
        if load.cloud_messages_per_second > 0 {
            let reading = patches::read(self.cloud.clone(), self.ids(), self.hour.subscribe());
            self.readers.spawn(reading);
        }
        let reading = receipts::read(self.devices.clone(), self.hour.subscribe());
        self.readers.spawn(reading);
    }

    /// Lets everybody end what they have begun; the gateway is there and stays.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.hour.send_replace(Hour::Evening);
        all(&mut self.senders).await?;
        let recorder = self
            .devices
            .first()
            .context("there is a device")?
            .recorder
            .clone();
        let (mut owed, mut quiet) = (recorder.owed(), Duration::ZERO);
        while (owed.up > 0 || owed.down > 0) && quiet < STUCK {
            sleep(LOOK).await;
            quiet += LOOK;
            let now = recorder.owed();
            if now.progress != owed.progress {
                quiet = Duration::ZERO;
            }
            owed = now;
        }
        patches::until_there(&self.cloud, &self.ids(), &recorder, STUCK).await;
        // What comes again comes soon after.
        sleep(LOOK).await;
        self.hour.send_replace(Hour::Night);
        if let Some(ended) = self.hub.try_join_next() {
            ended?.context("the hub's reader has ended")?;
        }
        all(&mut self.readers).await
    }

    /// A device.
    pub(crate) fn one(&self, rng: &mut fastrand::Rng) -> Result<Device> {
        let device = rng.choice(&self.devices);
        Ok(device.context("there is a device")?.clone())
    }

    /// Leaves a device out of what is begun from here on; none if there is only one.
    pub(crate) fn set_one_aside(&mut self) -> Option<Device> {
        (self.devices.len() > 1)
            .then(|| self.devices.pop())
            .flatten()
    }

    /// Lets a device send.
    pub(crate) fn begin_with(
        &mut self,
        device: &Device,
        ways: &'static [telemetry::Way],
        messages_per_second: f64,
    ) {
        let hour = self.hour.subscribe();
        let sending = telemetry::send(device.clone(), ways, messages_per_second, hour);
        self.senders.spawn(sending);
    }

    fn ids(&self) -> Vec<String> {
        self.devices
            .iter()
            .map(|device| device.id.clone())
            .collect()
    }
}

/// Waits for tasks.
async fn all(tasks: &mut JoinSet<()>) -> Result<()> {
    while let Some(task) = tasks.join_next().await {
        task?;
    }
    Ok(())
}

/// Whether it is at most this hour.
pub(crate) fn is_until(hour: &watch::Receiver<Hour>, last: Hour) -> bool {
    *hour.borrow() <= last
}

/// How often it is looked whether all is settled.
const LOOK: Duration = Duration::from_millis(200);
/// After how long without anything coming what is still owed is given up.
const STUCK: Duration = Duration::from_secs(20);
