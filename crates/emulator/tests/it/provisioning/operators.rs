//! The REST API of operators, as the provisioning service SDKs call it.

use reqwest::{Method, StatusCode, header::ORIGIN};
use serde_json::{Value, json};

use super::rig::{Rig, owner_token};

#[tokio::test]
async fn an_enrollment_is_written_read_and_deleted() {
    let rig = Rig::start().await;
    let body = json!({
        "registrationId": "reg-1",
        "attestation": { "type": "symmetricKey", "symmetricKey": {} },
        "capabilities": { "iotEdge": false },
    });
    let written = rig
        .enroll("/enrollments/reg-1?api-version=2021-10-01", body.clone())
        .await;
    let keys = written["attestation"]["symmetricKey"].clone();
    assert!(keys["primaryKey"].is_string());

    let read: Value = rig
        .cloud
        .get("/enrollments/reg-1")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(read["attestation"], json!({ "type": "symmetricKey" }));
    assert_eq!(read["etag"], written["etag"]);
    let mechanism = rig
        .cloud
        .post("/enrollments/reg-1/attestationmechanism")
        .send();
    let mechanism: Value = mechanism.await.unwrap().json().await.unwrap();
    assert_eq!(mechanism["symmetricKey"], keys);

    // The tag as it stands in the document, quotes included, which is what the SDKs send.
    let etag = read["etag"].as_str().unwrap();
    let replaced = rig.cloud.request(Method::PUT, "/enrollments/reg-1");
    let replaced = replaced
        .header("if-match", etag)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(replaced.status(), StatusCode::OK);
    let stale = rig.cloud.request(Method::DELETE, "/enrollments/reg-1");
    let stale = stale.header("if-match", etag).send().await.unwrap();
    assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED);
    let deleted = rig.cloud.request(Method::DELETE, "/enrollments/reg-1");
    let deleted = deleted.header("if-match", "*").send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    let gone = rig.cloud.get("/enrollments/reg-1").send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    let gone: Value = gone.json().await.unwrap();
    assert_eq!(gone["errorCode"], 404_201);
}

#[tokio::test]
async fn lists_come_in_pages_with_the_services_headers() {
    let rig = Rig::start().await;
    // Node's SDK puts a slash before the query.
    let items: Vec<_> = (0..5)
        .map(|n| json!({ "registrationId": format!("reg-{n}"), "attestation": { "type": "symmetricKey" } }))
        .collect();
    let bulk = rig.cloud.post("/enrollments/?api-version=2021-10-01");
    let bulk = bulk.json(&json!({ "mode": "create", "enrollments": items }));
    let bulk: Value = bulk.send().await.unwrap().json().await.unwrap();
    assert_eq!(bulk, json!({ "isSuccessful": true, "errors": [] }));

    let mut found = Vec::new();
    let mut continuation = None;
    loop {
        let request = rig.cloud.post("/enrollments/query?api-version=2021-10-01");
        let mut request = request
            .header("x-ms-max-item-count", "2")
            .json(&json!({ "query": "SELECT * FROM enrollments" }));
        if let Some(token) = continuation.take() {
            request = request.header("x-ms-continuation", token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["x-ms-item-type"], "enrollments");
        continuation = answer.headers().get("x-ms-continuation").cloned();
        let page: Vec<Value> = answer.json().await.unwrap();
        assert!(page.len() <= 2);
        found.extend(page);
        if continuation.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 5);
    for count in ["0", "1001", "x"] {
        let request = rig.cloud.post("/enrollments/query");
        let refused = request.header("x-ms-max-item-count", count).send().await;
        assert_eq!(
            refused.unwrap().status(),
            StatusCode::BAD_REQUEST,
            "{count}"
        );
    }
}

#[tokio::test]
async fn registrations_are_read_listed_and_deleted() {
    let rig = Rig::start().await;
    rig.enroll_group(json!({})).await;
    let state = rig.provision("reg-1").await;
    let read: Value = rig
        .cloud
        .get("/registrations/reg-1")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(read, state);
    let listed = rig
        .cloud
        .post("/registrations/group-1/query")
        .json(&json!({ "query": "*" }));
    let listed: Value = listed.send().await.unwrap().json().await.unwrap();
    assert_eq!(listed, json!([state]));
    let deleted = rig
        .cloud
        .request(Method::DELETE, "/registrations/reg-1")
        .send()
        .await;
    assert_eq!(deleted.unwrap().status(), StatusCode::NO_CONTENT);
    let gone = rig.cloud.get("/registrations/reg-1").send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_operator_needs_a_token() {
    for is_open in [true, false] {
        let rig = Rig::with(|config| config.token_opens_service_api = is_open).await;
        let status = async |token: Option<String>| {
            let request = rig.cloud.anonymous(Method::POST, "/enrollmentGroups/query");
            let request = match token {
                None => request,
                Some(token) => request.header("authorization", token),
            };
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(status(Some(owner_token())).await, 200);
        assert_eq!(
            status(Some(owner_token().replace("dps.", "dpt."))).await,
            401
        );
        assert_eq!(status(None).await, 401);
        let bearer = rig
            .cloud
            .post("/enrollmentGroups/query")
            .send()
            .await
            .unwrap();
        assert_eq!(bearer.status() == StatusCode::OK, is_open);
    }
    let rig = Rig::start().await;
    let string = rig
        .provisioning
        .connection_string("provisioningserviceowner")
        .unwrap();
    assert!(string.starts_with(
        "HostName=dps.example;SharedAccessKeyName=provisioningserviceowner;SharedAccessKey=Bwc"
    ));
    assert!(rig.provisioning.connection_string("nobody").is_none());
}

#[tokio::test]
async fn web_pages_and_wrong_requests_are_kept_out() {
    let rig = Rig::start().await;
    let page = rig
        .cloud
        .get("/enrollments/reg-1")
        .header(ORIGIN, "https://evil.example");
    assert_eq!(page.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let cases = [
        (Method::PUT, "/enrollments/-", "{}", 400),
        (Method::PUT, "/enrollments/reg-1", "{", 400),
        (Method::PUT, "/enrollments/reg-1", "{}", 400),
        (Method::PATCH, "/enrollments/reg-1", "{}", 405),
        (Method::GET, "/enrollments/reg-1/other", "", 404),
        (Method::POST, "/registrations/group-1/query", "{}", 404),
        (
            Method::POST,
            "/enrollments/query",
            r#"{"query":"SELECT etag FROM enrollments"}"#,
            400,
        ),
    ];
    for (method, path, body, status) in cases {
        let answer = rig.cloud.request(method.clone(), path).body(body).send();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path} {body}");
        let number = answer.headers()["x-ms-error-code"]
            .to_str()
            .unwrap()
            .to_owned();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["errorCode"].to_string(), number);
        assert!(body["message"].is_string());
    }
    let large = rig.cloud.request(Method::PUT, "/enrollments/reg-1");
    let large = large
        .body("x".repeat(1024 * 1024 + 1))
        .send()
        .await
        .unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn it_stops() {
    let rig = Rig::start().await;
    let _device = rig
        .connect(
            "reg-1",
            super::Proof::Token("SharedAccessSignature x".to_owned()),
        )
        .await;
    rig.provisioning.shutdown(crate::rig::BOUND).await.unwrap();
}
