//! A gateway under strace, which lets system calls fail or take long, and tells what became of them.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};

use crate::process::Line;

/// Why it cannot be used here, if it cannot.
pub(crate) fn is_missing() -> Option<&'static str> {
    let mut try_it = Command::new("strace");
    try_it.args([
        "-D",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "inject=fsync:error=EIO",
        "true",
    ]);
    let tried = try_it.stdout(Stdio::null()).stderr(Stdio::null()).status();
    match tried {
        Err(_) => Some("strace is not installed"),
        Ok(status) if !status.success() => Some("ptrace is not allowed"),
        Ok(_) => None,
    }
}

/// Runs a program with something injected, and writes what it does with files to a trace.
pub(crate) fn injecting(what: &str, only: Option<&Path>, trace: &Path) -> Line {
    let line = Line::new("strace").with([
        // The program is the child, the tracer is its grandchild: signals are for the program.
        "-D",
        "-f",
        "--seccomp-bpf",
        "-ttt",
        "-y",
        "-s",
        "0",
        "-e",
        "trace=write,lseek,fdatasync,fsync",
        "-e",
        "signal=none",
        "-e",
    ]);
    let line = line.with([format!("inject={what}")]);
    let line = match only {
        Some(path) => line.with(["-P".as_ref(), path.as_os_str()]),
        None => line,
    };
    line.with(["-o".as_ref(), trace.as_os_str()])
}

/// What a trace says.
#[derive(Default, Debug)]
pub(crate) struct Trace {
    /// Files, with what was written to each and not flushed.
    pub(crate) files: BTreeMap<PathBuf, Unflushed>,
    /// The calls that something was injected into: when, and on what.
    pub(crate) injected: Vec<(SystemTime, PathBuf)>,
}

/// Of a file that began empty.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Unflushed {
    /// Where the next byte goes.
    position: u64,
    /// What was written since the last flush.
    pub(crate) ranges: Vec<Range<u64>>,
}

impl Trace {
    /// Reads a trace.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("could not read {}", path.display()))?;
        Ok(Self::of(&text))
    }

    fn of(text: &str) -> Self {
        let mut trace = Self::default();
        // A call of one thread may be torn in two by one of another.
        let mut begun: BTreeMap<&str, String> = BTreeMap::new();
        for line in text.lines() {
            // Numbers of threads are padded.
            let Some((thread, rest)) = line.trim_start().split_once(' ') else {
                continue;
            };
            let Some((when, call)) = rest.trim_start().split_once(' ') else {
                continue;
            };
            if let Some((start, _)) = call.split_once(" <unfinished ...>") {
                begun.insert(thread, start.to_owned());
            } else if let Some((_, rest)) = call.split_once(" resumed>") {
                let start = begun.remove(thread).unwrap_or_default();
                trace.called(when, &(start + rest));
            } else {
                trace.called(when, call);
            }
        }
        trace
    }

    fn called(&mut self, when: &str, call: &str) {
        let Some((name, rest)) = call.split_once('(') else {
            return;
        };
        let path = rest
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'));
        let (Some((path, _)), Some((_, result))) = (path, call.rsplit_once(" = ")) else {
            return;
        };
        let path = PathBuf::from(path);
        if result.contains("(INJECTED)") {
            let seconds: f64 = when.parse().unwrap_or_default();
            let at = UNIX_EPOCH + Duration::from_secs_f64(seconds);
            self.injected.push((at, path.clone()));
        }
        let result = result.split_whitespace().next();
        let result: Option<u64> = result.and_then(|number| number.parse().ok());
        let (Some(result), file) = (result, self.files.entry(path).or_default()) else {
            return;
        };
        match name {
            "lseek" => file.position = result,
            "write" => {
                let from = file.position;
                file.position += result;
                file.ranges.push(from..file.position);
            }
            "fdatasync" | "fsync" => file.ranges.clear(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_says_what_was_flushed_and_what_failed() {
        let trace = Trace::of(
            "7  1700000000.000001 write(9</s/1.log>, \"\"..., 100) = 100\n\
             7 1700000000.000002 fdatasync(9</s/1.log> <unfinished ...>\n\
             8 1700000000.000003 write(1</dev/null>, \"\"..., 5) = 5\n\
             7 1700000000.000004 <... fdatasync resumed>) = 0\n\
             7 1700000000.000005 lseek(9</s/1.log>, 90, SEEK_SET) = 90\n\
             7 1700000000.000005 write(9</s/1.log>, \"\"..., 50) = 50\n\
             7 1700000001.500000 fdatasync(9</s/1.log>) = -1 EIO (Input/output error) (INJECTED)\n\
             7 1700000002.000000 +++ exited with 0 +++\n",
        );
        let unflushed = &trace.files[Path::new("/s/1.log")];
        assert_eq!(unflushed.position, 140);
        assert_eq!(unflushed.ranges, std::slice::from_ref(&(90..140)));
        let at = UNIX_EPOCH + Duration::from_secs_f64(1_700_000_001.5);
        assert_eq!(trace.injected, [(at, PathBuf::from("/s/1.log"))]);
    }
}
