//! The registry over REST, as the service SDKs use it.

use reqwest::{Method, StatusCode, header::IF_MATCH};
use serde_json::{Value, json};

use crate::rig::Rig;

#[tokio::test]
async fn a_device_is_created_read_changed_listed_and_deleted() {
    let rig = Rig::start().await;
    let put = || {
        rig.cloud
            .request(Method::PUT, "/devices/dev2?api-version=2021-04-12")
    };
    // As the Node SDK does it.
    let body = json!({"deviceId": "dev2", "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}}});
    let created = put().json(&body).send().await.unwrap();
    assert_eq!(created.status(), StatusCode::OK, "200 and not 201");
    assert!(created.headers().contains_key("x-ms-request-id"));
    let created: Value = created.json().await.unwrap();
    let key = &created["authentication"]["symmetricKey"]["primaryKey"];
    assert_eq!(key.as_str().unwrap().len(), 44);

    let again = put().json(&body).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::CONFLICT);
    let again: Value = again.json().await.unwrap();
    assert_eq!(
        again["Message"],
        "ErrorCode:DeviceAlreadyExists;A device with ID 'dev2' is already registered."
    );

    let etag = format!("\"{}\"", created["etag"].as_str().unwrap());
    let disable = json!({"deviceId": "dev2", "status": "disabled", "authentication": created["authentication"]});
    let changed = put()
        .header(IF_MATCH, &etag)
        .json(&disable)
        .send()
        .await
        .unwrap();
    let changed: Value = changed.json().await.unwrap();
    assert_eq!(changed["status"], "disabled");
    assert_eq!(
        &changed["authentication"]["symmetricKey"]["primaryKey"],
        key
    );
    let stale = put()
        .header(IF_MATCH, etag)
        .json(&disable)
        .send()
        .await
        .unwrap();
    assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED);

    let list: Value = rig
        .cloud
        .get("/devices/?top=10")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    let numbers: Value = rig
        .cloud
        .get("/statistics/devices")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        numbers,
        json!({"totalDeviceCount": 2, "enabledDeviceCount": 1, "disabledDeviceCount": 1})
    );

    let delete = || rig.cloud.request(Method::DELETE, "/devices/dev2");
    assert_eq!(
        delete().send().await.unwrap().status(),
        StatusCode::PRECONDITION_FAILED
    );
    let gone = delete().header(IF_MATCH, "*").send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    let missing = rig.cloud.get("/devices/dev2").send().await.unwrap();
    assert_eq!(missing.headers()["iothub-errorcode"], "DeviceNotFound");
    let missing: Value = missing.json().await.unwrap();
    assert_eq!(
        missing["Message"], "ErrorCode:DeviceNotFound;dev2",
        "the Node SDK reads this text"
    );
}

