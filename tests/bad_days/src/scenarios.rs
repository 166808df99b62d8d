//! The kinds of bad days.

mod clock;
mod damage;
mod disk;
mod flush_fails;
mod hub_away;
mod kill;
mod poison;
mod stand_still;

use std::{process::ExitCode, time::Instant};

use anyhow::Result;
use clap::ValueEnum as _;
use tokio::time::{Duration, sleep};

use crate::{
    checker::{Counts, Verdict, Violation},
    day::{Day, Special},
    options::{Plan, Scenario, say, say_violations},
    rig::Crowd,
    workload::{Load, telemetry::ALL_WAYS},
};

/// What came of a scenario.
#[derive(Default, Debug)]
pub(crate) struct Outcome {
    counts: Counts,
    violations: Vec<Violation>,
    /// What else was seen.
    remarks: Vec<String>,
    /// Why it did not happen here.
    skipped: Option<String>,
}

impl Outcome {
    fn skipped(why: &str) -> Self {
        Self {
            skipped: Some(why.to_owned()),
            ..Self::default()
        }
    }

    fn add(&mut self, verdict: Verdict) {
        self.counts.add(&verdict.counts);
        self.violations.extend(verdict.violations);
    }

    fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(remark.into());
    }
}

/// Lets days happen, one after the other. Succeeds if nothing was there that must not be.
pub(crate) async fn run(plan: &Plan) -> Result<ExitCode> {
    let scenarios = match plan.scenarios.as_slice() {
        [] => Scenario::value_variants(),
        named => named,
    };
    let mut failed = Vec::new();
    for scenario in scenarios {
        let began = Instant::now();
        say(&format!("== {} (seed {})", scenario.name(), plan.seed));
        match happen(plan, *scenario).await {
            Ok(outcome) => {
                if !tell(*scenario, &outcome, began) {
                    failed.push(scenario.name());
                }
            }
            Err(error) => {
                say(&format!("failed: {error:#}"));
                failed.push(scenario.name());
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "bad days that were too bad: {}",
        failed.join(", ")
    ));
    Ok(ExitCode::FAILURE)
}

async fn happen(plan: &Plan, scenario: Scenario) -> Result<Outcome> {
    match scenario {
        Scenario::Quiet => quiet(plan).await,
        Scenario::Kill => kill::happen(plan).await,
        Scenario::HubAway => hub_away::happen(plan).await,
        Scenario::HubStandsStill => stand_still::happen(plan).await,
        Scenario::Poison => poison::happen(plan).await,
        Scenario::FlushFails => flush_fails::happen(plan).await,
        Scenario::DiskFull => disk::full(plan).await,
        Scenario::ReadOnly => disk::read_only(plan).await,
        Scenario::SlowDisk => disk::slow(plan).await,
        Scenario::Damage => damage::happen(plan).await,
        Scenario::Clock => clock::happen(plan).await,
    }
}

/// Says what came of it; false if something was there that must not be.
fn tell(scenario: Scenario, outcome: &Outcome, began: Instant) -> bool {
    if let Some(why) = &outcome.skipped {
        say(&format!("skipped: bad day {}: {why}", scenario.name()));
        return true;
    }
    let counts = &outcome.counts;
    for remark in &outcome.remarks {
        say(remark);
    }
    say(&format!(
        "{} s: {} kills, {} sent, {} promised ({} stored), {} delivered, {} duplicated, {} lost, {} out of order; to devices \
         {} sent, {} shown, {} completed, {} duplicated; {} patches, {} receipts; {} methods shown, {} answered",
        began.elapsed().as_secs(),
        counts.kills,
        counts.sent,
        counts.promised,
        counts.stored,
        counts.delivered,
        counts.duplicated,
        counts.lost,
        counts.out_of_order,
        counts.cloud_sent,
        counts.cloud_shown,
        counts.cloud_completed,
        counts.cloud_duplicated,
        counts.patches,
        counts.receipts,
        counts.calls,
        counts.calls_answered,
    ));
    if scenario == Scenario::Kill {
        say(&format!(
            "{:.2} % of what was sent came twice, {:.1} messages a kill",
            share(counts.duplicated, counts.sent) * 100.0,
            share(counts.duplicated, counts.kills),
        ));
    }
    say_violations(&outcome.violations) == ExitCode::SUCCESS
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn share(part: u64, of: u64) -> f64 {
    part as f64 / of.max(1) as f64
}

/// Nothing goes wrong: whatever is seen on other days is the trouble's doing.
async fn quiet(plan: &Plan) -> Result<Outcome> {
    let seconds = plan.rounds.unwrap_or(if plan.long { 60 } else { 10 });
    let mut day = Day::begin(plan, Scenario::Quiet, 0, EVERYBODY, Special::default()).await?;
    let mut outcome = Outcome::default();
    outcome.remark(format!("in {}", day.folder().display()));
    day.work(BUSY);
    sleep(Duration::from_secs(seconds.into())).await;
    outcome.add(day.end().await?);
    Ok(outcome)
}

/// As many as it takes to send so much without waiting for each other, some of every kind.
const EVERYBODY: Crowd = Crowd {
    devices: 16,
    modules: 2,
    passed_through: 2,
};
/// 500 messages a second in every way, and all else that devices do.
const BUSY: Load = Load {
    messages_per_second: 500,
    cloud_messages_per_second: 20,
    calls_per_second: 10,
    ways: ALL_WAYS,
};
