//! When to stop: Ctrl-C and SIGTERM ask for it, once more and nothing is waited for.

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that stop the program.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Catches the signals from here on; before, they end the process by themselves.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub(crate) fn catch() -> Result<Self> {
        let catch =
            |kind| signal(kind).context("could not catch the signals that stop the program");
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// Waits until the program is asked to stop.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Stops in order, unless asked a second time.
    ///
    /// # Errors
    ///
    /// Those of `stopping`, and when it was not waited for.
    pub(crate) async fn stop(mut self, stopping: impl Future<Output = Result<()>>) -> Result<()> {
        tokio::select! {
            stopped = stopping => stopped,
            () = self.asked() => bail!("stopped at once, as asked: requests may have been cut off"),
        }
    }
}
