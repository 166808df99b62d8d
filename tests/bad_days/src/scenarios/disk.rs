//! A disk that is full, that becomes read-only, that is slow.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tokio::time::sleep;

use super::Outcome;
use crate::{
    day::{Day, Special},
    device::{Answer, Device},
    history::Trouble,
    options::{Plan, Scenario},
    process::Line,
    rig::Crowd,
    strace::{self, Trace},
    workload::{
        Load,
        telemetry::{ALL_WAYS, STORING},
    },
};

/// The disk is full at 3 moments, or 20: what would have to be stored is refused with 507, what the hub takes goes on, and a
/// gateway that is killed meanwhile starts again when there is room.
pub(super) async fn full(plan: &Plan) -> Result<Outcome> {
    let moments = plan.rounds.unwrap_or(if plan.long { 20 } else { 3 });
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(error) => {
            return Ok(Outcome::skipped(&format!(
                "no file system can be mounted: {error}"
            )));
        }
    };
    let special = Special {
        disk: "segment_bytes = 65536".to_owned(),
        store: Some(disk.0.path().join("store")),
    };
    let mut day = Day::begin(plan, Scenario::DiskFull, 0, Crowd::of_devices(6), special).await?;
    let mut outcome = Outcome::default();
    outcome.remark(format!("in {}", day.folder().display()));
    let probe = day
        .workload
        .set_one_aside()
        .context("there are several devices")?;
    day.work(Load {
        messages_per_second: 100,
        cloud_messages_per_second: 6,
        calls_per_second: 0,
        ways: ALL_WAYS,
    });
    let mut slowest = Duration::ZERO;
    for moment in 0..moments {
        sleep(BETWEEN).await;
        disk.fill()?;
        day.rig.recorder.trouble(Trouble::DiskFull);
        let refused = until(&probe, STORED, 507).await?;
        ensure!(refused.body["code"] == "storage_full", "{}", refused.body);
        ensure!(refused.header("retry-after").is_some(), "no Retry-After");
        let taken = write(&probe, WAITED).await.context("no answer")?;
        ensure!(taken.status == 204, "the hub took it: {}", taken.body);
        let is_killed = moment % 3 == 2;
        if is_killed {
            day.rig.kill_gateway().await?;
        }
        disk.free()?;
        day.rig.recorder.trouble(Trouble::DiskFree);
        if is_killed {
            day.rig.start_gateway(&Line::default()).await?;
        }
        let free = Instant::now();
        until(&probe, STORED, 202).await?;
        slowest = slowest.max(free.elapsed());
    }
    ensure!(slowest < RECOVERY, "it was stored again after {slowest:?}");
    outcome.remark(format!(
        "full {moments} times: 507 each time, 204 for what the hub took; stored again {} ms after there was room at most",
        slowest.as_millis()
    ));
    outcome.add(day.end().await?);
    Ok(outcome)
}

/// A write that is stored, and one that is not.
const STORED: &str = "respond-async";
const WAITED: &str = "wait=5";

