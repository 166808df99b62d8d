//! Queries, as the service SDKs send them.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::Rig;

#[tokio::test]
async fn a_query_is_answered_page_by_page() {
    let rig = Rig::start().await;
    let many: Vec<_> = (2..5)
        .map(|n| json!({"id": format!("dev{n}"), "importMode": "create"}))
        .collect();
    rig.cloud.post("/devices").json(&many).send().await.unwrap();
    let ask = || {
        let query = json!({"query": "SELECT * FROM devices"});
        rig.cloud
            .post("/devices/query?api-version=2021-04-12")
            .header("x-ms-max-item-count", 3)
            .json(&query)
    };
    let first = ask().send().await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.headers()["x-ms-item-type"], "Twin");
    let token = first.headers()["x-ms-continuation"].clone();
    assert_eq!(first.json::<Vec<Value>>().await.unwrap().len(), 3);
    let second = ask()
        .header("x-ms-continuation", token)
        .send()
        .await
        .unwrap();
    assert!(!second.headers().contains_key("x-ms-continuation"));
    let second: Vec<Value> = second.json().await.unwrap();
    assert_eq!(second[0]["deviceId"], "dev4");

    let raw = json!({"query": "SELECT COUNT() AS n FROM devices"});
    let raw = rig
        .cloud
        .post("/devices/query")
        .json(&raw)
        .send()
        .await
        .unwrap();
    assert_eq!(raw.headers()["x-ms-item-type"], "Raw");
    assert_eq!(raw.json::<Value>().await.unwrap(), json!([{"n": 4}]));
}

#[tokio::test]
async fn a_query_that_cannot_be_used_is_refused_by_name() {
    let rig = Rig::start().await;
    for (path, header, query, status) in [
        (
            "/devices/query",
            "10",
            "SELECT * FROM devices ORDER BY deviceId",
            400,
        ),
        ("/devices/query", "0", "SELECT * FROM devices", 400),
        ("/devices/query", "1001", "SELECT * FROM devices", 400),
        ("/devices/query", "many", "SELECT * FROM devices", 400),
        ("/devices/other", "10", "SELECT * FROM devices", 405),
    ] {
        let body = json!({"query": query});
        let answer = rig
            .cloud
            .post(path)
            .header("x-ms-max-item-count", header)
            .json(&body)
            .send();
        assert_eq!(
            answer.await.unwrap().status(),
            status,
            "{path} {header} {query}"
        );
    }
    let order = json!({"query": "SELECT * FROM devices ORDER BY deviceId"});
    let answer = rig
        .cloud
        .post("/devices/query")
        .json(&order)
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    let expected = "ErrorCode:ArgumentInvalid;The query cannot be used: at character 23: ORDER is not supported.";
    assert_eq!(answer["Message"], expected);
}

#[tokio::test]
async fn a_device_may_be_named_query() {
    let rig = Rig::start().await;
    let put = rig
        .cloud
        .request(reqwest::Method::PUT, "/devices/query")
        .json(&json!({}));
    assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    let read: Value = rig
        .cloud
        .get("/devices/query")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(read["deviceId"], "query");
}
