//! The load generator.
//!
//! A number of HTTPS connections, each with one request in flight, and devices that take turns. One thread: it competes
//! with the peer and the hub for the same cores, so it has to be cheap above all. A plan is a list of steps; each step
//! ends before the next begins, the connections stay open, and the outcome of each is told apart.
//!
//! - *Closed loop*: the next request goes out when the answer is in. Gives the rate.
//! - *Open loop*: requests go out at a given rate, whether or not earlier ones were answered; the time is taken from the
//!   moment a request was due, so that waiting for a free connection counts ("coordinated omission"). Gives latencies.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::fleet::Fleet;
use crate::http_client::Connection;
use crate::machine::Neighbours;
use crate::process::processor_time;
use crate::tls::{self, Endpoint};

mod cloud_messages;
pub(crate) mod devices;
mod pace;
mod writing;

use writing::Requests;
pub(crate) use writing::Writing;

/// What the conductor wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) peer: Endpoint,
    pub(crate) hub: Endpoint,
    pub(crate) fleet_file: PathBuf,
    pub(crate) connections: usize,
    pub(crate) http2: bool,
    pub(crate) writing: Writing,
    pub(crate) peer_pid: u32,
    pub(crate) hub_pid: u32,
    pub(crate) steps: Vec<Step>,
}

/// A part of a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Each of these devices sends one request.
    Once(Range<usize>),
    /// The hub sends each of these devices one message; the device receives and completes it.
    Receive(Range<usize>),
    /// All devices in turn, as fast as they are answered.
    Closed(Duration),
    /// All devices in turn, at this share of the rate of the closed loop before.
    Open { share: f64, duration: Duration },
}

/// What a step brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Requests, all of them answered as they are to be.
    pub(crate) done: u64,
    pub(crate) elapsed: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Processor time of the three processes during the step.
    pub(crate) peer_time: Duration,
    pub(crate) hub_time: Duration,
    pub(crate) load_time: Duration,
    /// What the rest of the machine did meanwhile: a share of all cores, if the system tells.
    pub(crate) neighbours: Option<f64>,
}

impl Outcome {
    /// Requests done in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }
}

/// Drives a peer as the plan says, and prints the outcomes of its steps.
pub(crate) fn drive_peer(plan: &str) -> anyhow::Result<()> {
    perform(plan, carry_out)
}

/// Drives a hub as the plan says, and prints the outcomes of its steps.
pub(crate) fn drive_hub(plan: &str) -> anyhow::Result<()> {
    perform(plan, devices::carry_out)
}

/// The conductor reads what is printed.
fn perform<P, O>(
    plan: &str,
    carry_out: impl AsyncFnOnce(P) -> anyhow::Result<O>,
) -> anyhow::Result<()>
where
    P: DeserializeOwned,
    O: Serialize,
{
    let plan = serde_json::from_str(plan).context("the plan is no JSON of ours")?;
    let outcomes = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?
        .block_on(carry_out(plan))?;
    serde_json::to_writer(std::io::stdout().lock(), &outcomes)?;
    Ok(())
}

