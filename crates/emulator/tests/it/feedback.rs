//! Cloud-to-device messages and their feedback over HTTPS, from the cloud's side.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::Rig;

#[tokio::test]
async fn feedback_is_received_in_batches_and_settled() {
    let rig = Rig::start().await;
    let feedback = "/messages/serviceBound/feedback";
    let none = rig.cloud.get(feedback).send().await.unwrap();
    assert_eq!(none.status(), StatusCode::NO_CONTENT);
    for n in 0..64 {
        let send = rig.cloud.post("/emulator/devices/dev1/messages");
        send.header("iothub-ack", "full")
            .header("iothub-messageid", n)
            .send()
            .await
            .unwrap();
        rig.cloud
            .request(Method::DELETE, "/devices/dev1/commands")
            .send()
            .await
            .unwrap();
    }
    let receive = || async {
        let batch = rig.cloud.get(feedback).send().await.unwrap();
        assert_eq!(
            batch.headers()["content-type"],
            "application/vnd.microsoft.iothub.feedback.json"
        );
        let lock = batch.headers()["etag"]
            .to_str()
            .unwrap()
            .trim_matches('"')
            .to_owned();
        (lock, batch.json::<Vec<Value>>().await.unwrap())
    };
    let (lock, records) = receive().await;
    assert_eq!(records.len(), 64);
    assert_eq!(
        (&records[5]["originalMessageId"], &records[5]["statusCode"]),
        (&json!("5"), &json!("Purged"))
    );
    let locked = rig.cloud.get(feedback).send().await.unwrap();
    assert_eq!(locked.status(), StatusCode::NO_CONTENT);
    let abandon = rig
        .cloud
        .post(&format!("{feedback}/{lock}/abandon"))
        .send()
        .await
        .unwrap();
    assert_eq!(abandon.status(), StatusCode::NO_CONTENT);
    let (lock, _) = receive().await;
    let complete = || {
        rig.cloud
            .request(Method::DELETE, &format!("{feedback}/{lock}"))
            .send()
    };
    assert_eq!(complete().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(
        complete().await.unwrap().headers()["iothub-errorcode"],
        "DeviceMessageLockLost"
    );

    let all: Value = rig
        .cloud
        .get("/emulator/feedback?from=64")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(all[0]["sequence"], 64, "reading takes nothing away");
}

#[tokio::test]
async fn a_message_is_sent_at_the_undocumented_path_too() {
    let rig = Rig::start().await;
    let path = "/devices/dev1/messages/deviceBound?api-version=2021-04-12";
    let send = |policy: &str| {
        let request = rig.cloud.anonymous(Method::POST, path).body("hi");
        request
            .header("authorization", rig.sas(policy))
            .header("iothub-app-a", "b")
            .send()
    };
    assert_eq!(
        send("registryRead").await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        send("service").await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    let device: Value = rig
        .cloud
        .get("/devices/dev1")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(device["cloudToDeviceMessageCount"], 1);
}
