//! The hub is away for a time. What is stored meanwhile is delivered when it is back, and whoever has nothing stored does
//! not wait for it.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use tokio::time::{Duration, Instant, sleep};

use super::{BUSY, EVERYBODY, Outcome};
use crate::{
    day::{Day, Special},
    history::{self, Entry, Event, Moment, Promise},
    options::{Plan, Scenario},
    workload::{
        Load,
        telemetry::{STORING, WAITING},
    },
};

/// 30 seconds, or 10 minutes.
pub(super) async fn happen(plan: &Plan) -> Result<Outcome> {
    let seconds = plan.rounds.unwrap_or(if plan.long { 600 } else { 30 });
    let mut day = Day::begin(plan, Scenario::HubAway, 0, EVERYBODY, Special::default()).await?;
    let mut outcome = Outcome::default();
    outcome.remark(format!("in {}", day.folder().display()));
    let quiet = day
        .workload
        .set_one_aside()
        .context("there are several devices")?;
    day.work(Load {
        messages_per_second: 50,
        ..BUSY
    });
    day.work(Load {
        messages_per_second: 450,
        cloud_messages_per_second: 0,
        calls_per_second: 0,
        ways: STORING,
    });
    sleep(WARM_UP).await;
    let cloud = day.rig.hub.cloud();
    cloud.go_away().await?;
    sleep(Duration::from_secs(seconds.into())).await;
    let stored = day.rig.recorder.owed().up;
    cloud.come_back().await?;
    let back = Instant::now();
    // The device that has sent nothing meanwhile.
    day.workload.begin_with(&quiet, WAITING, 20.0);
    let deadline = back + Duration::from_secs(60) + Duration::from_secs(u64::from(seconds) * 2);
    // While new messages go on coming, some are always under way.
    while day.rig.recorder.owed().up > UNDER_WAY && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
    }
    let took = back.elapsed();
    let rate = stored as f64 / took.as_secs_f64();
    outcome.remark(format!(
        "{stored} messages were stored when the hub came back; {:.1} s until fewer than {UNDER_WAY} were, that is {rate:.0} \
         of them a second beside 500 new ones",
        took.as_secs_f64()
    ));
    let (verdict, latencies) = day.end_and(|path| latencies(path, &quiet.id)).await?;
    outcome.remark(latencies);
    outcome.add(verdict);
    Ok(outcome)
}

/// How long a device waited for the hub.
fn latencies(history: &Path, id: &str) -> Result<String> {
    let mut sent: BTreeMap<String, Moment> = BTreeMap::new();
    let mut took = Vec::new();
    for entry in history::read(history)? {
        let Entry { at, event } = entry?;
        if let Event::Sending { device, name, .. } = &event
            && device == id
        {
            sent.insert(name.clone(), at);
        }
        if let Event::Promised {
            name,
            promise: Promise::Hub,
            ..
        } = event
        {
            took.extend(sent.remove(&name).map(|sent| at - sent));
        }
    }
    took.sort_unstable();
    let millis = |of_100: usize| {
        let place = took.len().saturating_sub(1) * of_100 / 100;
        took.get(place).copied().unwrap_or_default() / 1000
    };
    Ok(format!(
        "a device with nothing stored: {} messages since then, {} unanswered by the hub; {} ms at the median, {} ms at p99, {} ms \
         at most",
        took.len(),
        sent.len(),
        millis(50),
        millis(99),
        millis(100)
    ))
}

const WARM_UP: Duration = Duration::from_secs(3);
/// Messages that are promised and on their way at 500 a second, when nothing is stored up.
const UNDER_WAY: usize = 50;
