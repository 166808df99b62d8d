//! The real session core against the emulator's real core: a simulated network between them, a virtual clock, one
//! thread, one seed.
//!
//! A run is some hours of one device's life: telemetry, twin writes from both sides, cloud-to-device messages, direct
//! methods, a device that sleeps and wakes, on a network that delays, freezes and cuts. [`world`] is time and network,
//! [`device`] stands for the gateway and the device behind it and holds what happened against what was promised.
//!
//! `TOMBOLO_SIMULATION_SEEDS=1000` runs more seeds, `TOMBOLO_SIMULATION_SEED=7` only that one. A failing run names its
//! seed; the seed alone repeats it.

#![expect(clippy::unwrap_used, reason = "what is not expected ends the test")]

mod device;
mod world;

use std::time::Duration;

use device::Device;
use world::{Network, World};

#[test]
fn a_calm_network_loses_and_repeats_nothing() {
    for seed in 0..8 {
        let report = live(seed, Network::calm(), Duration::from_secs(2 * 3600));
        assert_eq!(report.telemetry_duplicates, 0, "seed {seed}");
        assert_eq!(report.connections_lost, 0, "seed {seed}");
        assert!(
            report.telemetry > 100 && report.messages > 20,
            "seed {seed}: {report:?}"
        );
    }
}

#[test]
fn a_rough_network_loses_nothing() {
    let mut connections_lost = 0;
    let mut methods_answered = 0;
    let mut methods_waited = 0;
    for seed in seeds() {
        let report = live(seed, Network::rough(), Duration::from_secs(3 * 3600));
        connections_lost += report.connections_lost;
        methods_answered += report.methods_answered;
        methods_waited += report.methods_waited;
    }
    // The faults happened, and life went on between them.
    assert!(connections_lost > 100, "{connections_lost}");
    assert!(methods_answered > 100, "{methods_answered}");
    assert!(methods_waited > 100, "{methods_waited}");
}

#[test]
fn a_seed_repeats_its_run() {
    let run = || live(42, Network::rough(), Duration::from_secs(3600));
    assert_eq!(run(), run());
}

/// One life: some hours of it, then calm until everything has settled, then the account.
fn live(seed: u64, network: Network, hours: Duration) -> device::Report {
    let _named = NameSeed(seed);
    let mut world = World::new(seed, network);
    let mut device = Device::new(world.rng.fork());
    let end = world.now() + hours;
    while world.now() < end {
        world.step(&mut device);
    }
    world.calm_down();
    device.stop_making_work();
    let end = world.now() + Duration::from_secs(1800);
    while world.now() < end {
        world.step(&mut device);
    }
    device.account(&world)
}

fn seeds() -> Vec<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    match number("TOMBOLO_SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TOMBOLO_SIMULATION_SEEDS").unwrap_or(40)).collect(),
    }
}

/// Says which seed it was when an assertion fails inside.
struct NameSeed(u64);

impl Drop for NameSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stdout, reason = "it is what repeats the failure")]
            {
                println!("failed with TOMBOLO_SIMULATION_SEED={}", self.0);
            }
        }
    }
}
