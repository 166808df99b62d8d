//! Processes: started on a leash, killed when they are dropped.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// A running process. What it prints goes to a file.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// Where what this process printed begins in the file.
    from: u64,
}

/// What is to be run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// Program and arguments.
    pub(crate) words: Vec<OsString>,
    /// Environment variables.
    pub(crate) environment: Vec<(OsString, OsString)>,
}

impl Line {
    /// A program without arguments.
    pub(crate) fn new(program: impl Into<OsString>) -> Self {
        Self {
            words: vec![program.into()],
            environment: Vec::new(),
        }
    }

    /// With these arguments.
    pub(crate) fn with<A: Into<OsString>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// Run by this other program.
    pub(crate) fn run_by(self, runner: &Self) -> Self {
        let mut words = runner.words.clone();
        words.extend(self.words);
        let mut environment = runner.environment.clone();
        environment.extend(self.environment);
        Self { words, environment }
    }
}

impl Process {
    /// Starts a program; what it prints is appended to a file.
    pub(crate) fn start(line: &Line, log: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("could not open {}", log.display()))?;
        let from = file.metadata()?.len();
        let child = leashed(line)?
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("could not start {:?}", line.words))?;
        Ok(Self { child, log, from })
    }

    /// Waits until it prints a line with these words, and gives the line.
    pub(crate) async fn until_printed(&mut self, words: &str) -> Result<String> {
        let deadline = Instant::now() + STARTING;
        loop {
            let printed = self.printed()?;
            // A line that is not yet whole will be.
            let whole = printed.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().find(|line| line.contains(words)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended by itself ({status}): {}", self.end_of_log());
            }
            if Instant::now() > deadline {
                bail!("it was not ready in {STARTING:?}: {}", self.end_of_log());
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends it as a power cut does: it has no time for anything.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().await.context("could not kill it")?;
        leaks::keep(&self.printed()?);
        Ok(())
    }

    /// Ends it as a supervisor does, and says how that went.
    pub(crate) async fn terminate(mut self) -> Result<(ExitStatus, String)> {
        self.signal(Signal::TERM)?;
        self.ended(STOPPING).await
    }

    /// Waits until it ends by itself, and gives what it printed.
    pub(crate) async fn ended(&mut self, within: Duration) -> Result<(ExitStatus, String)> {
        let Ok(status) = timeout(within, self.child.wait()).await else {
            bail!("it did not end in {within:?}: {}", self.end_of_log());
        };
        let printed = self.printed()?;
        leaks::keep(&printed);
        Ok((status?, printed))
    }

    /// Lets it stand still, or go on.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.context("it has ended")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What it has printed.
    pub(crate) fn printed(&self) -> Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn end_of_log(&self) -> String {
        let printed = self.printed().unwrap_or_default();
        let lines: Vec<_> = printed.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

/// Runs a program to its end.
pub(crate) async fn run(line: &Line, log: &Path) -> Result<(ExitStatus, String)> {
    Process::start(line, log.to_owned())?.ended(STARTING).await
}

/// The role that becomes another program. The kernel kills it when this one ends, however that happens.
pub(crate) fn leash(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no program was named")?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(anyhow!(error).context(format!("could not start {}", program.display())))
}

fn leashed(line: &Line) -> Result<Command> {
    let own = std::env::current_exe().context("could not find this program's own file")?;
    let mut command = Command::new(own);
    // What the one who runs the tests has set is not what a test has asked for.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOMBOLO") {
            command.env_remove(name);
        }
    }
    command
        .args(["leashed", "--"])
        .args(&line.words)
        .envs(line.environment.iter().cloned())
        .kill_on_drop(true);
    Ok(command)
}

/// Longest time until a program is ready: a store with the messages of ten minutes is read first.
const STARTING: Duration = Duration::from_secs(60);
/// Longest time in which it ends when it is asked to.
const STOPPING: Duration = Duration::from_secs(15);
