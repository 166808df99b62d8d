//! Where measurements go: a recorder for the whole process, in the text format of Prometheus.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use front::RenderMetrics;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// The recorder of the process.
pub(crate) struct Recorder(PrometheusHandle);

impl Recorder {
    /// Makes a recorder and has the whole process measure with it. What was registered before is not seen.
    ///
    /// # Errors
    ///
    /// When the process has a recorder already.
    pub(crate) fn install() -> Result<Self> {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?;
        let handle = builder
            .install_recorder()
            .context("could not install the recorder of metrics")?;
        Ok(Self(handle))
    }

    /// What `/metrics` answers.
    pub(crate) fn render(&self) -> RenderMetrics {
        let handle = self.0.clone();
        Arc::new(move || handle.render())
    }

    /// Sorts samples into their buckets for ever. Otherwise they would pile up until somebody asks for the metrics.
    pub(crate) async fn keep_up(self) {
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tick.tick().await;
            self.0.run_upkeep();
        }
    }
}

/// From what the gateway adds to a message (well below a millisecond) to a long-poll (50 s).
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 60.0,
];
const UPKEEP: Duration = Duration::from_secs(5);
