//! The n-th flush fails, once or from then on. Whatever was not flushed before is then taken away, as a disk does that has
//! lost it: the page cache of a file is no disk.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::Outcome;
use crate::{
    day::{Day, Special},
    history::{Event, Trouble},
    options::{Plan, Scenario},
    process::Line,
    rig::Crowd,
    strace::{self, Trace},
    workload::{Load, telemetry::STORING},
};

/// Some numbers, or 1 to 200.
pub(super) async fn happen(plan: &Plan) -> Result<Outcome> {
    if let Some(why) = strace::is_missing() {
        return Ok(Outcome::skipped(why));
    }
    let mut outcome = Outcome::default();
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut day = Day::begin(
        plan,
        Scenario::FlushFails,
        0,
        Crowd::of_devices(6),
        Special::default(),
    )
    .await?;
    outcome.remark(format!("in {}", day.folder().display()));
    day.work(Load {
        messages_per_second: 100,
        cloud_messages_per_second: 6,
        calls_per_second: 0,
        ways: STORING,
    });
    day.rig.kill_gateway().await?;
    let faults = faults(plan);
    let (mut ended, mut survived, mut refused) = (0, 0, 0);
    for fault in &faults {
        match life(&mut day, fault, &mut rng).await? {
            End::Failed => ended += 1,
            End::Survived => survived += 1,
            End::NotStarted => refused += 1,
        }
    }
    day.rig.start_gateway(&Line::default()).await?;
    outcome.add(day.end().await?);
    outcome.remark(format!(
        "{} flushes failed: {ended} gateways ended with an error, {survived} lived on because it was the mark's, {refused} did \
         not start",
        faults.len()
    ));
    Ok(outcome)
}

fn faults(plan: &Plan) -> Vec<String> {
    let most = plan.rounds.unwrap_or(200);
    let numbers: Vec<u32> = if plan.long {
        (1..=most).collect()
    } else {
        vec![1, 2, 3, 5, 8, 13, 40]
    };
    let mut faults: Vec<_> = numbers
        .iter()
        .flat_map(|number| {
            let once = format!("fdatasync:error=EIO:when={number}");
            let lasting = format!("fdatasync:error=EIO:when={number}+");
            [Some(once), plan.long.then_some(lasting)]
        })
        .flatten()
        .collect();
    faults.push("fsync:error=EIO:when=1".to_owned());
    faults.push("fdatasync,fsync:error=EIO:when=4+".to_owned());
    faults
}

enum End {
    /// It said that the store has failed, and ended.
    Failed,
    /// It was not a flush of what is promised.
    Survived,
    /// The start needed that flush.
    NotStarted,
}

/// A life in which a flush fails, and what the disk makes of it.
async fn life(day: &mut Day, fault: &str, rng: &mut fastrand::Rng) -> Result<End> {
    let trace = day.folder().join("trace");
    let runner = strace::injecting(fault, None, &trace);
    let began = Instant::now();
    let end = match day.rig.start_gateway(&runner).await {
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains("store"), "a start that says nothing: {text}");
            End::NotStarted
        }
        Ok(_) => loop {
            if !day.rig.gateway_runs()? {
                let (status, printed) = day.rig.gateway_ended(Duration::ZERO).await?;
                ensure!(!status.success(), "{fault}: it ended with {status}");
                ensure!(
                    printed.contains("the store has failed") && printed.contains("start again"),
                    "{fault}: it did not say what to do: {printed}"
                );
                break End::Failed;
            }
            let injected = Trace::read(&trace)?.injected;
            if let Some((_, path)) = injected.first()
                && !is_log(path)
                && began.elapsed() > LIVES_ON
            {
                day.rig.kill_gateway().await?;
                break End::Survived;
            }
            ensure!(began.elapsed() < BOUND, "{fault}: nothing came of it");
            sleep(Duration::from_millis(50)).await;
        },
    };
    let trace = Trace::read(&trace)?;
    let (at, _) = trace.injected.first().context("nothing was injected")?;
    if matches!(end, End::Failed) {
        let trouble = Trouble::FlushFailed;
        let recorder = &day.rig.recorder;
        recorder.note_at(recorder.moment_of(*at), Event::Trouble { trouble });
    }
    forget_unflushed(&trace, rng)
        .context("could not forget what was not flushed")
        .map(|()| end)
}

/// Overwrites what was written and not flushed, or a part of it, with zeros.
fn forget_unflushed(trace: &Trace, rng: &mut fastrand::Rng) -> Result<()> {
    for (path, unflushed) in &trace.files {
        if !is_log(path) || unflushed.ranges.is_empty() {
            continue;
        }
        let mut file = OpenOptions::new().write(true).open(path)?;
        for range in &unflushed.ranges {
            let from = rng.u64(range.start..=range.end);
            file.seek(SeekFrom::Start(from))?;
            io::copy(&mut io::repeat(0).take(range.end - from), &mut file)?;
        }
    }
    Ok(())
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "log")
}

/// Long enough for a hundred flushes under the load.
const BOUND: Duration = Duration::from_secs(60);
/// How long a gateway has to live after a flush that nobody was promised.
const LIVES_ON: Duration = Duration::from_secs(3);
