//! Jobs, as the service SDKs schedule them, and what is not emulated beside them.

use std::time::Instant;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::{BOUND, Rig};

#[tokio::test]
async fn a_job_is_scheduled_runs_and_is_read() {
    let rig = Rig::start().await;
    // As the Node SDK does it.
    let body = json!({
        "jobId": "My-Job", "type": "scheduleUpdateTwin", "queryCondition": "deviceId IN ['dev1']",
        "updateTwin": {"etag": "*", "properties": {"desired": {"rate": 5}}},
        "startTime": "2020-01-01T00:00:00.000Z", "maxExecutionTimeInSeconds": 300,
    });
    let put = || {
        rig.cloud
            .request(Method::PUT, "/jobs/v2/My-Job?api-version=2021-04-12")
            .json(&body)
    };
    let created = put().send().await.unwrap();
    assert_eq!(created.status(), StatusCode::OK);
    assert_eq!(created.json::<Value>().await.unwrap()["status"], "queued");
    let again = put().send().await.unwrap();
    assert_eq!(
        (again.status(), &again.headers()["iothub-errorcode"]),
        (StatusCode::CONFLICT, &"JobAlreadyExists".parse().unwrap())
    );

    let begun = Instant::now();
    loop {
        let job: Value = rig
            .cloud
            .get("/jobs/v2/My-Job")
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        if job["status"] == "completed" {
            assert_eq!(job["deviceJobStatistics"]["succeededCount"], 1);
            break;
        }
        assert!(begun.elapsed() < BOUND, "{job}");
        tokio::task::yield_now().await;
    }
    let list = rig
        .cloud
        .get("/jobs/v2/query?jobType=scheduleUpdateTwin&jobStatus=completed")
        .send()
        .await
        .unwrap();
    assert_eq!(list.json::<Value>().await.unwrap()[0]["jobId"], "My-Job");
    let rows = json!({"query": "SELECT * FROM devices.jobs"});
    let rows = rig
        .cloud
        .post("/devices/query")
        .json(&rows)
        .send()
        .await
        .unwrap();
    assert_eq!(rows.headers()["x-ms-item-type"], "DeviceJob");
    assert_eq!(
        rows.json::<Value>().await.unwrap()[0]["status"],
        "completed"
    );
    let unknown: Value = rig
        .cloud
        .get("/jobs/v2/other")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&unknown["type"], &unknown["status"]),
        (&json!("unknown"), &json!("unknown"))
    );
    let cancel = rig
        .cloud
        .post("/jobs/v2/My-Job/cancel")
        .send()
        .await
        .unwrap();
    assert_eq!(cancel.headers()["iothub-errorcode"], "InvalidOperation");
}

#[tokio::test]
async fn bad_jobs_are_refused() {
    let rig = Rig::start().await;
    let twin = json!({"tags": {}});
    for (id, body) in [
        (
            "a%2Fb",
            json!({"type": "scheduleUpdateTwin", "updateTwin": twin, "queryCondition": "*"}),
        ),
        ("a", json!({"type": "export", "queryCondition": "*"})),
        (
            "a",
            json!({"type": "scheduleUpdateTwin", "queryCondition": "*"}),
        ),
        (
            "a",
            json!({"type": "scheduleDeviceMethod", "queryCondition": "*"}),
        ),
        (
            "a",
            json!({"type": "scheduleUpdateTwin", "updateTwin": twin}),
        ),
        (
            "a",
            json!({"type": "scheduleUpdateTwin", "updateTwin": twin, "queryCondition": "a LIKE b"}),
        ),
        (
            "a",
            json!({"jobId": "b", "type": "scheduleUpdateTwin", "updateTwin": twin, "queryCondition": "*"}),
        ),
        (
            "a",
            json!({"type": "scheduleUpdateTwin", "updateTwin": twin, "queryCondition": "*", "startTime": "soon"}),
        ),
    ] {
        let answer = rig
            .cloud
            .request(Method::PUT, &format!("/jobs/v2/{id}"))
            .json(&body)
            .send();
        assert_eq!(
            answer.await.unwrap().status(),
            StatusCode::BAD_REQUEST,
            "{body}"
        );
    }
}

#[tokio::test]
async fn what_is_not_emulated_is_refused_by_name() {
    let rig = Rig::start().await;
    for (method, path, what) in [
        (Method::POST, "/jobs/create", "Import and export jobs"),
        (Method::GET, "/jobs", "Import and export jobs"),
        (
            Method::GET,
            "/configurations?top=5",
            "Configurations and deployments",
        ),
        (
            Method::PUT,
            "/configurations/a",
            "Configurations and deployments",
        ),
        (
            Method::POST,
            "/configurations/testQueries",
            "Configurations and deployments",
        ),
        (
            Method::POST,
            "/devices/dev1/applyConfigurationContent",
            "Configurations and deployments",
        ),
        (Method::GET, "/digitaltwins/dev1", "Digital twins"),
        (
            Method::POST,
            "/digitaltwins/dev1/components/c/commands/x",
            "Digital twins",
        ),
    ] {
        let answer = rig.cloud.request(method, path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED, "{path}");
        assert_eq!(answer.headers()["iothub-errorcode"], "FeatureNotSupported");
        let answer: Value = answer.json().await.unwrap();
        let expected = format!("ErrorCode:FeatureNotSupported;{what} are not emulated.");
        assert_eq!(answer["Message"], expected);
    }
}