/// Writes until it is answered so.
async fn until(device: &Device, prefer: &str, status: u16) -> Result<Answer> {
    let began = Instant::now();
    loop {
        let answer = write(device, prefer).await;
        if let Some(answer) = answer {
            if answer.status == status {
                return Ok(answer);
            }
            ensure!(
                began.elapsed() < BOUND,
                "{status} is not answered, but {} {}",
                answer.status,
                answer.body
            );
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn write(device: &Device, prefer: &str) -> Option<Answer> {
    let prefer = |request: reqwest::RequestBuilder| request.header("prefer", prefer);
    crate::workload::telemetry::probe(device, prefer).await
}

/// Writes of the store fail as on a disk that has become read-only: the gateway ends with an error, and everything that it
/// promised is there when the disk is as before.
pub(super) async fn read_only(plan: &Plan) -> Result<Outcome> {
    if let Some(why) = strace::is_missing() {
        return Ok(Outcome::skipped(why));
    }
    let moments = plan.rounds.unwrap_or(if plan.long { 20 } else { 3 });
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut day = Day::begin(
        plan,
        Scenario::ReadOnly,
        0,
        Crowd::of_devices(6),
        Special::default(),
    )
    .await?;
    let mut outcome = Outcome::default();
    outcome.remark(format!("in {}", day.folder().display()));
    day.work(Load {
        messages_per_second: 100,
        cloud_messages_per_second: 6,
        calls_per_second: 0,
        ways: ALL_WAYS,
    });
    for _ in 0..moments {
        day.rig.kill_gateway().await?;
        let trace = day.folder().join("trace");
        let what = format!("write:error=EROFS:when={}+", rng.u32(2..100));
        let segment = next_segment(&day.rig.store)?;
        let runner = strace::injecting(&what, Some(&segment), &trace);
        day.rig.start_gateway(&runner).await?;
        let (status, printed) = day.rig.gateway_ended(BOUND).await?;
        ensure!(!status.success(), "it ended with {status}");
        ensure!(printed.contains("the store has failed"), "{printed}");
        let (at, _) = *Trace::read(&trace)?
            .injected
            .first()
            .context("nothing was injected")?;
        let trouble = Trouble::FlushFailed;
        let recorder = &day.rig.recorder;
        let event = crate::history::Event::Trouble { trouble };
        recorder.note_at(recorder.moment_of(at), event);
        day.rig.start_gateway(&Line::default()).await?;
        sleep(BETWEEN).await;
    }
    outcome.remark(format!(
        "read-only {moments} times: it ended with an error each time"
    ));
    outcome.add(day.end().await?);
    Ok(outcome)
}

/// Each flush takes 300 ms: nothing is promised as stored before, and what the hub takes does not wait for the disk.
pub(super) async fn slow(plan: &Plan) -> Result<Outcome> {
    if let Some(why) = strace::is_missing() {
        return Ok(Outcome::skipped(why));
    }
    let mut day = Day::begin(
        plan,
        Scenario::SlowDisk,
        0,
        Crowd::of_devices(6),
        Special::default(),
    )
    .await?;
    let mut outcome = Outcome::default();
    outcome.remark(format!("in {}", day.folder().display()));
    let probe = day
        .workload
        .set_one_aside()
        .context("there are several devices")?;
    day.work(Load {
        messages_per_second: 100,
        cloud_messages_per_second: 0,
        calls_per_second: 0,
        ways: STORING,
    });
    let delays: &[u64] = if plan.long {
        &[300, 1000, 2000]
    } else {
        &[300]
    };
    for millis in delays {
        day.rig.kill_gateway().await?;
        let what = format!("fdatasync:delay_exit={}", millis * 1000);
        let runner = strace::injecting(&what, None, Path::new("/dev/null"));
        day.rig.start_gateway(&runner).await?;
        day.rig
            .recorder
            .trouble(Trouble::FlushesTake { millis: *millis });
        // The first one opens the session.
        until(&probe, WAITED, 204).await?;
        let began = Instant::now();
        for _ in 0..PROBES {
            let taken = write(&probe, WAITED).await.context("no answer")?;
            ensure!(taken.status == 204, "the hub took it: {}", taken.body);
        }
        let each = began.elapsed() / PROBES;
        ensure!(
            each < Duration::from_millis(*millis) / 2,
            "what the hub takes waits for the disk: {each:?}"
        );
        sleep(Duration::from_millis(20 * millis)).await;
        outcome.remark(format!(
            "{millis} ms a flush: what the hub takes was answered in {} ms",
            each.as_millis()
        ));
    }
    day.rig.kill_gateway().await?;
    day.rig.start_gateway(&Line::default()).await?;
    outcome.add(day.end().await?);
    Ok(outcome)
}

/// The file that the store begins when it is opened.
fn next_segment(store: &Path) -> Result<PathBuf> {
    let mut last = 0;
    for entry in fs::read_dir(store)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        let number = name
            .strip_suffix(".log")
            .and_then(|number| number.parse().ok());
        last = last.max(number.unwrap_or(0));
    }
    Ok(store.join(format!("{:010}.log", last + 1)))
}

/// A file system of its own, in memory, that is soon full.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let options = c"size=24m,mode=0700";
        mount(
            "tmpfs",
            folder.path(),
            "tmpfs",
            MountFlags::empty(),
            options,
        )?;
        Ok(Self(folder))
    }

    /// Takes all the room that there is.
    fn fill(&self) -> Result<()> {
        let filled = fs::write(self.ballast(), vec![0; 32 << 20]);
        match filled {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => bail!("the disk is larger than it was made"),
        }
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A gateway that is being killed may still have it.
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

const BETWEEN: Duration = Duration::from_secs(1);
/// "Resumes by itself within 5 s of space returning".
const RECOVERY: Duration = Duration::from_secs(5);
const BOUND: Duration = Duration::from_secs(30);
const PROBES: u32 = 20;
