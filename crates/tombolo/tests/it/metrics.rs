//! What `/metrics` says of the store.

use std::time::Instant;

use crate::program::BOUND;
use crate::served::Setup;

#[tokio::test]
async fn the_metrics_say_what_the_store_has_and_does() {
    let setup = Setup::new("sensor-1");
    setup.configure("store", false);
    let gateway = setup.start();
    let token = setup.token(&gateway);
    let empty = setup.metrics(&gateway).await;
    for name in [
        "tombolo_store_waiting{box=\"outbox\"}",
        "tombolo_store_waiting_bytes{box=\"outbox\"}",
        "tombolo_store_oldest_age_seconds{box=\"outbox\"}",
        "tombolo_store_dead_letters{box=\"outbox\"}",
        "tombolo_store_waiting{box=\"inbox\"}",
        "tombolo_store_dead_letters{box=\"inbox\"}",
        "tombolo_store_damaged_segments_total",
    ] {
        assert_eq!(empty.get(name), Some(&0.0), "{name}");
    }
    assert!(empty["tombolo_store_bytes"] > 0.0);
    assert_eq!(
        empty["tombolo_store_bytes_at_most"],
        4.0 * 1024.0 * 1024.0 * 1024.0
    );
    assert!(empty.contains_key("tombolo_store_recovery_seconds"));

    for body in ["one", "two", "three"] {
        setup.store(&gateway, &token, body).await;
    }
    let full = setup.metrics(&gateway).await;
    assert_eq!(full["tombolo_store_waiting{box=\"outbox\"}"], 3.0);
    assert!(full["tombolo_store_waiting_bytes{box=\"outbox\"}"] >= 11.0);
    assert!(full["tombolo_store_oldest_age_seconds{box=\"outbox\"}"] > 0.0);
    assert_eq!(full["tombolo_store_waiting{box=\"inbox\"}"], 0.0);
    assert!(full["tombolo_store_bytes"] > empty["tombolo_store_bytes"]);
    // Each was flushed before it was answered, and together with none of the others.
    assert_eq!(full["tombolo_store_records_total"], 3.0);
    assert_eq!(full["tombolo_store_flush_seconds_count"], 3.0);
    assert!(gateway.running.terminate().status.success());

    // Once the hub has them, nothing waits any more.
    setup.configure("store", true);
    let gateway = setup.start();
    let deadline = Instant::now() + BOUND;
    loop {
        let metrics = setup.metrics(&gateway).await;
        if metrics["tombolo_store_waiting{box=\"outbox\"}"] == 0.0 {
            break;
        }
        assert!(Instant::now() < deadline, "{metrics:?}");
    }
    assert_eq!(setup.telemetry(3).await, ["one", "two", "three"]);
    assert!(gateway.running.terminate().status.success());
}
