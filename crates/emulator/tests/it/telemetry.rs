//! Reading telemetry: waiting, following, resuming.

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use tokio::time::timeout;

use crate::rig::{BOUND, Rig};

/// Reads a stream until it has said `text`.
async fn read_until(response: &mut reqwest::Response, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let chunk = timeout(BOUND, response.chunk())
            .await
            .expect("a chunk in time");
        seen += std::str::from_utf8(&chunk.unwrap().expect("the stream goes on")).unwrap();
    }
    seen
}

#[tokio::test]
async fn a_page_waits_for_its_first_record() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    let page = rig.cloud.get("/emulator/telemetry?wait=20").send();
    let sending = device.publish("devices/dev1/messages/events/", &[0xff, 0], 1);
    let (page, ()) = tokio::join!(page, sending);
    let text = page.unwrap().text().await.unwrap();
    assert!(text.contains(r#""bodyBase64":"/wA=""#), "{text}");
    let empty = rig
        .cloud
        .get("/emulator/telemetry?from=2")
        .send()
        .await
        .unwrap();
    assert_eq!(empty.text().await.unwrap(), "");
}

#[tokio::test]
async fn lines_are_followed_and_end_with_the_emulator() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    let mut stream = rig
        .cloud
        .get("/emulator/telemetry?follow")
        .send()
        .await
        .unwrap();
    assert_eq!(stream.headers()[CONTENT_TYPE], "application/jsonl");
    for number in 1..4u16 {
        device
            .publish(
                "devices/dev1/messages/events/",
                number.to_string().as_bytes(),
                number,
            )
            .await;
        read_until(&mut stream, &format!("\"body\":\"{number}\"")).await;
    }
    rig.emulator.shutdown(BOUND).await.unwrap();
    let rest = stream.text().await.expect("a stream ends politely");
    assert_eq!(rest, "");
}

#[tokio::test]
async fn events_resume_after_the_last_one_seen() {
    let rig = Rig::start().await;
    let (mut device, _) = rig.connect().await;
    for number in 1..=3u16 {
        device
            .publish(
                "devices/dev1/messages/events/",
                number.to_string().as_bytes(),
                number,
            )
            .await;
        device.next().await;
    }
    let events = rig
        .cloud
        .get("/emulator/telemetry?from=1")
        .header(ACCEPT, "text/event-stream");
    let mut stream = events.header("last-event-id", "2").send().await.unwrap();
    assert_eq!(stream.headers()[CONTENT_TYPE], "text/event-stream");
    let seen = read_until(&mut stream, "\n\n").await;
    assert!(seen.starts_with("id: 3\ndata: {\"sequence\":3,"), "{seen}");
}

#[tokio::test]
async fn a_reader_hears_of_what_it_missed() {
    let rig = Rig::with(|config| config.hub.telemetry_records = 2).await;
    let (mut device, _) = rig.connect().await;
    for number in 1..=5u16 {
        device
            .publish("devices/dev1/messages/events/", b"", number)
            .await;
        device.next().await;
    }
    let page = rig.cloud.get("/emulator/telemetry").send().await.unwrap();
    assert_eq!(page.headers()["emulator-missed"], "3");
    assert!(
        page.text()
            .await
            .unwrap()
            .starts_with("{\"missed\":3}\n{\"sequence\":4,")
    );
}
