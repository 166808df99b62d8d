//! When requests are due in the open loop.
//!
//! A thread of its own sleeps from one request to the next: the runtime's timers have a resolution of a millisecond,
//! in which 20 requests would go out at once. A request belongs to a connection from the start, each has its turn.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;

/// The moments at which a connection's requests are due; ends with the step.
pub(super) type Lane = mpsc::Receiver<Instant>;

/// A connection that is this far behind is not going to recover: the rest of its requests are not sent.
const BACKLOG: usize = 10_000;

/// Starts the clock; `rate` is requests a second over all lanes.
pub(super) fn start(rate: f64, duration: Duration, lanes: usize) -> anyhow::Result<Vec<Lane>> {
    if rate < 1.0 {
        bail!("a rate of {rate} requests a second cannot be kept");
    }
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..lanes).map(|_| mpsc::channel(BACKLOG)).unzip();
    thread::Builder::new()
        .name("pace".to_owned())
        .spawn(move || keep(rate, duration, &senders))
        .context("could not start the clock's thread")?;
    Ok(receivers)
}

fn keep(rate: f64, duration: Duration, lanes: &[mpsc::Sender<Instant>]) {
    let begun = Instant::now();
    for (sent, lane) in (0_u32..).zip(lanes.iter().cycle()) {
        let offset = Duration::from_secs_f64(f64::from(sent) / rate);
        if offset >= duration {
            return;
        }
        thread::sleep((begun + offset).saturating_duration_since(Instant::now()));
        if lane.try_send(Instant::now()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_each_lane_has_its_turn() {
        let mut lanes = start(1000.0, Duration::from_millis(100), 4).unwrap();
        let counts = lanes
            .iter_mut()
            .map(|lane| std::iter::from_fn(|| lane.blocking_recv()).count());
        assert_eq!(counts.collect::<Vec<_>>(), [25, 25, 25, 25]);
    }
}