async fn carry_out(plan: Plan) -> anyhow::Result<Vec<Outcome>> {
    let fleet = Fleet::read(&plan.fleet_file)?;
    let requests = Arc::new(Requests::new(plan.writing, &plan.peer, &fleet)?);
    let protocol = if plan.http2 { tls::HTTP2 } else { tls::HTTP1 };
    let tls = TlsConnector::from(tls::client(&plan.peer.ca_file, &[protocol])?);
    let mut connections = Vec::new();
    for _ in 0..plan.connections {
        connections.push(Connection::open(&plan.peer, &tls).await?);
    }

    let mut outcomes: Vec<Outcome> = Vec::new();
    for step in &plan.steps {
        let rate = outcomes.last().map_or(0.0, Outcome::rate);
        let watched = Watch::begin(&plan)?;
        let mut work = JoinSet::new();
        let lanes = connections.len();
        match step {
            Step::Once(devices) => {
                for (lane, connection) in connections.drain(..).enumerate() {
                    let turns = devices.clone().skip(lane).step_by(lanes).collect();
                    work.spawn(once(connection, requests.clone(), turns));
                }
            }
            Step::Receive(devices) => {
                let chosen = &fleet.devices[devices.clone()];
                cloud_messages::publish(&plan.hub, chosen).await?;
                for (lane, connection) in connections.drain(..).enumerate() {
                    let turns = chosen.iter().skip(lane).step_by(lanes).cloned().collect();
                    work.spawn(cloud_messages::receive(
                        connection,
                        plan.peer.clone(),
                        turns,
                    ));
                }
            }
            Step::Closed(duration) => {
                let until = Instant::now() + *duration;
                for (lane, connection) in connections.drain(..).enumerate() {
                    let turns = Turns::new(lane, lanes, fleet.devices.len());
                    work.spawn(closed(connection, requests.clone(), turns, until));
                }
            }
            Step::Open { share, duration } => {
                let due = pace::start(rate * share, *duration, lanes)?;
                for (lane, (connection, due)) in connections.drain(..).zip(due).enumerate() {
                    let turns = Turns::new(lane, lanes, fleet.devices.len());
                    work.spawn(open(connection, requests.clone(), turns, due));
                }
            }
        }
        let mut tally = Tally::new(step.answers(plan.writing))?;
        while let Some(finished) = timeout(step.limit(), work.join_next())
            .await
            .with_context(|| format!("no answer within {:?} in {step:?}", step.limit()))?
        {
            let (connection, part) = finished?.with_context(|| format!("{step:?} broke off"))?;
            connections.push(connection);
            tally.add(&part)?;
        }
        if !tally.refused.is_empty() || tally.histogram.is_empty() {
            let (done, refused) = (tally.histogram.len(), &tally.refused);
            let expected = tally.expected;
            bail!(
                "{step:?}: {done} answers were among {expected:?}, others by status: {refused:?}"
            );
        }
        outcomes.push(watched.end(&plan, &tally)?);
    }
    Ok(outcomes)
}

impl Step {
    /// The only answers that count.
    fn answers(&self, writing: Writing) -> &'static [StatusCode] {
        match self {
            Self::Once(_) | Self::Closed(_) | Self::Open { .. } => writing.answers(),
            Self::Receive(_) => &[StatusCode::NO_CONTENT],
        }
    }

    /// Nobody waits longer for a step; a peer that hangs has failed.
    fn limit(&self) -> Duration {
        match self {
            Self::Once(_) | Self::Receive(_) => Duration::from_secs(180),
            Self::Closed(duration) | Self::Open { duration, .. } => {
                *duration + Duration::from_secs(15)
            }
        }
    }
}

type Done = anyhow::Result<(Connection, Tally)>;

async fn once(mut connection: Connection, requests: Arc<Requests>, turns: Vec<usize>) -> Done {
    let mut tally = Tally::new(requests.answers())?;
    for device in turns {
        let request = requests.of(device)?;
        let begun = Instant::now();
        let answer = connection.exchange(&request).await?;
        tally.count(answer.status, begun);
    }
    Ok((connection, tally))
}

async fn closed(
    mut connection: Connection,
    requests: Arc<Requests>,
    mut turns: Turns,
    until: Instant,
) -> Done {
    let mut tally = Tally::new(requests.answers())?;
    let mut begun = Instant::now();
    while begun < until {
        let request = requests.of(turns.next())?;
        let answer = connection.exchange(&request).await?;
        tally.count(answer.status, begun);
        begun = Instant::now();
    }
    Ok((connection, tally))
}

async fn open(
    mut connection: Connection,
    requests: Arc<Requests>,
    mut turns: Turns,
    mut due: pace::Lane,
) -> Done {
    let mut tally = Tally::new(requests.answers())?;
    while let Some(moment) = due.recv().await {
        let request = requests.of(turns.next())?;
        let answer = connection.exchange(&request).await?;
        tally.count(answer.status, moment);
    }
    Ok((connection, tally))
}

