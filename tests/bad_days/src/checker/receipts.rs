//! What receipts said.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, Verdict, uplink::Uplink};
use crate::history::{Event, Moment, ReceiptState, Trouble};

/// By their names.
#[derive(Default)]
pub(super) struct Receipts {
    by_name: BTreeMap<String, Seen>,
    /// What the gateway's clock is ahead, in seconds, and when it last went so far that receipts end.
    ahead: i64,
    ended: Option<Moment>,
}

#[derive(Default)]
struct Seen {
    /// The messages that it is for.
    messages: BTreeSet<String>,
    /// When the device had it.
    given: Option<Moment>,
    /// When something final was known of it.
    ended: Option<Moment>,
    broken: BTreeSet<Rule>,
    is_read: bool,
    is_acknowledged: bool,
    is_refused: bool,
}

impl Receipts {
    pub(super) fn observe(&mut self, at: Moment, event: &Event) {
        match event {
            Event::Promised {
                name,
                receipt: Some(receipt),
                ..
            } => {
                let seen = self.by_name.entry(receipt.clone()).or_default();
                seen.messages.insert(name.clone());
                seen.given.get_or_insert(at);
            }
            Event::Patched {
                receipt: Some(receipt),
                ..
            } => {
                let seen = self.by_name.entry(receipt.clone()).or_default();
                seen.given.get_or_insert(at);
            }
            Event::ReceiptRead {
                asked,
                receipt,
                state,
            } => {
                let ended = self.ended;
                let seen = self.by_name.entry(receipt.clone()).or_default();
                let is_ended = seen.given < ended && *state == ReceiptState::Missing;
                if !is_ended {
                    seen.read(at, *asked, *state);
                }
            }
            Event::Trouble {
                trouble: Trouble::ClockJumped { seconds },
            } => {
                if seconds - self.ahead >= KEPT {
                    self.ended = Some(at);
                }
                self.ahead = *seconds;
            }
            Event::Promised { receipt: None, .. }
            | Event::Patched { receipt: None, .. }
            | Event::Enrolled { .. }
            | Event::Poisonous { .. }
            | Event::Sending { .. }
            | Event::Refused { .. }
            | Event::Unanswered { .. }
            | Event::Arrived { .. }
            | Event::Patching { .. }
            | Event::TwinRead { .. }
            | Event::CloudSending { .. }
            | Event::CloudSent { .. }
            | Event::Shown { .. }
            | Event::Completed { .. }
            | Event::Completing { .. }
            | Event::Calling { .. }
            | Event::CallEnded { .. }
            | Event::CallShown { .. }
            | Event::Answering { .. }
            | Event::Answered { .. }
            | Event::Trouble { .. } => {}
        }
    }

    pub(super) fn judge(self, uplink: &Uplink, verdict: &mut Verdict) {
        for (receipt, seen) in self.by_name {
            verdict.counts.receipts += u64::from(seen.is_read);
            for rule in &seen.broken {
                verdict.broken(*rule, receipt.as_str());
            }
            let mut messages = seen.messages.iter();
            let is_poisonous = messages.clone().any(|name| uplink.is_poisonous(name));
            match (is_poisonous, seen.is_refused) {
                (true, false) => verdict.broken(Rule::PoisonUntold, receipt.as_str()),
                (false, true) => verdict.broken(Rule::ReceiptRefused, receipt.as_str()),
                (true, true) | (false, false) => {}
            }
            if seen.is_acknowledged && messages.any(|name| !uplink.has_arrived(name)) {
                verdict.broken(Rule::ReceiptUntrue, receipt.as_str());
            }
        }
    }
}

impl Seen {
    fn read(&mut self, at: Moment, asked: Moment, state: ReceiptState) {
        self.is_read = true;
        let is_after = |moment: Option<Moment>| moment.is_some_and(|moment| asked > moment);
        match state {
            ReceiptState::Stored | ReceiptState::WaitingForCredential | ReceiptState::Sent => {
                if is_after(self.ended) {
                    self.broken.insert(Rule::ReceiptBackwards);
                }
            }
            ReceiptState::Acknowledged => {
                self.is_acknowledged = true;
                self.ended.get_or_insert(at);
            }
            ReceiptState::Refused => {
                self.is_refused = true;
                self.ended.get_or_insert(at);
            }
            ReceiptState::Missing => {
                if is_after(self.given) {
                    self.broken.insert(Rule::ReceiptMissing);
                }
            }
        }
    }
}

/// Receipts are kept for 8 days, in seconds.
const KEPT: i64 = 8 * 24 * 3600;
