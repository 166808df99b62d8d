//! The hub stands still: connections stay, what is sent is buffered on the way, nobody is answered. Then it goes on as if nothing
//! had been, and finds what others have given up meanwhile.

use anyhow::Result;
use tokio::time::{Duration, sleep};

use super::{BUSY, EVERYBODY, Outcome};
use crate::{
    day::{Day, Special},
    options::{Plan, Scenario},
};

/// For 5 s and for 15 s, or 20 times for 5 s to 30 s.
pub(super) async fn happen(plan: &Plan) -> Result<Outcome> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let times: Vec<u64> = if plan.long {
        let rounds = plan.rounds.unwrap_or(20);
        (0..rounds).map(|_| rng.u64(5..=30)).collect()
    } else {
        vec![5, 15]
    };
    let day = Day::begin(
        plan,
        Scenario::HubStandsStill,
        0,
        EVERYBODY,
        Special::default(),
    );
    let mut day = day.await?;
    let mut outcome = Outcome::default();
    outcome.remark(format!("in {}", day.folder().display()));
    day.work(BUSY);
    for seconds in &times {
        sleep(BETWEEN).await;
        day.rig.hub.stand_still()?;
        sleep(Duration::from_secs(*seconds)).await;
        day.rig.hub.go_on()?;
    }
    sleep(BETWEEN).await;
    outcome.remark(format!(
        "stood still {} times, {} s in all",
        times.len(),
        times.iter().sum::<u64>()
    ));
    outcome.add(day.end().await?);
    Ok(outcome)
}

/// How long everything works in between.
const BETWEEN: Duration = Duration::from_secs(3);
