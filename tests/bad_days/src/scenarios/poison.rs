//! A message that the hub never takes: it closes the connection whenever it gets it. The gateway is killed while it finds out which
//! one it is, and finds it out in another life. The message's receipt says so in the end, and everything else arrives.

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use tokio::time::{Duration, Instant, sleep};

use super::Outcome;
use crate::{
    day::{Day, Special},
    device::{Device, Said},
    history::{Event, ReceiptState},
    options::{Plan, Scenario},
    process::Line,
    rig::Crowd,
    workload::{
        Load,
        telemetry::{self, ALL_WAYS},
    },
};

/// Twice, or 20 times.
pub(super) async fn happen(plan: &Plan) -> Result<Outcome> {
    let rounds = plan.rounds.unwrap_or(if plan.long { 20 } else { 2 });
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut outcome = Outcome::default();
    let crowd = Crowd::of_devices(6);
    let mut day = Day::begin(plan, Scenario::Poison, 0, crowd, Special::default()).await?;
    outcome.remark(format!("in {}", day.folder().display()));
    day.work(Load {
        messages_per_second: 100,
        cloud_messages_per_second: 6,
        calls_per_second: 3,
        ways: ALL_WAYS,
    });
    let cloud = day.rig.hub.cloud();
    cloud.choke_on(POISON).await?;
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        let device = day.workload.one(&mut rng)?;
        let receipt = poison(&device).await?;
        // Between the first loss and the last.
        sleep(Duration::from_millis(rng.u64(0..2000))).await;
        day.rig.kill_gateway().await?;
        day.rig.start_gateway(&Line::default()).await?;
        let again = Instant::now();
        until_refused(&device, &receipt).await?;
        slowest = slowest.max(again.elapsed());
    }
    cloud.choke_no_more().await?;
    outcome.remark(format!(
        "{rounds} messages that the hub never takes, the gateway killed over each: refused by name {} s after the start at most",
        slowest.as_secs()
    ));
    outcome.add(day.end().await?);
    Ok(outcome)
}

/// Has such a message stored.
async fn poison(device: &Device) -> Result<String> {
    let deadline = Instant::now() + BOUND;
    loop {
        let said = telemetry::poison(device, POISON)
            .await
            .map(|answer| answer.said());
        if let Some(Said::Promised(_, Some(receipt))) = said {
            return Ok(receipt);
        }
        ensure!(Instant::now() < deadline, "it is not stored, but {said:?}");
        sleep(LOOK).await;
    }
}

async fn until_refused(device: &Device, receipt: &str) -> Result<()> {
    let deadline = Instant::now() + BOUND;
    let path = format!("receipts/{receipt}");
    loop {
        let asked = device.recorder.now();
        let answer = device.ask(Method::GET, &path, |request| request).await;
        let answer = answer.filter(|answer| answer.status == 200);
        if let Some(answer) = answer {
            let state = serde_json::from_value(answer.body["state"].clone());
            let state: ReceiptState = state.context("a receipt has a state")?;
            let receipt = receipt.to_owned();
            device.recorder.note(Event::ReceiptRead {
                asked,
                receipt,
                state,
            });
            if state == ReceiptState::Refused {
                return Ok(());
            }
        }
        ensure!(
            Instant::now() < deadline,
            "its receipt does not say that it is refused"
        );
        sleep(LOOK).await;
    }
}

/// What the hub chokes on; no message has it by chance.
const POISON: &str = "-poison-";
const LOOK: Duration = Duration::from_millis(100);
/// Four lost connections, with the pauses between them.
const BOUND: Duration = Duration::from_secs(60);
