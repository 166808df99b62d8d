//! Judges a history.
//!
//! It knows what the documentation of the API promises, and nothing of how the gateway keeps it. Each part looks at one kind
//! of promise; a rule that is broken is a [`Violation`] that names what it was broken for.
//!
//! ```text
//!    history ──► uplink     what devices sent: promised, arrived, whole, in order, once
//!            ├─► downlink   what the cloud sent: shown, whole, in order, not again
//!            ├─► twin       reported properties: the newest promised one is there
//!            ├─► receipts   never taken back
//!            └─► calls      direct methods: answered once, by the one who was asked
//! ```
//!
//! Copies of a message are no violation where a crash or a lost connection lies between its first sending and the copy.

mod calls;
mod downlink;
mod receipts;
#[cfg(test)]
mod tests;
mod twin;
mod uplink;

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use self::{calls::Calls, downlink::Downlink, receipts::Receipts, twin::Twins, uplink::Uplink};
use crate::history::{Entry, Event, Moment, Trouble};

/// What became of a history.
#[derive(Default, Debug)]
pub(crate) struct Verdict {
    /// How much there was of what.
    pub(crate) counts: Counts,
    /// What must not be.
    pub(crate) violations: Vec<Violation>,
}

/// How much there was of what.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct Counts {
    /// Messages that devices have sent, copies of a request aside.
    pub(crate) sent: u64,
    /// Those that were promised.
    pub(crate) promised: u64,
    /// Those that were promised because the gateway's disk has them.
    pub(crate) stored: u64,
    /// Promised messages that the hub got.
    pub(crate) delivered: u64,
    /// Messages that nobody promised, and the hub got.
    pub(crate) delivered_unpromised: u64,
    /// Second and later arrivals of a message.
    pub(crate) duplicated: u64,
    /// Promised messages that the hub never got.
    pub(crate) lost: u64,
    /// Messages that came before one that was promised before they were sent.
    pub(crate) out_of_order: u64,
    /// Cloud-to-device messages that the hub took.
    pub(crate) cloud_sent: u64,
    /// Those that a device was shown.
    pub(crate) cloud_shown: u64,
    /// Those that a device completed.
    pub(crate) cloud_completed: u64,
    /// Those that came again after a crash or a lost connection, under another token.
    pub(crate) cloud_duplicated: u64,
    /// Patches of reported properties that were promised.
    pub(crate) patches: u64,
    /// Receipts that were looked at.
    pub(crate) receipts: u64,
    /// Calls of direct methods that a device was shown.
    pub(crate) calls: u64,
    /// Those whose caller has got a device's answer.
    pub(crate) calls_answered: u64,
    /// How often the gateway was killed.
    pub(crate) kills: u64,
}

/// A rule that was broken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Violation {
    /// Which.
    pub(crate) rule: Rule,
    /// For what: a name, a receipt, a property of a device.
    pub(crate) of: String,
}

/// What the documentation promises.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Rule {
    /// A promised message reaches the hub.
    Lost,
    /// Its body is what was sent.
    Corrupt,
    /// Its properties are what was sent.
    Relabelled,
    /// The hub gets nothing that its device did not send.
    Invented,
    /// Without a crash or a lost connection it comes once.
    Doubled,
    /// Copies have the same message id.
    IdsDiffer,
    /// What was promised before another was sent comes before it.
    Disordered,
    /// What was promised is not refused for good when it is asked for again.
    Withdrawn,
    /// Nothing is promised as stored before its flush is over.
    PromisedTooSoon,
    /// Nothing is promised as stored after a flush has failed.
    PromisedByFailedStore,
    /// A receipt that says how it ended says so for ever.
    ReceiptBackwards,
    /// Whoever got a receipt can look at it.
    ReceiptMissing,
    /// What was stored is not refused later: all that can be refused is checked before.
    ReceiptRefused,
    /// What a receipt says the hub has, it has.
    ReceiptUntrue,
    /// The newest promised number of a reported property, or a newer one, is there in the end.
    PatchLost,
    /// The numbers in a twin are numbers that the device wrote.
    PatchInvented,
    /// Without a crash or a lost connection, numbers only grow.
    TwinBackwards,
    /// What the hub took, the device is shown.
    MessageLost,
    /// Its body is what the cloud sent.
    MessageCorrupt,
    /// Its properties are what the cloud sent.
    MessageRelabelled,
    /// A device is shown nothing that the cloud did not send to it.
    MessageInvented,
    /// Without a crash or a lost connection it is shown under one token.
    MessageDoubled,
    /// Messages are first shown in the order in which they were sent.
    MessageDisordered,
    /// A completed message is not shown again.
    ShownAgain,
    /// Nothing of a device that is passed through is stored: without a vault, as on these days, the gateway could not send it
    /// by itself.
    StoredWithoutCredential,
    /// A message that the hub never takes is refused by its receipt in the end.
    PoisonUntold,
    /// A device is shown no call that nobody made of it.
    CallInvented,
    /// What it is shown is what the caller said.
    CallCorrupt,
    /// One answer to a call is taken, and no other one.
    CallAnsweredTwice,
    /// A caller gets the answer of the device to its own call.
    CallMixedUp,
    /// An answer that the hub has, it was said, reaches a caller who still waits.
    AnswerLost,
    /// A call that was answered is not shown again.
    CallShownAgain,
}

/// The moments of trouble.
#[derive(Default)]
struct Troubles(Vec<(Moment, Trouble)>);