/// Which device is next on a connection: together the connections go through all devices in turn.
struct Turns {
    next: usize,
    step: usize,
    devices: usize,
}

impl Turns {
    fn new(lane: usize, lanes: usize, devices: usize) -> Self {
        Self {
            next: lane % devices,
            step: lanes,
            devices,
        }
    }

    fn next(&mut self) -> usize {
        let current = self.next;
        self.next = (current + self.step) % self.devices;
        current
    }
}

/// What one connection counted.
struct Tally {
    expected: &'static [StatusCode],
    histogram: Histogram<u32>,
    refused: BTreeMap<u16, u64>,
}

impl Tally {
    fn new(expected: &'static [StatusCode]) -> anyhow::Result<Self> {
        Ok(Self {
            expected,
            // 1 µs to 1 min; two digits are 1 %, and little memory to walk through.
            histogram: Histogram::new_with_bounds(1, 60_000_000, 2)?,
            refused: BTreeMap::new(),
        })
    }

    fn count(&mut self, status: StatusCode, begun: Instant) {
        if self.expected.contains(&status) {
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.histogram.saturating_record(micros);
        } else {
            *self.refused.entry(status.as_u16()).or_default() += 1;
        }
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.histogram.add(&other.histogram)?;
        for (&status, &count) in &other.refused {
            *self.refused.entry(status).or_default() += count;
        }
        Ok(())
    }
}

/// What the three processes had used when a step began.
struct Watch {
    begun: Instant,
    peer: Duration,
    hub: Duration,
    load: Duration,
    neighbours: Neighbours,
}

impl Watch {
    fn begin(plan: &Plan) -> anyhow::Result<Self> {
        Ok(Self {
            peer: processor_time(plan.peer_pid)?,
            hub: processor_time(plan.hub_pid)?,
            load: processor_time(std::process::id())?,
            neighbours: Neighbours::watch(&plan.pids())?,
            begun: Instant::now(),
        })
    }

    fn end(self, plan: &Plan, tally: &Tally) -> anyhow::Result<Outcome> {
        let elapsed = self.begun.elapsed();
        let quantile = |q| Duration::from_micros(tally.histogram.value_at_quantile(q));
        Ok(Outcome {
            done: tally.histogram.len(),
            elapsed,
            p50: quantile(0.5),
            p99: quantile(0.99),
            peer_time: processor_time(plan.peer_pid)?.saturating_sub(self.peer),
            hub_time: processor_time(plan.hub_pid)?.saturating_sub(self.hub),
            load_time: processor_time(std::process::id())?.saturating_sub(self.load),
            neighbours: self.neighbours.share(&plan.pids(), elapsed)?,
        })
    }
}

impl Plan {
    fn pids(&self) -> [u32; 3] {
        [self.peer_pid, self.hub_pid, std::process::id()]
    }
}

/// One message: 100 bytes of JSON.
const PAYLOAD: &str = r#"{"temperature":21.537,"humidity":48.25,"pressure":1013.25,"battery":0.83,"sequence":1,"mode":"idle"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_100_bytes_of_json() {
        assert_eq!(PAYLOAD.len(), 100);
        serde_json::from_str::<serde_json::Value>(PAYLOAD).unwrap();
    }

    #[test]
    fn together_the_connections_use_every_device() {
        let mut used = [0; 1000];
        for lane in 0..64 {
            let mut turns = Turns::new(lane, 64, 1000);
            for _ in 0..125 {
                used[turns.next()] += 1;
            }
        }
        assert!(used.iter().all(|&count| count == 8), "{used:?}");
    }

    #[test]
    fn only_what_was_answered_as_expected_is_counted_as_done() {
        let mut tally = Tally::new(&[StatusCode::NO_CONTENT]).unwrap();
        tally.count(StatusCode::NO_CONTENT, Instant::now());
        tally.count(StatusCode::ACCEPTED, Instant::now());
        assert_eq!(tally.histogram.len(), 1);
        assert_eq!(tally.refused[&202], 1);
    }
}
