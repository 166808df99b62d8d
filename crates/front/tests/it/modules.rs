//! Modules: the calls of a device, by its own token or by the device's.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{Done, SessionState, Work};

use crate::{
    hub::Hub,
    rig::{PATIENCE, Rig, TOKEN, assert_status, module, problem, send, serve_device},
};

const MODULE: &str = "/devices/dev1/modules/m1";
const OF_MODULE: &str = "tmb_of-m1";

/// The hub side of a module that has a token.
async fn of_module(rig: &Rig) -> Hub {
    serve_device(&rig.store, &module("dev1", "m1"), OF_MODULE).await;
    let hub = Hub::new(&rig.store, &module("dev1", "m1")).await;
    hub.is(SessionState::Settled).await;
    hub
}

#[tokio::test]
async fn a_module_has_the_calls_of_a_device() {
    let rig = Rig::start().await;
    let mut hub = of_module(&rig).await;
    hub.settles(|work| {
        Some(Ok(match work {
            Work::Telemetry(_) | Work::MethodAnswer { .. } => Done::Acknowledged,
            Work::TwinRead => Done::TwinRead(
                iothub::twin::Twin::parse(
                    br#"{"desired":{"$version":1},"reported":{"$version":2}}"#,
                )
                .unwrap()
                .into(),
            ),
            Work::ReportedPatch(_) => Done::ReportedPatched { version: None },
        }))
    })
    .await;
    hub.wants(1, json!({})).await;
    let id = hub.invokes("m", "", PATIENCE).await;
    // The module's own token, and that of its device.
    for token in [OF_MODULE, TOKEN] {
        let call = async |method: Method, path: &str, body: &str| {
            let request = rig
                .anonymous(method, &format!("{MODULE}/{path}"))
                .bearer_auth(token)
                .body(body.to_owned());
            send(request).await
        };
        let sent = call(Method::POST, "messages/events", "x").await;
        assert_status(&sent, StatusCode::NO_CONTENT);
        let twin = call(Method::GET, "twin", "").await;
        assert_eq!(twin.headers()["etag"], "\"d1-r2\"");
        let patched = call(Method::PATCH, "twin/properties/reported", r#"{"a":1}"#).await;
        assert_status(&patched, StatusCode::OK);
        let desired = call(Method::GET, "twin/properties/desired", "").await;
        assert_eq!(desired.headers()["etag"], "\"1\"");
        for path in ["methods", "inbox"] {
            assert_status(&call(Method::GET, path, "").await, StatusCode::OK);
        }
        let body = r#"[{"token":"t","outcome":"complete"}]"#;
        let settled: Value = call(Method::POST, "inbox/settle", body)
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(settled["results"][0]["code"], "lock_lost");
    }
    let path = format!("{MODULE}/methods/{id}/response");
    let request = rig
        .anonymous(Method::POST, &path)
        .bearer_auth(OF_MODULE)
        .body(r#"{"status":200}"#);
    assert_status(&send(request).await, StatusCode::NO_CONTENT);
    assert!(
        rig.hub.taken.lock().is_empty(),
        "nothing is the device's own"
    );
}

#[tokio::test]
async fn a_module_speaks_for_nobody_else() {
    let rig = Rig::start().await;
    let _hub = of_module(&rig).await;
    for path in [
        "/devices/dev1/twin",
        "/devices/dev1/modules/m2/twin",
        "/devices/dev1/modules/M1/twin",
        "/devices/dev2/modules/m1/twin",
    ] {
        let request = rig.anonymous(Method::GET, path).bearer_auth(OF_MODULE);
        problem(send(request).await, 403, "forbidden").await;
    }
    problem(
        rig.get("/devices/dev2/modules/m1/twin").await,
        403,
        "forbidden",
    )
    .await;
    let response = rig.get("/devices/dev1/modules/m2/twin").await;
    assert_eq!(response.headers()["iothub-errorcode"], "ModuleNotFound");
    problem(response, 404, "not_found").await;
}
