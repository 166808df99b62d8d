//! Receipts: some of those that were given are looked at again and again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use reqwest::Method;
use tokio::{sync::watch, time::sleep};

use super::{Hour, is_until};
use crate::{
    device::Device,
    history::{Event, ReceiptState},
};

/// The receipts that are looked at: one of every few, long after it says how it ended.
#[derive(Clone, Default)]
pub(crate) struct Sampled(Arc<Mutex<Sample>>);

#[derive(Default)]
struct Sample {
    given: u64,
    kept: VecDeque<(String, String)>,
}

impl Sampled {
    /// A device was given a receipt.
    pub(crate) fn add(&self, device: &Device, receipt: &str) {
        let mut sample = self.0.lock();
        sample.given += 1;
        if sample.given.is_multiple_of(EVERY) {
            if sample.kept.len() >= KEPT {
                sample.kept.pop_front();
            }
            let kept = (device.id.clone(), receipt.to_owned());
            sample.kept.push_back(kept);
        }
    }

    fn next(&self, turn: usize) -> Option<(String, String)> {
        let sample = self.0.lock();
        let place = turn.checked_rem(sample.kept.len())?;
        sample.kept.get(place).cloned()
    }
}

/// Looks at receipts until night.
pub(super) async fn read(devices: Vec<Device>, hour: watch::Receiver<Hour>) {
    let mut turn = 0;
    while is_until(&hour, Hour::Evening) {
        turn += 1;
        let next = devices
            .first()
            .and_then(|device| device.receipts.next(turn));
        if let Some((id, receipt)) = next
            && let Some(device) = devices.iter().find(|device| device.id == id)
        {
            look_at(device, receipt).await;
        }
        sleep(PAUSE).await;
    }
}

async fn look_at(device: &Device, receipt: String) {
    let asked = device.recorder.now();
    let path = format!("receipts/{receipt}");
    let Some(answer) = device.ask(Method::GET, &path, |request| request).await else {
        return;
    };
    let state = match answer.status {
        200 => serde_json::from_value(answer.body["state"].clone()).ok(),
        404 => Some(ReceiptState::Missing),
        _ => None,
    };
    if let Some(state) = state {
        device.recorder.note(Event::ReceiptRead {
            asked,
            receipt,
            state,
        });
    }
}

/// One of so many is looked at.
const EVERY: u64 = 5;
/// As many at a time.
const KEPT: usize = 60;
const PAUSE: Duration = Duration::from_millis(15);
