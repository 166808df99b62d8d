//! Custody `gateway`: what the hub was told of is the gateway's, also if that is killed at any moment.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::BOUND;
use crate::served::Setup;

#[tokio::test]
async fn no_message_is_lost_when_the_gateway_is_killed_again_and_again() {
    let setup = Setup::new("sensor-1");
    setup.configure("store", true);
    let (cloud, hub_token) = setup.cloud();
    let url = format!("{}/emulator/devices/sensor-1/messages", setup.service());
    let mut sent = 0;
    let mut gateway = setup.start();
    let token = setup.token(&gateway);
    for round in 0..ROUNDS {
        for _ in 0..MESSAGES_OF_A_ROUND {
            let request = cloud.post(&url).bearer_auth(&hub_token);
            let answer = request.body(sent.to_string()).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            sent += 1;
        }
        // At a moment of its own in each round: while it starts, connects, appends, acknowledges.
        tokio::time::sleep(Duration::from_millis(40 * round)).await;
        gateway.running.kill();
        gateway = setup.start();
    }

    let device = setup.device_client();
    let url = format!("{}/inbox", gateway.device_api);
    let deadline = Instant::now() + BOUND;
    let numbers = loop {
        let answer = device.get(&url).bearer_auth(&token).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let numbers = numbers_of(&text);
        let different: BTreeMap<u64, ()> = numbers.iter().map(|number| (*number, ())).collect();
        if different.len() == sent {
            break numbers;
        }
        assert!(
            Instant::now() < deadline,
            "{sent} sent, but {numbers:?} in {text}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // A crash between disk and hub brings a message twice; the first of each kind are in order.
    let mut firsts = Vec::new();
    for number in numbers {
        if !firsts.contains(&number) {
            firsts.push(number);
        }
    }
    assert!(firsts.is_sorted(), "{firsts:?}");
    assert!(gateway.running.terminate().status.success());
}

/// The messages' bodies in an inbox.
fn numbers_of(inbox: &str) -> Vec<u64> {
    let Ok(inbox) = serde_json::from_str::<Value>(inbox) else {
        return Vec::new();
    };
    let entries = inbox["entries"].as_array().cloned().unwrap_or_default();
    let number = |entry: &Value| entry["body"].as_str()?.parse().ok();
    entries.iter().filter_map(number).collect()
}

const ROUNDS: u64 = 5;
const MESSAGES_OF_A_ROUND: u64 = 6;
