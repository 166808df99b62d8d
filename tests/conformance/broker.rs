//! A stock mosquitto, on loopback, with a configuration of its own.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::BOUND;

/// A broker that runs.
pub(crate) struct Broker {
    process: Option<Child>,
    pub(crate) address: SocketAddr,
    folder: TempDir,
}

impl Broker {
    pub(crate) fn start() -> Self {
        // The broker can not be asked for a free port; between this and its start another program could take it.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut broker = Self {
            process: None,
            address: free.local_addr().unwrap(),
            folder: tempfile::tempdir().unwrap(),
        };
        drop(free);
        let configuration = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\n",
            broker.address.port()
        );
        fs::write(broker.folder.path().join("mosquitto.conf"), configuration).unwrap();
        broker.start_again();
        broker
    }

    /// Starts it at the same address, without its memory.
    pub(crate) fn start_again(&mut self) {
        let process = Command::new("mosquitto")
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(process.expect("mosquitto is installed"));
        let deadline = Instant::now() + BOUND;
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// It takes bytes in and does nothing: nothing is acknowledged any more.
    pub(crate) fn freeze(&self) {
        let process = self.process.as_ref().expect("it runs");
        let pid = Pid::from_raw(process.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
    }

    /// Ends it at once; its connections are gone.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// One of mosquitto's clients, told where the broker is.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut client = Command::new(program);
        client.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()]);
        client
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}
