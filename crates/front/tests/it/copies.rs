//! Every kind of write under a key, 1 to 5 times, shuffled, in parallel and days apart: it has one effect.
//!
//! The front, the engine and the requests are real; the hub side of the contract writes down what it is given, and the
//! engine's clock is days ahead of the machine's. A judge reads the history when all is over. Without faults nothing
//! happens twice, whatever the wall clock does meanwhile. With faults (sends that fail before or after the hub has the
//! message, replies of the store that are lost, crashes that tear what was not flushed) something may happen twice, and then
//! under one message id; and what was answered as done has been done.
//!
//! `TOMBOLO_LONG=1` makes it 100,000 writes, `TOMBOLO_WRITES` another number, `TOMBOLO_SEED` another run.

#![expect(
    clippy::print_stderr,
    reason = "a run says its seed, and what it has seen"
)]

mod judge;
mod world;
mod writes;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use fastrand::Rng;
use futures_util::{StreamExt as _, stream};
use store::conformance::{Cut, Disk};

use self::{
    judge::{History, Trust},
    world::{Shift, World},
    writes::{Kind, Write},
};

/// What a run is made of.
struct Plan {
    seed: u64,
    writes: usize,
    disk: Option<Disk>,
    has_faults: bool,
}

/// When copies of which writes come.
type Schedule = BTreeMap<u64, Vec<usize>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_have_one_effect_in_memory() {
    run(Plan::new(1, None, false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_have_one_effect_on_a_disk() {
    run(Plan::new(2, Some(Disk::default()), false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_have_one_message_id_with_faults_in_memory() {
    run(Plan::new(3, None, true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_have_one_message_id_with_faults_and_crashes_on_a_disk() {
    run(Plan::new(4, Some(Disk::default()), true)).await;
}

impl Plan {
    fn new(number: u64, disk: Option<Disk>, has_faults: bool) -> Self {
        let number_of = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_long = std::env::var_os("TOMBOLO_LONG").is_some_and(|value| value != "0");
        Self {
            seed: number_of("TOMBOLO_SEED").unwrap_or(number),
            writes: match number_of("TOMBOLO_WRITES") {
                Some(writes) => usize::try_from(writes).expect("it is a number of writes"),
                None if is_long => 100_000,
                None => 400,
            },
            disk,
            has_faults,
        }
    }

    /// 1 to 5 copies of each write, the first on any of the days, the others while its key is kept.
    fn schedule(&self, rng: &mut Rng) -> Schedule {
        let mut schedule = Schedule::new();
        for write in 0..self.writes {
            let first = rng.u64(..STEPS);
            for copy in 0..rng.u64(1..=5) {
                let later = if copy == 0 { 0 } else { rng.u64(..KEPT) };
                schedule.entry(first + later).or_default().push(write);
            }
        }
        schedule
    }
}

async fn run(plan: Plan) {
    let start = Instant::now();
    let mut rng = Rng::with_seed(plan.seed);
    let schedule = plan.schedule(&mut rng);
    let copies: usize = schedule.values().map(Vec::len).sum();
    eprintln!(
        "seed {}: {} writes, {copies} copies",
        plan.seed, plan.writes
    );

    let history = Arc::new(History::default());
    let shift = Shift::default();
    let faults = plan.has_faults.then(|| rng.fork());
    let mut world = World::start(plan.disk.clone(), shift.clone(), faults, history.clone()).await;
    let mut writes: BTreeMap<usize, Arc<Write>> = BTreeMap::new();
    let last = schedule.keys().last().copied().unwrap_or(0);
    for (step, mut copies) in schedule {
        for number in &copies {
            if !writes.contains_key(number) {
                let kind = *rng.choice(Kind::ALL.iter()).expect("there are some");
                let write = world.prepare(kind, *number, plan.seed).await;
                writes.insert(*number, Arc::new(write));
            }
        }
        rng.shuffle(&mut copies);
        let copies = copies.iter().map(|number| writes[number].clone());
        let crash = plan.disk.is_some() && plan.has_faults && (step + 3) % CRASH_EVERY == 0;
        world = carry_out(world, copies.collect(), crash.then(|| rng.fork())).await;
        shift.advance(STEP);
        if rng.u32(..8) == 0 {
            let jumps = [3600, -3 * 3600, 5 * 3600, 9 * DAY, -9 * DAY];
            shift.move_wall_clock(*rng.choice(jumps.iter()).expect("there are some"));
        }
        history.progress(step, last);
    }
    world.end().await;
    let trust = if plan.has_faults {
        Trust::AtLeastOnce
    } else {
        Trust::ExactlyOnce
    };
    let writes: Vec<_> = writes.into_values().collect();
    let verdict = history.judge(&writes, trust);
    eprintln!("seed {}: {verdict}, {:.0?}", plan.seed, start.elapsed());
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    assert_eq!(verdict.writes, plan.writes);
}

/// Sends copies, many at once. With a crash in the middle, those that have no answer then are sent again afterwards.
async fn carry_out(world: World, copies: Vec<Arc<Write>>, crash: Option<Rng>) -> World {
    let Some(mut rng) = crash else {
        send(&world, &copies).await;
        return world;
    };
    let half = copies.len() / 2;
    let sending = world.sending();
    let before = async {
        send_with(&sending, &copies[..half]).await;
    };
    let (_, world) = tokio::join!(before, world.crash_soon(Cut::Tear(rng.u64(..))));
    send(&world, &copies).await;
    world
}

async fn send(world: &World, copies: &[Arc<Write>]) {
    send_with(&world.sending(), copies).await;
}

async fn send_with(sending: &world::Sending, copies: &[Arc<Write>]) {
    stream::iter(copies)
        .for_each_concurrent(AT_ONCE, |write| sending.until_final(write))
        .await;
}

const DAY: i64 = 24 * 3600;
/// A step of the engine's clock, in seconds: six hours.
const STEP: u64 = 6 * 3600;
/// Steps in which a write may come for the first time: eight days.
const STEPS: u64 = 32;
/// Steps for which a key is kept, less one for what is near its end.
const KEPT: u64 = 32;
/// Copies that are under way at once.
const AT_ONCE: usize = 48;
/// Steps between two crashes.
const CRASH_EVERY: u64 = 16;
