//! Both engines, plain and behind faults.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tombolo_store::{
    Store,
    conformance::{Bounds, Disk, Engine, Faulty, ManualClock},
    embedded, memory,
};

mod plain {
    tombolo_store::conformance!(crate::conformance::plain());
}

mod on_disk {
    tombolo_store::conformance!(crate::conformance::embedded());
}

mod faulty_on_disk {
    tombolo_store::conformance!(crate::conformance::faulty_embedded());
}

mod faulty {
    tombolo_store::conformance!(crate::conformance::faulty());
}

fn plain() -> impl Iterator<Item = Engine> {
    std::iter::once_with(|| engine("no faults".to_owned(), |store| store))
}

fn faulty() -> impl Iterator<Item = Engine> {
    (0..24).map(|seed| {
        let name = format!("faults of seed {seed}");
        engine(name, |store| Faulty::wrap(store, seed))
    })
}

fn embedded() -> impl Iterator<Item = Engine> {
    std::iter::once_with(|| on_a_disk("on a disk".to_owned(), |store| store))
}

fn faulty_embedded() -> impl Iterator<Item = Engine> {
    (0..6).map(|seed| {
        let name = format!("on a disk, faults of seed {seed}");
        on_a_disk(name, |store| Faulty::wrap(store, seed))
    })
}

fn engine(name: String, wrap: impl FnOnce(Store) -> Store) -> Engine {
    let clock = ManualClock::new();
    let store = memory::open_with_clock(config(), Arc::new(clock.clone()));
    Engine {
        name,
        store: wrap(store.expect("there is no registry file")),
        clock,
        bounds: bounds(),
        keeper: Arc::new(()),
    }
}

fn on_a_disk(name: String, wrap: impl FnOnce(Store) -> Store) -> Engine {
    let clock = ManualClock::new();
    let disk = embedded::Config::new("nowhere".into());
    let opened = embedded::open_with(
        config(),
        &disk,
        Arc::new(Disk::default()),
        Arc::new(clock.clone()),
    );
    let opened = opened.expect("the disk is empty");
    Engine {
        name,
        store: wrap(opened.store),
        clock,
        bounds: bounds(),
        keeper: Arc::new(opened.keeper),
    }
}

pub(crate) fn config() -> memory::Config {
    memory::Config {
        outbox_entries: 32,
        outbox_bytes: 64 * 1024,
        outbox_bytes_in_all: 128 * 1024,
        inbox_messages: 10,
        inbox_bytes_in_all: 1024 * 1024,
        inbox_methods: 8,
        dead_letters: 8,
        keys: 8,
        keys_in_all: 1000,
        tokens: 8,
        sealed_credentials: 8,
        max_delivery_count: NonZeroU32::new(10).expect("10 is not zero"),
        session_lease_seconds: NonZeroU32::new(20).expect("20 is not zero"),
        registry_file: None,
    }
}

fn bounds() -> Bounds {
    let config = config();
    Bounds {
        outbox_entries: config.outbox_entries,
        outbox_bytes: config.outbox_bytes,
        outbox_bytes_in_all: config.outbox_bytes_in_all,
        inbox_messages: config.inbox_messages,
        inbox_methods: config.inbox_methods,
        dead_letters: config.dead_letters,
        keys: config.keys,
        tokens: config.tokens,
        sealed_credentials: config.sealed_credentials,
        max_delivery_count: config.max_delivery_count.get(),
        session_lease: Duration::from_secs(config.session_lease_seconds.get().into()),
    }
}