/// Judges a history.
///
/// # Errors
///
/// If the history cannot be read to its end.
pub(crate) fn judge(history: impl IntoIterator<Item = Result<Entry>>) -> Result<Verdict> {
    let mut troubles = Troubles::default();
    let (mut uplink, mut downlink) = (Uplink::default(), Downlink::default());
    let (mut twins, mut receipts) = (Twins::default(), Receipts::default());
    let mut calls = Calls::default();
    for entry in history {
        let Entry { at, event } = entry?;
        if let Event::Trouble { trouble } = event {
            troubles.0.push((at, trouble));
        }
        uplink.observe(at, &event);
        downlink.observe(at, &event);
        twins.observe(at, &event);
        receipts.observe(at, &event);
        calls.observe(at, &event);
    }
    // A flush's failure is known when its trace is read.
    troubles.0.sort_by_key(|(at, _)| *at);
    let mut verdict = Verdict::default();
    let is_kill = |(_, trouble): &&(Moment, Trouble)| *trouble == Trouble::Killed;
    verdict.counts.kills = troubles.0.iter().filter(is_kill).count() as u64;
    receipts.judge(&uplink, &mut verdict);
    uplink.judge(&troubles, &mut verdict);
    downlink.judge(&troubles, &mut verdict);
    twins.judge(&troubles, &mut verdict);
    calls.judge(&mut verdict);
    verdict.violations.sort();
    verdict.violations.dedup();
    Ok(verdict)
}

impl Verdict {
    fn broken(&mut self, rule: Rule, of: impl Into<String>) {
        self.violations.push(Violation {
            rule,
            of: of.into(),
        });
    }
}

impl Troubles {
    /// Whether a crash or a lost connection lies between these moments, so that copies may come.
    fn excuse_copies(&self, from: Moment, to: Moment) -> bool {
        let mut since_cuts = None;
        self.0.iter().any(|(at, trouble)| {
            let is_between = from <= *at && *at <= to;
            match trouble {
                Trouble::Killed
                | Trouble::HubAway
                | Trouble::HubBack
                | Trouble::HubStill
                | Trouble::HubGoesOn
                | Trouble::FlushFailed
                | Trouble::ClockJumped { .. }
                | Trouble::Damaged => is_between,
                // Connections are lost at any moment in between.
                Trouble::HubCuts => {
                    since_cuts = Some(*at);
                    is_between
                }
                Trouble::HubCutsNoMore => since_cuts.take() < Some(to) && from < *at,
                Trouble::Started
                | Trouble::FlushesTake { .. }
                | Trouble::DiskFull
                | Trouble::DiskFree => false,
            }
        })
    }

    /// Whether the hub may deliver again, between these moments, what the gateway keeps and takes for told: its
    /// acknowledgement was on its way when the connection was lost, or it is on no disk any more that it was there. A crash
    /// alone excuses nothing: a restart takes nothing for told.
    fn excuse_redelivery(&self, from: Moment, to: Moment) -> bool {
        let of_the_hub = self.0.iter().filter(|(_, trouble)| match trouble {
            Trouble::HubAway
            | Trouble::HubBack
            | Trouble::HubStill
            | Trouble::HubGoesOn
            | Trouble::HubCuts
            | Trouble::HubCutsNoMore
            | Trouble::Damaged => true,
            Trouble::Killed
            | Trouble::Started
            | Trouble::FlushFailed
            | Trouble::FlushesTake { .. }
            | Trouble::DiskFull
            | Trouble::DiskFree
            | Trouble::ClockJumped { .. } => false,
        });
        Self(of_the_hub.copied().collect()).excuse_copies(from, to)
    }

    /// Since when the store of the life of this moment has failed.
    fn store_failed(&self, at: Moment) -> Option<Moment> {
        let before = self.0.iter().take_while(|(moment, _)| *moment <= at);
        before.fold(None, |failed, (moment, trouble)| match trouble {
            Trouble::FlushFailed => Some(*moment),
            Trouble::Started => None,
            Trouble::Killed
            | Trouble::HubAway
            | Trouble::HubBack
            | Trouble::HubStill
            | Trouble::HubGoesOn
            | Trouble::HubCuts
            | Trouble::HubCutsNoMore
            | Trouble::FlushesTake { .. }
            | Trouble::DiskFull
            | Trouble::DiskFree
            | Trouble::ClockJumped { .. }
            | Trouble::Damaged => failed,
        })
    }

    /// How long a flush took at this moment, in microseconds, at least.
    fn flush_took(&self, at: Moment) -> Moment {
        let before = self.0.iter().take_while(|(moment, _)| *moment <= at);
        before.fold(0, |took, (_, trouble)| match trouble {
            Trouble::FlushesTake { millis } => millis * 1000,
            Trouble::Killed => 0,
            Trouble::Started
            | Trouble::HubAway
            | Trouble::HubBack
            | Trouble::HubStill
            | Trouble::HubGoesOn
            | Trouble::HubCuts
            | Trouble::HubCutsNoMore
            | Trouble::FlushFailed
            | Trouble::DiskFull
            | Trouble::DiskFree
            | Trouble::ClockJumped { .. }
            | Trouble::Damaged => took,
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.of)
    }
}

impl Counts {
    /// Adds those of another history.
    pub(crate) const fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.promised += other.promised;
        self.stored += other.stored;
        self.delivered += other.delivered;
        self.delivered_unpromised += other.delivered_unpromised;
        self.duplicated += other.duplicated;
        self.lost += other.lost;
        self.out_of_order += other.out_of_order;
        self.cloud_sent += other.cloud_sent;
        self.cloud_shown += other.cloud_shown;
        self.cloud_completed += other.cloud_completed;
        self.cloud_duplicated += other.cloud_duplicated;
        self.patches += other.patches;
        self.receipts += other.receipts;
        self.calls += other.calls;
        self.calls_answered += other.calls_answered;
        self.kills += other.kills;
    }
}
