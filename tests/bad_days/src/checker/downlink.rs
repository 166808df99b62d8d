//! What the cloud sent to devices.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, Troubles, Verdict};
use crate::history::{Content, Event, Kind, Moment};

/// Every message that was sent, by name.
#[derive(Default)]
pub(super) struct Downlink {
    sent: BTreeMap<String, Sent>,
    /// What was shown and was never sent.
    invented: BTreeSet<String>,
    /// Devices whose messages the gateway keeps. It knows one by its message id, which ours have, when the hub delivers it
    /// again: so no crash excuses that one of these is shown anew.
    kept: BTreeSet<String>,
    /// Names by device, in the order in which they were sent, and in which they were first shown.
    order: BTreeMap<String, (Vec<String>, Vec<String>)>,
}

struct Sent {
    device: String,
    content: Content,
    at: Moment,
    is_taken: bool,
    shown: Vec<Shown>,
    completed: Vec<(String, Moment)>,
    broken: BTreeSet<Rule>,
}

struct Shown {
    token: String,
    is_locked: bool,
    asked: Moment,
    at: Moment,
}

impl Downlink {
    pub(super) fn observe(&mut self, at: Moment, event: &Event) {
        match event {
            Event::CloudSending {
                device,
                name,
                content,
            } => {
                let sent = Sent {
                    device: device.clone(),
                    content: content.clone(),
                    at,
                    is_taken: false,
                    shown: Vec::new(),
                    completed: Vec::new(),
                    broken: BTreeSet::new(),
                };
                self.sent.insert(name.clone(), sent);
                let (sent, _) = self.order.entry(device.clone()).or_default();
                sent.push(name.clone());
            }
            Event::CloudSent { name } => {
                if let Some(sent) = self.sent.get_mut(name) {
                    sent.is_taken = true;
                }
            }
            Event::Shown {
                device,
                asked,
                name,
                token,
                is_locked,
                content,
            } => {
                let known = self.sent.get_mut(name);
                let Some(sent) = known.filter(|sent| sent.device == *device) else {
                    self.invented.insert(format!("{name} of {device}"));
                    return;
                };
                if sent.content.hash != content.hash {
                    sent.broken.insert(Rule::MessageCorrupt);
                }
                if sent.content.properties != content.properties {
                    sent.broken.insert(Rule::MessageRelabelled);
                }
                if sent.shown.is_empty() {
                    let (_, shown) = self.order.entry(device.clone()).or_default();
                    shown.push(name.clone());
                }
                sent.shown.push(Shown {
                    token: token.clone(),
                    is_locked: *is_locked,
                    asked: *asked,
                    at,
                });
            }
            Event::Completed { name, token, .. } => {
                if let Some(sent) = self.sent.get_mut(name) {
                    sent.completed.push((token.clone(), at));
                }
            }
            Event::Enrolled { device, kind } => match kind {
                Kind::GatewayKeeps => {
                    self.kept.insert(device.clone());
                }
                Kind::HubKeeps | Kind::Module | Kind::PassedThrough => {}
            },
            Event::Poisonous { .. }
            | Event::Sending { .. }
            | Event::Promised { .. }
            | Event::Refused { .. }
            | Event::Unanswered { .. }
            | Event::Arrived { .. }
            | Event::Patching { .. }
            | Event::Patched { .. }
            | Event::TwinRead { .. }
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

    pub(super) fn judge(self, troubles: &Troubles, verdict: &mut Verdict) {
        for name in self.invented {
            verdict.broken(Rule::MessageInvented, name);
        }
        for (name, sent) in &self.sent {
            let is_kept = self.kept.contains(&sent.device);
            sent.judge(name, is_kept, troubles, verdict);
        }
        for (sent, shown) in self.order.values() {
            let place: BTreeMap<_, _> = sent.iter().zip(0..).collect();
            let mut latest = 0;
            for name in shown {
                let place: usize = place.get(name).copied().unwrap_or_default();
                if place < latest {
                    verdict.broken(Rule::MessageDisordered, name);
                }
                latest = latest.max(place);
            }
        }
    }
}

impl Sent {
    fn judge(&self, name: &str, is_kept: bool, troubles: &Troubles, verdict: &mut Verdict) {
        for rule in &self.broken {
            verdict.broken(*rule, name);
        }
        verdict.counts.cloud_sent += u64::from(self.is_taken);
        verdict.counts.cloud_shown += u64::from(!self.shown.is_empty());
        verdict.counts.cloud_completed += u64::from(!self.completed.is_empty());
        if self.is_taken && self.shown.is_empty() {
            verdict.broken(Rule::MessageLost, name);
        }
        let mut tokens = BTreeSet::new();
        for shown in &self.shown {
            let is_other = !tokens.is_empty() && !tokens.contains(shown.token.as_str());
            let is_other = is_other && !shown.is_locked;
            if !shown.is_locked {
                tokens.insert(shown.token.as_str());
            }
            let is_excused = if is_kept {
                troubles.excuse_redelivery(self.at, shown.at)
            } else {
                troubles.excuse_copies(self.at, shown.at)
            };
            if is_other {
                verdict.counts.cloud_duplicated += 1;
                if !is_excused {
                    verdict.broken(Rule::MessageDoubled, name);
                }
            }
            for (token, at) in &self.completed {
                // Under the token that completed it, it is the gateway that has forgotten; under another one the hub had
                // not heard of it, as it may when a connection is lost.
                if shown.asked > *at && (shown.token == *token || !is_excused) {
                    verdict.broken(Rule::ShownAgain, name);
                }
            }
        }
    }
}
