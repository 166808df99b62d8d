//! What machine the figures come from, and who else used it meanwhile.

use std::fs;
use std::time::Duration;

use serde::Serialize;

use crate::process;

/// Written above every table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// Versions of what is not built here.
    pub(crate) programs: Vec<String>,
}

impl Machine {
    /// Looks around. What cannot be found out is said to be unknown.
    pub(crate) async fn look() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let total_kib: f64 = value(&memory, "MemTotal")
            .and_then(|text| text.strip_suffix(" kB")?.parse().ok())
            .unwrap_or_default();
        let mut programs = Vec::new();
        for (program, argument) in [
            ("rustc", "--version"),
            ("mosquitto", "-h"),
            ("/usr/sbin/mosquitto", "-h"),
            ("node", "--version"),
        ] {
            programs.extend(version(program, argument).await);
        }
        programs.dedup();
        Self {
            processor: value(&processors, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: total_kib / (1024.0 * 1024.0),
            kernel: kernel.trim().to_owned(),
            programs,
        }
    }
}

/// The processor time that all processes together have used so far.
///
/// Interrupts are left out: on loopback they are the measured traffic's own and belong to no process.
pub(crate) fn busy_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks = busy_ticks(&stat)?;
    Some(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// user + nice + system of proc(5).
fn busy_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace();
    (0..3).map(|_| fields.next()?.parse::<u64>().ok()).sum()
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim())
}

async fn version(program: &str, argument: &str) -> Option<String> {
    // Mosquitto tells its version with its help, and exits with 3.
    let output = tokio::process::Command::new(program)
        .arg(argument)
        .output()
        .await
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    let name = program.rsplit('/').next()?;
    Some(if line.starts_with(name) {
        line.to_owned()
    } else {
        format!("{name} {line}")
    })
}

/// The processor time of others between two moments, as a share of the whole machine.
#[derive(Debug)]
pub(crate) struct Neighbours {
    busy: Option<Duration>,
    own: Duration,
}

impl Neighbours {
    /// Begins to watch; `ours` are the processes that do not count.
    pub(crate) fn watch(ours: &[u32]) -> anyhow::Result<Self> {
        Ok(Self {
            busy: busy_time(),
            own: total(ours)?,
        })
    }

    /// Their share since then, from 0 to 1, if the system tells.
    pub(crate) fn share(&self, ours: &[u32], elapsed: Duration) -> anyhow::Result<Option<f64>> {
        let (Some(before), Some(after)) = (self.busy, busy_time()) else {
            return Ok(None);
        };
        let own = total(ours)?.saturating_sub(self.own);
        let others = after.saturating_sub(before).saturating_sub(own);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Some(
            others.as_secs_f64() / (elapsed.as_secs_f64() * cores as f64),
        ))
    }
}

fn total(pids: &[u32]) -> anyhow::Result<Duration> {
    pids.iter().map(|&pid| process::processor_time(pid)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_processes_used() {
        let stat = "cpu  100 5 20 900 1 2 3 4 0 0\ncpu0 50 2 10 450 0 1 1 2 0 0\n";
        assert_eq!(busy_ticks(stat), Some(125));
    }

    #[test]
    fn values_are_found_by_their_key() {
        let text = "processor\t: 0\nmodel name\t: A 1: B\n";
        assert_eq!(value(text, "model name"), Some("A 1: B"));
        assert_eq!(value(text, "none"), None);
    }
}