#[tokio::test]
async fn a_module_is_created_read_changed_listed_and_deleted() {
    let rig = Rig::start().await;
    let at = |method, path: &str| rig.cloud.request(method, path);
    // As the Node SDK does it.
    let body = json!({"deviceId": "dev1", "moduleId": "mod1", "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}}});
    let put = || at(Method::PUT, "/devices/dev1/modules/mod1").json(&body);
    let created = put().send().await.unwrap();
    assert_eq!(created.status(), StatusCode::OK);
    let created: Value = created.json().await.unwrap();
    assert_eq!(created["moduleId"], "mod1");
    assert!(created.get("status").is_none(), "modules have no status");

    let again = put().send().await.unwrap();
    assert_eq!(again.status(), StatusCode::CONFLICT);
    assert_eq!(
        again.headers()["iothub-errorcode"],
        "ModuleAlreadyExistsOnDevice"
    );
    let again: Value = again.json().await.unwrap();
    assert_eq!(again["errorCode"], 409_301);
    assert_eq!(
        again["message"],
        "Device dev1 in IotHub hub.example already contains Module mod1."
    );

    let managed = json!({"managedBy": "me", "authentication": created["authentication"]});
    let changed = at(Method::PUT, "/devices/dev1/modules/mod1")
        .header(IF_MATCH, "*")
        .json(&managed);
    let changed: Value = changed.send().await.unwrap().json().await.unwrap();
    assert_eq!(changed["managedBy"], "me");
    assert_eq!(changed["authentication"], created["authentication"]);
    let list: Value = rig
        .cloud
        .get("/devices/dev1/modules")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(list, json!([changed]));

    let twin = at(Method::PATCH, "/twins/dev1/modules/mod1")
        .json(&json!({"tags": {"a": 1}}))
        .send();
    let twin: Value = twin.await.unwrap().json().await.unwrap();
    assert_eq!(
        (&twin["moduleId"], &twin["tags"]["a"]),
        (&json!("mod1"), &json!(1))
    );
    let call = at(Method::POST, "/twins/dev1/modules/mod1/methods")
        .json(&json!({"methodName": "m"}))
        .send();
    let call = call.await.unwrap();
    assert_eq!(call.headers()["iothub-errorcode"], "DeviceNotOnline");

    let delete = || at(Method::DELETE, "/devices/dev1/modules/mod1").header(IF_MATCH, "*");
    let gone = delete().send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    let missing = delete().send().await.unwrap();
    assert_eq!(missing.headers()["iothub-errorcode"], "ModuleNotFound");
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_twin_is_replaced_and_guarded_by_its_etag() {
    let rig = Rig::start().await;
    let put = |etag: &str, body: Value| {
        rig.cloud
            .request(Method::PUT, "/twins/dev1")
            .header(IF_MATCH, etag)
            .json(&body)
            .send()
    };
    let first: Value = rig
        .cloud
        .get("/twins/dev1")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let mut document = first.clone();
    document["properties"]["desired"]["a"] = json!(1);
    let second: Value = put("\"AAAAAAAAAAE=\"", document.clone())
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(second["properties"]["desired"]["a"], 1);
    assert_eq!(second["properties"]["desired"]["$version"], 2);
    let stale = put("\"AAAAAAAAAAE=\"", document).await.unwrap();
    assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED);
    let empty: Value = put("*", json!({})).await.unwrap().json().await.unwrap();
    assert!(empty["properties"]["desired"].get("a").is_none());
}

#[tokio::test]
async fn a_queue_is_purged() {
    let rig = Rig::start().await;
    rig.cloud
        .post("/emulator/devices/dev1/messages")
        .body("x")
        .send()
        .await
        .unwrap();
    let purge = rig.cloud.request(Method::DELETE, "/devices/dev1/commands");
    let answer: Value = purge.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        answer,
        json!({"deviceId": "dev1", "moduleId": null, "totalMessagesPurged": 1})
    );
}

#[tokio::test]
async fn bad_requests_are_answered_in_the_hubs_form() {
    let rig = Rig::start().await;
    let put = |body: &str| {
        let body = body.to_owned();
        rig.cloud.request(Method::PUT, "/devices/dev9").body(body)
    };
    let get = |path: &str| rig.cloud.get(path);
    for (request, status, code) in [
        (put("{"), 400, "IotHubFormatError"),
        (put(r#"{"deviceId":"other"}"#), 400, "ArgumentInvalid"),
        (
            put(r#"{"authentication":{"type":"selfSigned"}}"#),
            400,
            "ArgumentInvalid",
        ),
        (
            put(r#"{"authentication":{"symmetricKey":{"primaryKey":"AAAA"}}}"#),
            400,
            "ArgumentInvalid",
        ),
        (
            put(&format!("\"{}\"", "x".repeat(1 << 20))),
            413,
            "MessageTooLarge",
        ),
        (get("/devices/a%2Fb"), 400, "ArgumentInvalid"),
        (get("/devices?top=0"), 400, "ArgumentInvalid"),
        (get("/devices?top=x"), 400, "ArgumentInvalid"),
        (get("/twins/no-such"), 404, "DeviceNotFound"),
        (get("/nowhere"), 404, "NotFound"),
        (rig.cloud.post("/devices/dev1"), 405, "MethodNotAllowed"),
        (
            rig.cloud
                .post("/twins/dev1/methods")
                .body(r#"{"methodName":"a b"}"#),
            400,
            "ArgumentInvalid",
        ),
        (
            rig.cloud
                .post("/twins/dev1/methods")
                .body(r#"{"methodName":"a","responseTimeoutInSeconds":4}"#),
            400,
            "ArgumentInvalid",
        ),
        (
            rig.cloud
                .post("/emulator/devices/dev1/messages")
                .header("iothub-ack", "maybe"),
            400,
            "ArgumentInvalid",
        ),
        (
            rig.cloud
                .post("/emulator/faults")
                .body(r#"{"fault":{"kind":"no"}}"#),
            400,
            "IotHubFormatError",
        ),
    ] {
        let answer = request.send().await.unwrap();
        let url = answer.url().path().to_owned();
        assert_eq!(answer.status(), status, "{url} {code}");
        assert_eq!(answer.headers()["iothub-errorcode"], code, "{url}");
        let body: Value = answer.json().await.unwrap();
        assert!(
            body["Message"]
                .as_str()
                .unwrap()
                .starts_with(&format!("ErrorCode:{code};"))
        );
        assert!(
            body["ExceptionMessage"]
                .as_str()
                .unwrap()
                .starts_with("Tracking ID:")
        );
    }
}
