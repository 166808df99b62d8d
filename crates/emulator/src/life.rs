//! The tasks of an emulator and the word that ends them.

use std::{future::Future, time::Duration};

use tokio::time::{error::Elapsed, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Every task of an emulator is spawned here, so that shutdown can wait for it. A task ends by itself when `stop` says so.
#[derive(Clone, Default)]
pub(crate) struct Life {
    tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Life {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Tells all tasks to end and waits until they have.
    pub(crate) async fn end(&self, time: Duration) -> Result<(), Elapsed> {
        self.stop.cancel();
        self.tasks.close();
        timeout(time, self.tasks.wait()).await
    }
}
