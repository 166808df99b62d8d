//! What the provisioning service keeps from one start to the next.

use std::path::Path;

use serde_json::json;
use tombolo_emulator::{
    StartError,
    hub::DeviceKeys,
    provisioning::{
        self,
        service::{Attestation, Group, GroupId, Terms},
    },
};

use super::rig::{Rig, group_key};
use crate::rig::BOUND;

async fn keeping(path: &Path) -> Rig {
    Rig::with(|config| config.state = Some(path.to_owned())).await
}

#[tokio::test]
async fn a_device_is_still_registered_after_an_orderly_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dps.state");
    let first = keeping(&path).await;
    first.enroll_group(json!({})).await;
    let before = first.provision("reg-1").await;
    assert_eq!(before["substatus"], "initialAssignment");
    first.provisioning.shutdown(BOUND).await.unwrap();

    let second = keeping(&path).await;
    let after = second.provision("reg-1").await;
    assert_eq!(after["substatus"], "reprovisionedToInitialAssignment");
    assert_eq!(after["assignedHub"], before["assignedHub"]);
    assert_eq!(after["createdDateTimeUtc"], before["createdDateTimeUtc"]);
}

#[tokio::test]
async fn a_change_is_on_disk_without_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dps.state");
    let rig = keeping(&path).await;
    rig.enroll_group(json!({})).await;
    let is_there = async {
        loop {
            if std::fs::read_to_string(&path).is_ok_and(|text| text.contains("\"group-1\"")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, is_there).await.unwrap();
}

#[tokio::test]
async fn a_group_of_the_configuration_stays_as_an_operator_left_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dps.state");
    let id: GroupId = "group-1".parse().unwrap();
    let configure = |config: &mut provisioning::Config| {
        let keys = DeviceKeys {
            primary: group_key(),
            secondary: group_key(),
        };
        let terms = Terms::new(Attestation::SymmetricKey(keys));
        config.groups = vec![(id.clone(), Group { terms })];
        config.state = Some(path.clone());
    };
    let first = Rig::with(configure).await;
    assert_eq!(first.provision("reg-1").await["status"], "assigned");
    first
        .enroll_group(json!({ "provisioningStatus": "disabled" }))
        .await;
    first.provisioning.shutdown(BOUND).await.unwrap();

    let second = Rig::with(configure).await;
    let is_enabled = second
        .provisioning
        .with_service(|service, _| service.group(&id).unwrap().terms.is_enabled);
    assert!(!is_enabled);
}

#[tokio::test]
async fn a_damaged_file_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dps.state");
    let first = keeping(&path).await;
    first.enroll_group(json!({})).await;
    first.provisioning.shutdown(BOUND).await.unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let started = Rig::try_with(|config| config.state = Some(path.clone())).await;
    let Err(StartError::State(error)) = started else {
        panic!("it was taken")
    };
    assert!(
        error.to_string().contains("dps.state is damaged"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "untouched");
}
