//! The gateway's wall clock jumps while it works, by an hour, by days, by a year, forward and back, and sometimes it is killed
//! meanwhile. libfaketime moves the wall clock alone, as an operator or a time server does; the monotonic clock goes on.

use std::{fs, path::PathBuf};

use anyhow::Result;
use tokio::time::{Duration, sleep};

use super::Outcome;
use crate::{
    day::{Day, Special},
    history::Trouble,
    options::{Plan, Scenario},
    process::Line,
    rig::Crowd,
    workload::{Load, telemetry::ALL_WAYS},
};

/// 8 kinds of jumps.
pub(super) async fn happen(plan: &Plan) -> Result<Outcome> {
    let Some(library) = library() else {
        return Ok(Outcome::skipped("libfaketime is not installed"));
    };
    let mut outcome = Outcome::default();
    let mut day = Day::begin(
        plan,
        Scenario::Clock,
        0,
        Crowd::of_devices(8),
        Special::default(),
    )
    .await?;
    outcome.remark(format!("in {}", day.folder().display()));
    let clock = day.folder().join("clock");
    fs::write(&clock, "+0")?;
    let runner = Line {
        words: Vec::new(),
        environment: vec![
            ("LD_PRELOAD".into(), library.into()),
            ("FAKETIME_TIMESTAMP_FILE".into(), clock.clone().into()),
            ("FAKETIME_NO_CACHE".into(), "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ],
    };
    day.rig.kill_gateway().await?;
    day.rig.start_gateway(&runner).await?;
    day.work(Load {
        messages_per_second: 100,
        cloud_messages_per_second: 8,
        calls_per_second: 0,
        ways: ALL_WAYS,
    });
    let stay = Duration::from_secs(if plan.long { 20 } else { 3 });
    for (number, seconds) in JUMPS.into_iter().enumerate() {
        for to in [seconds, 0] {
            // Under another name first: nobody reads half of it.
            let fresh = clock.with_extension("new");
            fs::write(&fresh, format!("{to:+}"))?;
            fs::rename(&fresh, &clock)?;
            day.rig
                .recorder
                .trouble(Trouble::ClockJumped { seconds: to });
            sleep(stay).await;
            if (number % 3 == 0) == (to == 0) {
                day.rig.kill_gateway().await?;
                day.rig.start_gateway(&runner).await?;
            }
        }
    }
    outcome.remark(format!("{} jumps of its clock, and back", JUMPS.len()));
    outcome.add(day.end().await?);
    Ok(outcome)
}

fn library() -> Option<PathBuf> {
    let libraries = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib",
    ];
    libraries
        .iter()
        .map(|folder| PathBuf::from(folder).join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
}

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const JUMPS: [i64; 8] = [
    HOUR,
    -HOUR,
    10 * DAY,
    -10 * DAY,
    365 * DAY,
    -365 * DAY,
    60,
    -60,
];
