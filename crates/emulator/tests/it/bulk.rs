//! Many identities in one request, as the service SDKs send them.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::Rig;

#[tokio::test]
async fn devices_and_modules_are_created_and_deleted_in_bulk() {
    let rig = Rig::start().await;
    let send = |body: Value| {
        rig.cloud
            .post("/devices?api-version=2021-04-12")
            .json(&body)
            .send()
    };
    // As the Node SDK does it.
    let sas = json!({"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}});
    let done = send(json!([
        {"id": "dev2", "importMode": "create", "authentication": sas},
        {"id": "dev2", "moduleId": "m", "importMode": "create"},
        {"id": "dev3", "importMode": "create", "status": "disabled", "tags": {"a": 1}, "properties": {"desired": {"b": 2}}},
    ]));
    let done = done.await.unwrap();
    assert_eq!(done.status(), StatusCode::OK);
    let done: Value = done.json().await.unwrap();
    assert_eq!(
        done,
        json!({"isSuccessful": true, "errors": [], "warnings": []})
    );
    let twin: Value = rig
        .cloud
        .get("/twins/dev3")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(twin["status"], "disabled");
    assert_eq!(
        (&twin["tags"]["a"], &twin["properties"]["desired"]["b"]),
        (&json!(1), &json!(2))
    );

    let half = send(json!([
        {"id": "dev2", "importMode": "Delete"},
        {"id": "dev9", "importMode": "update"},
        {"id": "a/b", "importMode": "create"},
        {"id": "dev1", "importMode": "deleteIfMatchETag"},
        {"id": "dev3", "importMode": "burn"},
    ]));
    let half = half.await.unwrap();
    assert_eq!(half.status(), StatusCode::BAD_REQUEST);
    let half: Value = half.json().await.unwrap();
    assert_eq!(half["isSuccessful"], false);
    let errors: Vec<_> = half["errors"].as_array().unwrap().iter().collect();
    let seen: Vec<_> = errors
        .iter()
        .map(|e| {
            (
                e["deviceId"].as_str().unwrap(),
                e["errorCode"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("dev9", 404_001),
            ("a/b", 400_004),
            ("dev1", 400_004),
            ("dev3", 400_004)
        ]
    );
    assert_eq!(
        rig.cloud
            .get("/devices/dev2")
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::NOT_FOUND
    );

    let many: Vec<_> = (0..101)
        .map(|n| json!({"id": format!("many{n}"), "importMode": "create"}))
        .collect();
    let refused = send(json!(many)).await.unwrap();
    assert_eq!(refused.headers()["iothub-errorcode"], "ArgumentInvalid");
}
