//! What devices sent to the hub.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, Troubles, Verdict};
use crate::history::{Content, Event, Kind, Moment, Promise};

/// Every message that was sent, by name.
#[derive(Default)]
pub(super) struct Uplink {
    sent: BTreeMap<String, Sent>,
    /// What arrived and was never sent.
    invented: BTreeSet<String>,
    /// Devices of which nothing can be stored.
    passed_through: BTreeSet<String>,
    /// What the hub never takes.
    poisonous: BTreeSet<String>,
    /// Reported properties of which it was said that they are stored, and cannot be.
    stored_patches: BTreeSet<String>,
}

struct Sent {
    device: String,
    content: Content,
    request: u64,
    place: u32,
    /// When it was sent first and last.
    first: Moment,
    last: Moment,
    /// The first promise, and when.
    promised: Option<(Moment, Promise)>,
    arrivals: Vec<Arrival>,
    /// Rules of which it is known at once that they are broken.
    broken: BTreeSet<Rule>,
    /// For each promise that the disk has it: when the request was sent that was answered so, and when it was.
    stored: Vec<(Moment, Moment)>,
}

struct Arrival {
    sequence: u64,
    at: Moment,
    message_id: Option<String>,
}

impl Uplink {
    pub(super) fn observe(&mut self, at: Moment, event: &Event) {
        match event {
            Event::Enrolled { device, kind } => match kind {
                Kind::PassedThrough => {
                    self.passed_through.insert(device.clone());
                }
                Kind::GatewayKeeps | Kind::HubKeeps | Kind::Module => {}
            },
            Event::Poisonous { name } => {
                self.poisonous.insert(name.clone());
            }
            Event::Sending {
                device,
                name,
                request,
                place,
                key: _,
                content,
            } => {
                let sent = self.sent.entry(name.clone()).or_insert_with(|| Sent {
                    device: device.clone(),
                    content: content.clone(),
                    request: *request,
                    place: *place,
                    first: at,
                    last: at,
                    promised: None,
                    arrivals: Vec::new(),
                    broken: BTreeSet::new(),
                    stored: Vec::new(),
                });
                sent.last = at;
            }
            Event::Promised { name, promise, .. } => {
                if let Some(sent) = self.sent.get_mut(name) {
                    sent.promised.get_or_insert((at, *promise));
                    if *promise == Promise::Stored {
                        sent.stored.push((sent.last, at));
                        if self.passed_through.contains(&sent.device) {
                            sent.broken.insert(Rule::StoredWithoutCredential);
                        }
                    }
                }
            }
            Event::Refused { name, status } => {
                let is_for_good = !matches!(status, 408 | 429 | 500..);
                if let Some(sent) = self.sent.get_mut(name)
                    && sent.promised.is_some()
                    && is_for_good
                {
                    sent.broken.insert(Rule::Withdrawn);
                }
            }
            Event::Arrived {
                sequence,
                device,
                name,
                message_id,
                content,
            } => {
                let known = self.sent.get_mut(name);
                let Some(sent) = known.filter(|sent| sent.device == *device) else {
                    self.invented.insert(format!("{name} of {device}"));
                    return;
                };
                if sent.content.hash != content.hash {
                    sent.broken.insert(Rule::Corrupt);
                }
                if !are_the_same(&sent.content.properties, &content.properties) {
                    sent.broken.insert(Rule::Relabelled);
                }
                sent.arrivals.push(Arrival {
                    sequence: *sequence,
                    at,
                    message_id: message_id.clone(),
                });
            }
            Event::Patched {
                device,
                slot,
                number,
                promise,
                ..
            } => {
                if *promise == Promise::Stored && self.passed_through.contains(device) {
                    let of = format!("{slot} of {device}: {number}");
                    self.stored_patches.insert(of);
                }
            }
            Event::Unanswered { .. }
            | Event::Patching { .. }
            | Event::TwinRead { .. }
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

    /// Whether the hub has got a message of this name.
    pub(super) fn has_arrived(&self, name: &str) -> bool {
        let sent = self.sent.get(name);
        sent.is_some_and(|sent| !sent.arrivals.is_empty())
    }

    /// Whether the hub never takes a message of this name.
    pub(super) fn is_poisonous(&self, name: &str) -> bool {
        self.poisonous.contains(name)
    }

    pub(super) fn judge(self, troubles: &Troubles, verdict: &mut Verdict) {
        for name in self.invented {
            verdict.broken(Rule::Invented, name);
        }
        for patch in self.stored_patches {
            verdict.broken(Rule::StoredWithoutCredential, patch);
        }
        for (name, sent) in &self.sent {
            if !self.poisonous.contains(name) {
                sent.judge(name, troubles, verdict);
            }
        }
        let mut by_device: BTreeMap<&str, Vec<InOrder<'_>>> = BTreeMap::new();
        for (name, sent) in &self.sent {
            let first = sent.arrivals.iter().map(|arrival| arrival.sequence).min();
            if let (Some((promised, _)), Some(sequence)) = (sent.promised, first) {
                let in_order = InOrder {
                    name,
                    sent: sent.first,
                    place: (sent.request, sent.place),
                    promised,
                    sequence,
                };
                by_device.entry(&sent.device).or_default().push(in_order);
            }
        }
        for messages in by_device.values_mut() {
            for name in out_of_order(messages) {
                verdict.counts.out_of_order += 1;
                verdict.broken(Rule::Disordered, name);
            }
        }
    }
}

impl Sent {
    fn judge(&self, name: &str, troubles: &Troubles, verdict: &mut Verdict) {
        for rule in &self.broken {
            verdict.broken(*rule, name);
        }
        let counts = &mut verdict.counts;
        counts.sent += 1;
        let copies = self.arrivals.len().saturating_sub(1);
        counts.duplicated += copies as u64;
        match (self.promised, self.arrivals.is_empty()) {
            (Some((_, promise)), is_missing) => {
                counts.promised += 1;
                counts.stored += u64::from(promise == Promise::Stored);
                counts.delivered += u64::from(!is_missing);
                counts.lost += u64::from(is_missing);
                if is_missing {
                    verdict.broken(Rule::Lost, name);
                }
            }
            (None, is_missing) => counts.delivered_unpromised += u64::from(!is_missing),
        }
        let mut ids: Vec<_> = self
            .arrivals
            .iter()
            .map(|arrival| &arrival.message_id)
            .collect();
        ids.dedup();
        if ids.len() > 1 || (copies > 0 && ids == [&None]) {
            verdict.broken(Rule::IdsDiffer, name);
        }
        let mut copies = self.arrivals.iter().skip(1);
        if copies.any(|copy| !troubles.excuse_copies(self.first, copy.at)) {
            verdict.broken(Rule::Doubled, name);
        }
        for (sent, at) in &self.stored {
            // A request may have waited for the next life.
            let failed = troubles.store_failed(*sent);
            if failed.is_some() && failed == troubles.store_failed(*at) {
                verdict.broken(Rule::PromisedByFailedStore, name);
            }
            // A repetition may find its message on the disk.
            if *sent == self.first && at - sent < troubles.flush_took(*sent) {
                verdict.broken(Rule::PromisedTooSoon, name);
            }
        }
    }
}

/// A promised message that has arrived.
struct InOrder<'a> {
    name: &'a str,
    sent: Moment,
    place: (u64, u32),
    promised: Moment,
    sequence: u64,
}

/// Messages of a device that came before one that was promised before they were sent, or stood before them in the same
/// request.
fn out_of_order<'a>(messages: &mut [InOrder<'a>]) -> Vec<&'a str> {
    let mut found = Vec::new();
    messages.sort_by_key(|message| message.place);
    let mut before: Option<&InOrder<'_>> = None;
    for message in &*messages {
        if before.is_some_and(|before| {
            before.place.0 == message.place.0 && before.sequence > message.sequence
        }) {
            found.push(message.name);
        }
        before = Some(message);
    }
    messages.sort_by_key(|message| message.promised);
    let promised: Vec<_> = messages
        .iter()
        .map(|message| (message.promised, message.sequence))
        .collect();
    messages.sort_by_key(|message| message.sent);
    let mut promised = promised.into_iter().peekable();
    let mut latest = 0;
    for message in &*messages {
        while let Some((_, sequence)) = promised.next_if(|(at, _)| *at < message.sent) {
            latest = latest.max(sequence);
        }
        if message.sequence < latest {
            found.push(message.name);
        }
    }
    found
}

/// What the gateway stamps on what it may store does not count, unless the device had given it.
fn are_the_same(sent: &BTreeMap<String, String>, arrived: &BTreeMap<String, String>) -> bool {
    let is_stamp = |name: &str| name == CREATION_TIME && !sent.contains_key(name);
    sent.iter()
        .eq(arrived.iter().filter(|(name, _)| !is_stamp(name)))
}

/// "Create and read IoT Hub messages": the application property with the time at which a message was made.
const CREATION_TIME: &str = "iothub-creation-time-utc";
