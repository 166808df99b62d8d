//! The gateway is killed at any moment, again and again, and started again at once.

use anyhow::Result;
use tokio::time::{Duration, sleep};

use super::{BUSY, EVERYBODY, Outcome};
use crate::{
    day::{Day, Special},
    options::{Life, Plan, Scenario},
    process::Line,
};

/// 50 lives, or 1,000.
pub(super) async fn happen(plan: &Plan) -> Result<Outcome> {
    let rounds = plan.rounds.unwrap_or(if plan.long { 1000 } else { 50 });
    let life = plan.life.clone().map_or(LIFE, |Life(life)| life);
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut outcome = Outcome::default();
    let (mut left, mut number) = (rounds, 0);
    while left > 0 {
        let mut day =
            Day::begin(plan, Scenario::Kill, number, EVERYBODY, Special::default()).await?;
        outcome.remark(format!("in {}", day.folder().display()));
        day.work(BUSY);
        let lives = left.min(LIVES_OF_A_DAY);
        for _ in 0..lives {
            sleep(Duration::from_millis(rng.u64(life.clone()))).await;
            day.rig.kill_gateway().await?;
            day.rig.start_gateway(&Line::default()).await?;
        }
        outcome.add(day.end().await?);
        (left, number) = (left - lives, number + 1);
    }
    Ok(outcome)
}

/// So many in one history, so that one that went wrong can be looked through.
const LIVES_OF_A_DAY: u32 = 100;
/// How long a life is, in milliseconds: some end before the first session is open.
const LIFE: std::ops::Range<u64> = 50..1500;
