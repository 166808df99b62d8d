//! Starting the program, reading what it prints, stopping it as a terminal does.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A program that runs until it is told to stop.
pub(crate) struct Running {
    child: Child,
    /// What it printed, or logged, until it was ready.
    pub(crate) printed: Vec<String>,
    /// What came after it.
    lines: Receiver<String>,
}

/// How a program ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) took: Duration,
    pub(crate) errors: String,
    /// The lines that it printed, or logged, since it was ready and nobody has waited for.
    pub(crate) lines: Vec<String>,
}

/// The program, without the settings of whoever runs the tests.
pub(crate) fn tombolo<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOMBOLO_") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// Runs it to the end.
pub(crate) fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    let output = tombolo(args).output().unwrap();
    leaks::keep(&errors_of(&output));
    output
}

fn dev_on_free_ports(data: &Path, more: &[&str]) -> Command {
    let mut command = tombolo(["dev", "--data"]);
    command.arg(data);
    for port in ["gateway", "admin", "hub-mqtt", "hub-https"] {
        command.args([&format!("--{port}-port"), "0"]);
    }
    command.args(more);
    command
}

pub(crate) fn errors_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn printed_by(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Running {
    /// Starts `dev` on free ports.
    pub(crate) fn dev(data: &Path, more: &[&str]) -> Self {
        Self::start(dev_on_free_ports(data, more), "Ctrl-C stops.")
    }

    /// The same with all that it can log in a file.
    pub(crate) fn dev_logging_all(data: &Path, log: File) -> Self {
        let mut command = dev_on_free_ports(data, &["--log", "trace"]);
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().unwrap();
        Self::wait(child, out, "Ctrl-C stops.")
    }

    /// Starts a program that is ready when it prints a line with these words.
    pub(crate) fn start(mut command: Command, ready: &str) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().unwrap();
        Self::wait(child, out, ready)
    }

    /// Starts a program that is ready when it logs a line with these words.
    pub(crate) fn start_logging(mut command: Command, ready: &str) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let errors = child.stderr.take().unwrap();
        Self::wait(child, errors, ready)
    }

    fn wait(child: Child, from: impl Read + Send + 'static, ready: &str) -> Self {
        let (to, lines) = mpsc::channel();
        thread::spawn(move || {
            // To the end, whether somebody listens or not: a full pipe would stop the program.
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        let mut running = Self {
            child,
            printed: Vec::new(),
            lines,
        };
        while !running
            .printed
            .last()
            .is_some_and(|line| line.contains(ready))
        {
            let line = running.next_line(ready);
            running.printed.push(line);
        }
        running
    }

    /// Waits for a line with these words, and passes over others.
    pub(crate) fn until(&mut self, words: &str) {
        while !self.next_line(words).contains(words) {}
    }

    /// The next line, on the way to one with these words.
    fn next_line(&mut self, words: &str) -> String {
        let Ok(line) = self.lines.recv_timeout(BOUND) else {
            let _ = self.child.kill();
            let errors = self.errors();
            panic!("nothing about {words:?}: {:?} {errors}", self.printed);
        };
        line
    }

    /// The word behind these words: `https://host:port`, or `host:port`.
    pub(crate) fn address(&self, words: &str) -> String {
        let line = self.printed.iter().find(|line| line.contains(words));
        let (_, rest) = line.expect(words).split_once(words).unwrap();
        let word = rest.split_whitespace().next().unwrap();
        word.trim_end_matches(',').to_owned()
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn interrupt(self) -> Ended {
        self.end(Signal::INT)
    }

    /// Ends it as a supervisor does.
    pub(crate) fn terminate(self) -> Ended {
        self.end(Signal::TERM)
    }

    /// Ends it as a power cut does: it has no time for anything.
    pub(crate) fn kill(self) {
        let ended = self.end(Signal::KILL);
        assert!(!ended.status.success(), "{}", ended.status);
    }

    /// Ends it as somebody does who is in a hurry: Ctrl-C follows a supervisor's signal.
    pub(crate) fn terminate_and_interrupt(self) -> Ended {
        self.send(Signal::TERM);
        self.interrupt()
    }

    /// Has it read again what may be read again.
    pub(crate) fn hang_up(&self) {
        self.send(Signal::HUP);
    }

    fn send(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn end(mut self, signal: Signal) -> Ended {
        let start = Instant::now();
        self.send(signal);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > BOUND {
                self.child.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        };
        let lines: Vec<_> = self.lines.iter().collect();
        leaks::keep(&lines.join("\n"));
        Ended {
            status,
            took: start.elapsed(),
            errors: self.errors(),
            lines,
        }
    }

    /// What it had to say beside what it printed; it has ended.
    fn errors(&mut self) -> String {
        let mut text = String::new();
        let errors = self.child.stderr.as_mut();
        let _ = errors.map(|errors| errors.read_to_string(&mut text));
        leaks::keep(&text);
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

impl Ended {
    /// In order, in time, with nothing to say.
    pub(crate) fn assert_orderly(&self) {
        let Self {
            status,
            took,
            errors,
            lines: _,
        } = self;
        assert!(status.success(), "{status}: {errors}");
        assert!(*took < Duration::from_secs(5), "{took:?}");
        assert_eq!(errors, "");
    }
}

/// A port that somebody has.
pub(crate) fn taken_port() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

/// An HTTP client that trusts the development CA of a data folder.
pub(crate) fn client(data: &Path) -> reqwest::Client {
    client_builder(data).build().unwrap()
}

pub(crate) fn client_builder(data: &Path) -> reqwest::ClientBuilder {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = std::fs::read(data.join("ca.pem")).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .no_proxy()
        .timeout(BOUND)
}

pub(crate) const BOUND: Duration = Duration::from_secs(30);
