//! Reported properties. A device writes growing numbers, so that the newest one is the greatest.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, Troubles, Verdict};
use crate::history::{Event, Moment};

/// By device and property.
#[derive(Default)]
pub(super) struct Twins(BTreeMap<(String, String), Slot>);

#[derive(Default)]
struct Slot {
    written: BTreeSet<u64>,
    promised: BTreeSet<u64>,
    read: Vec<(Moment, u64)>,
}

impl Twins {
    pub(super) fn observe(&mut self, at: Moment, event: &Event) {
        match event {
            Event::Patching {
                device,
                slot,
                number,
            } => {
                self.slot(device, slot).written.insert(*number);
            }
            Event::Patched {
                device,
                slot,
                number,
                ..
            } => {
                self.slot(device, slot).promised.insert(*number);
            }
            Event::TwinRead { device, slots } => {
                for (slot, number) in slots {
                    self.slot(device, slot).read.push((at, *number));
                }
            }
            Event::Enrolled { .. }
            | Event::Poisonous { .. }
            | Event::Sending { .. }
            | Event::Promised { .. }
            | Event::Refused { .. }
            | Event::Unanswered { .. }
            | Event::Arrived { .. }
            | Event::CloudSending { .. }
            | Event::CloudSent { .. }
            | Event::Shown { .. }
            | Event::Completed { .. }
            | Event::ReceiptRead { .. }
            | Event::Completing { .. }
            | Event::Calling { .. }
            | Event::CallEnded { .. }
            | Event::CallShown { .. }
            | Event::Answering { .. }
            | Event::Answered { .. }
            | Event::Trouble { .. } => {}
        }
    }

    fn slot(&mut self, device: &str, slot: &str) -> &mut Slot {
        self.0
            .entry((device.to_owned(), slot.to_owned()))
            .or_default()
    }

    pub(super) fn judge(self, troubles: &Troubles, verdict: &mut Verdict) {
        for ((device, slot), numbers) in self.0 {
            let of = |number: Option<u64>| match number {
                Some(number) => format!("{slot} of {device}: {number}"),
                None => format!("{slot} of {device}: nothing"),
            };
            verdict.counts.patches += numbers.promised.len() as u64;
            for (_, number) in &numbers.read {
                if !numbers.written.contains(number) {
                    verdict.broken(Rule::PatchInvented, of(Some(*number)));
                }
            }
            for pair in numbers.read.windows(2) {
                let [(from, before), (to, number)] = pair else {
                    continue;
                };
                if number < before && !troubles.excuse_copies(*from, *to) {
                    verdict.broken(Rule::TwinBackwards, of(Some(*number)));
                }
            }
            let last = numbers.read.last().map(|(_, number)| *number);
            if numbers.promised.last().copied() > last {
                verdict.broken(Rule::PatchLost, of(last));
            }
        }
    }
}
