//! Power cuts: one run of a workload, an image of the disk after each of its operations, and a start from each.

use fastrand::Rng;
use tombolo_store::{
    Settlement,
    conformance::{Cut, Disk},
};

use super::{
    checker::{Thing, judge},
    rig::{Rig, is_long, small_segments},
};

const DEVICES: [&str; 3] = ["dev1", "dev2", "dev3"];

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_promised_1() {
    eprintln!("{}", cut_everywhere(1).await);
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_promised_2() {
    eprintln!("{}", cut_everywhere(2).await);
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_promised_3() {
    eprintln!("{}", cut_everywhere(3).await);
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_promised_4() {
    eprintln!("{}", cut_everywhere(4).await);
}

/// A quarter of the images: 2,000 in all, 40,000 in the long form. Says how many were judged.
async fn cut_everywhere(first_seed: u64) -> String {
    let (runs, images_wanted) = if is_long() { (5, 2000) } else { (1, 500) };
    let (mut images, mut survivors) = (0, 0);
    for seed in (first_seed..).step_by(4).take(runs) {
        let disk = Disk::default();
        let history = workload(&disk, seed).await;
        let operations = disk.operations();
        let mut rng = Rng::with_seed(seed);
        for number in 0..images_wanted {
            // Every operation in turn, then from the beginning again with other tears.
            let at = number * operations / images_wanted + number % 2;
            let at = at.min(operations);
            let cut = match number % 3 {
                0 => Cut::Tear(rng.u64(..)),
                1 => Cut::Drop,
                _ => Cut::Keep,
            };
            let image = disk.image(at, cut);
            let rig = Rig::try_open(&image, small_segments());
            let rig = rig.unwrap_or_else(|error| panic!("seed {seed}, cut {at}, {cut:?}: {error}"));
            let seen = rig.seen(&DEVICES).await;
            images += 1;
            survivors += seen.len();
            let violations = judge(&history, at, &seen);
            assert_eq!(
                violations,
                [],
                "seed {seed}, cut {at} of {operations}, {cut:?}"
            );
        }
    }
    format!("{images} images of {runs} workloads judged, {survivors} things found in them")
}

/// Submits, acknowledges, appends and settles at random, with small segments, so that some are begun and cleaned. The
/// moments are those of the disk.
async fn workload(disk: &Disk, seed: u64) -> Vec<Thing> {
    let rig = Rig::try_open(disk, small_segments()).expect("it is empty");
    let mut rng = Rng::with_seed(seed);
    let mut things: Vec<Thing> = Vec::new();
    for name in 1..=150 {
        let device = DEVICES[rng.usize(..DEVICES.len())];
        let text = format!("{name} ").repeat(rng.usize(1..60));
        let begun = disk.operations();
        match rng.u8(..10) {
            0..4 => {
                let submitted = rig.submit(device, name, &text).await;
                submitted.expect("there is room");
                let lane = format!("out {device}");
                things.push(thing(lane, name, text, begun, disk.operations()));
            }
            4..6 => {
                let arrived = rig.arrive(device, name, &text).await;
                arrived.expect("there is room");
                let lane = format!("in {device}");
                things.push(thing(lane, name, text, begun, disk.operations()));
            }
            6..8 => {
                let lane = format!("out {device}");
                let oldest = things
                    .iter_mut()
                    .find(|thing| thing.lane == lane && thing.ending.is_none());
                if let Some(oldest) = oldest {
                    oldest.ending = Some(begun);
                    assert!(rig.acknowledge_one(device).await);
                }
            }
            _ => {
                let offered = rig.offered(device).await;
                if let Some((token, name, ..)) = offered.first() {
                    let thing = things
                        .iter_mut()
                        .find(|thing| thing.name == *name)
                        .expect("it has arrived");
                    if rng.bool() {
                        assert!(rig.settle_message(device, token, Settlement::Abandon).await);
                    } else {
                        thing.ending = Some(begun);
                        assert!(
                            rig.settle_message(device, token, Settlement::Complete)
                                .await
                        );
                        thing.ended = Some(disk.operations());
                    }
                }
            }
        }
    }
    things
}

fn thing(lane: String, name: u64, text: String, begun: usize, promised: usize) -> Thing {
    Thing {
        lane,
        name,
        text,
        begun,
        promised: Some(promised),
        ending: None,
        ended: None,
    }
}
