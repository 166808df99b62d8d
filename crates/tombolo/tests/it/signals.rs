//! `tombolo serve` and signals: to read its certificate again, and to stop at once.

use std::fs;
use std::time::Instant;

use serde_json::json;
use tokio::task::JoinSet;

use crate::program::{BOUND, Running, client};
use crate::served::{Setup, receipt_of};

#[tokio::test]
async fn sighup_reads_the_certificate_again_and_keeps_it_if_it_is_none() {
    let setup = Setup::new("sensor-1");
    setup.configure("store", false);
    let mut gateway = setup.start();
    let other = setup.path("other");
    Running::dev(&other, &[]).interrupt().assert_orderly();
    let (old, new) = (setup.path("dev"), other);
    let url = format!("{}/twin", gateway.device_api);
    // Without a token it is refused, by whom it trusts.
    let trusts = async |authority| {
        let asked = client(authority).get(&url).send().await;
        asked.is_ok_and(|answer| answer.status() == 401)
    };
    assert!(trusts(&old).await && !trusts(&new).await);

    fs::write(old.join("gateway.pem"), "no certificate").unwrap();
    gateway.running.hang_up();
    gateway.running.until("the certificate stays as it was");
    assert!(trusts(&old).await);

    fs::copy(new.join("gateway.pem"), old.join("gateway.pem")).unwrap();
    gateway.running.hang_up();
    gateway.running.until("the certificate was reloaded");
    assert!(trusts(&new).await && !trusts(&old).await);
    assert!(gateway.running.terminate().status.success());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_loses_nothing_that_was_promised() {
    let setup = Setup::new("sensor-1");
    setup.configure("store", true);
    let (cloud, hub_token) = setup.cloud();
    let faults = format!("{}/emulator/faults", setup.service());
    let fault = cloud.post(&faults).bearer_auth(&hub_token);
    let fault = fault.json(&json!({"fault": {"kind": "swallow-puback"}}));
    assert_eq!(fault.send().await.unwrap().status(), 200);
    let gateway = setup.start();
    let token = setup.token(&gateway);
    let mut receipts = Vec::new();
    for body in ["one", "two", "three"] {
        receipts.push(setup.store(&gateway, &token, body).await);
    }
    // What waits for the hub holds up a gateway that stops in order.
    let url = format!("{}/messages/events", gateway.device_api);
    let request = setup.device_client().post(url).bearer_auth(&token);
    let mut waiting = JoinSet::new();
    waiting.spawn(request.header("prefer", "wait=25").body("four").send());
    let deadline = Instant::now() + BOUND;
    while setup.metrics(&gateway).await["tombolo_front_requests_in_flight"] < 1.0 {
        assert!(Instant::now() < deadline, "the request has not come");
    }
    let running = gateway.running;
    let ended = tokio::task::spawn_blocking(|| running.terminate_and_interrupt());
    let ended = ended.await.unwrap();
    let said = ended.lines.join("\n");
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("stopped at once, as asked"), "{said}");
    // It is stored at the first signal or refused, and may hear nothing of either.
    if let Ok(answer) = waiting.join_next().await.unwrap().unwrap()
        && answer.status() == 202
    {
        receipts.push(receipt_of(&answer));
    }

    let mended = cloud.delete(&faults).bearer_auth(&hub_token);
    assert!(mended.send().await.unwrap().status().is_success());
    let gateway = setup.start();
    for receipt in &receipts {
        let deadline = Instant::now() + BOUND;
        while setup.state_of(&gateway, &token, receipt).await != "acknowledged" {
            assert!(Instant::now() < deadline, "{receipt} is lost");
        }
    }
    assert!(gateway.running.terminate().status.success());
}
