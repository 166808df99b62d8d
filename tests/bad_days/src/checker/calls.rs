//! Direct methods: what callers asked, what devices were shown and answered, what callers got.
//!
//! A call may get no answer at all: one that was open when its connection ended is gone, and its caller waits in vain. But
//! whatever a caller gets is what its own device has answered to this very call.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, Verdict};
use crate::history::{Content, Event, Moment};

/// Every call, by name.
#[derive(Default)]
pub(super) struct Calls {
    made: BTreeMap<String, Call>,
    /// What was shown and was never called.
    invented: BTreeSet<String>,
}

struct Call {
    device: String,
    content: Content,
    at: Moment,
    /// What the device has begun to answer.
    given: BTreeSet<String>,
    /// What it was told that the hub has, and when.
    taken: Vec<(String, Moment)>,
    /// What the caller got, and when; none for a caller who waited in vain.
    ended: Option<(Option<String>, Moment)>,
    /// When devices had asked that were shown it.
    shown: Vec<Moment>,
    broken: BTreeSet<Rule>,
}

impl Calls {
    pub(super) fn observe(&mut self, at: Moment, event: &Event) {
        match event {
            Event::Calling {
                device,
                call,
                content,
            } => {
                let made = Call {
                    device: device.clone(),
                    content: content.clone(),
                    at,
                    given: BTreeSet::new(),
                    taken: Vec::new(),
                    ended: None,
                    shown: Vec::new(),
                    broken: BTreeSet::new(),
                };
                self.made.insert(call.clone(), made);
            }
            Event::CallEnded { call, answer } => {
                if let Some(call) = self.made.get_mut(call) {
                    call.ended = Some((answer.clone(), at));
                }
            }
            Event::CallShown {
                device,
                asked,
                call,
                content,
            } => {
                let known = self.made.get_mut(call);
                let Some(made) = known.filter(|made| made.device == *device) else {
                    self.invented.insert(format!("{call} of {device}"));
                    return;
                };
                if made.content != *content {
                    made.broken.insert(Rule::CallCorrupt);
                }
                made.shown.push(*asked);
            }
            Event::Answering { call, answer } => {
                if let Some(call) = self.made.get_mut(call) {
                    call.given.insert(answer.clone());
                }
            }
            Event::Answered { call, answer } => {
                if let Some(call) = self.made.get_mut(call) {
                    call.taken.push((answer.clone(), at));
                }
            }
            Event::Enrolled { .. }
            | Event::Poisonous { .. }
            | Event::Sending { .. }
            | Event::Promised { .. }
            | Event::Refused { .. }
            | Event::Unanswered { .. }
            | Event::Arrived { .. }
            | Event::Patching { .. }
            | Event::Patched { .. }
            | Event::TwinRead { .. }
            | Event::CloudSending { .. }
            | Event::CloudSent { .. }
            | Event::Shown { .. }
            | Event::Completing { .. }
            | Event::Completed { .. }
            | Event::ReceiptRead { .. }
            | Event::Trouble { .. } => {}
        }
    }

    pub(super) fn judge(self, verdict: &mut Verdict) {
        for call in self.invented {
            verdict.broken(Rule::CallInvented, call);
        }
        for (name, call) in &self.made {
            call.judge(name, verdict);
        }
    }
}

impl Call {
    fn judge(&self, name: &str, verdict: &mut Verdict) {
        for rule in &self.broken {
            verdict.broken(*rule, name);
        }
        let got = self.ended.as_ref().and_then(|(got, _)| got.as_deref());
        verdict.counts.calls += u64::from(!self.shown.is_empty());
        verdict.counts.calls_answered += u64::from(got.is_some());
        if got.is_some_and(|got| !self.given.contains(got)) {
            verdict.broken(Rule::CallMixedUp, name);
        }
        let taken: BTreeSet<_> = self
            .taken
            .iter()
            .map(|(answer, _)| answer.as_str())
            .collect();
        if taken.len() > 1 {
            verdict.broken(Rule::CallAnsweredTwice, name);
        }
        let Some((answer, at)) = self.taken.first() else {
            return;
        };
        if self.shown.iter().any(|asked| asked > at) {
            verdict.broken(Rule::CallShownAgain, name);
        }
        // Whoever waits no longer gets nothing; nobody can tell the device so in time.
        let is_waited_for = *at < self.at + PATIENCE;
        if self.ended.is_some() && is_waited_for && got != Some(answer) {
            verdict.broken(Rule::AnswerLost, name);
        }
    }
}

/// A caller waits 5 s, in microseconds, and the answer needs some of it on its way.
const PATIENCE: Moment = 4_000_000;
