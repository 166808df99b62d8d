//! What is kept from one start to the next.

use std::path::Path;

use iothub::CloudMessage;
use tombolo_emulator::{Emulator, StartError};

use crate::rig::{BOUND, Got, Rig};

fn keeping(path: &Path) -> tombolo_emulator::Config {
    Rig::config(|config| config.state = Some(path.to_owned()))
}

#[tokio::test]
async fn a_queue_survives_an_orderly_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.state");
    let device = "dev1".parse().unwrap();
    let first = Emulator::start(keeping(&path)).await.unwrap();
    first
        .with_hub(|hub, now| hub.send_message(&device, CloudMessage::default(), now))
        .unwrap();
    first.shutdown(BOUND).await.unwrap();

    let rig = Rig::with(|config| config.state = Some(path.clone())).await;
    let info = rig.emulator.with_hub(|hub, _| hub.device(&device)).unwrap();
    assert_eq!(info.cloud_messages, 1);
    let (mut device, _) = rig.connect().await;
    device
        .subscribe(&["devices/dev1/messages/devicebound/#"])
        .await;
    let Some(Got::Publish { packet_id, .. }) = device.next().await else {
        panic!("no message")
    };
    device.puback(packet_id.unwrap()).await;
}

#[tokio::test]
async fn a_change_is_on_disk_without_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.state");
    let emulator = Emulator::start(keeping(&path)).await.unwrap();
    let device = "dev2".parse().unwrap();
    emulator
        .with_hub(|hub, now| hub.create_device(&device, Default::default(), now))
        .unwrap();
    let is_there = async {
        loop {
            if std::fs::read_to_string(&path).is_ok_and(|text| text.contains("\"dev2\"")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, is_there).await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.state");
    std::fs::write(&path, "not state\n").unwrap();
    let Err(StartError::State(error)) = Emulator::start(keeping(&path)).await else {
        panic!("it was taken")
    };
    assert!(
        error.to_string().contains("hub.state is damaged"),
        "{error}"
    );
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "not state\n",
        "untouched"
    );
}
