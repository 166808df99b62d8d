//! Processes: started on a leash, read from `/proc`, stopped in the end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A running process of the bench. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it prints goes to a file beside the others' in `folder`.
    pub(crate) fn start<I, S>(
        name: &str,
        program: impl AsRef<OsStr>,
        arguments: I,
        folder: &Path,
    ) -> anyhow::Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let log = folder.join(format!("{}.log", name.replace(' ', "-")));
        let output =
            File::create(&log).with_context(|| format!("could not create {}", log.display()))?;
        let child = leashed(program, arguments)?
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Asks it to end, and makes it end when it takes longer than 5 s.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
        {
            kill_process(pid, Signal::TERM)
                .with_context(|| format!("could not stop {}", self.name))?;
        }
        match timeout(STOPPING, self.child.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => self.child.kill().await,
        }
        .with_context(|| format!("could not stop {}", self.name))
    }

    /// Fails with the end of its log if the process is no more.
    pub(crate) fn ensure_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    /// What it has printed.
    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process's number.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        self.child
            .id()
            .with_context(|| format!("{} has ended", self.name))
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        let printed = self.printed();
        let lines: Vec<_> = printed.lines().collect();
        let tail = &lines[lines.len().saturating_sub(10)..];
        anyhow!(
            "{} ended by itself ({status}); it printed:\n{}",
            self.name,
            tail.join("\n")
        )
    }
}

/// Runs a program to its end and returns what it printed.
pub(crate) async fn output<I, S>(
    name: &str,
    program: impl AsRef<OsStr>,
    arguments: I,
    limit: Duration,
) -> anyhow::Result<Vec<u8>>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = leashed(program, arguments)?;
    command.stdin(Stdio::null());
    let output = timeout(limit, command.output())
        .await
        .with_context(|| format!("{name} took longer than {limit:?}"))?
        .with_context(|| format!("could not start {name}"))?;
    if !output.status.success() {
        bail!(
            "{name} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

/// The role that becomes another program. The kernel kills it when the conductor ends, however that happens.
pub(crate) fn leash(command: &[String]) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("no program was named")?;
    // Other systems have no such signal: there it is the conductor alone who stops its children.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(anyhow!(error).context(format!("could not start {program}")))
}

fn leashed<I, S>(program: impl AsRef<OsStr>, arguments: I) -> anyhow::Result<Command>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let own = std::env::current_exe().context("could not find this program's own file")?;
    let mut command = Command::new(own);
    command
        .args(["leashed", "--"])
        .arg(program)
        .args(arguments)
        .kill_on_drop(true);
    Ok(command)
}

/// Long enough for a gateway that says goodbye to 10,000 sessions.
const STOPPING: Duration = Duration::from_secs(5);

/// The processor time that a process has used, in user and kernel mode.
pub(crate) fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    let ticks = ticks_of(&text).with_context(|| format!("{path} has another form"))?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{path} has another form"))
}

/// utime + stime, fields 14 and 15 of proc(5); the second field may hold spaces and parentheses.
fn ticks_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_difficult_name_is_read() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 17 5 0 0 20 0 3 0 100 200 300";
        assert_eq!(ticks_of(line), Some(22));
    }

    #[test]
    fn this_process_can_be_read() {
        let own = std::process::id();
        assert!(resident_kib(own).unwrap() > 100);
        processor_time(own).unwrap();
    }
}
