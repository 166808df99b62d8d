//! Who is let in.

use reqwest::{
    Method, StatusCode,
    header::{AUTHORIZATION, HOST, ORIGIN},
};

use tombolo_emulator::Config;

use crate::rig::{Rig, TOKEN};

#[tokio::test]
async fn the_service_api_wants_a_policy_with_the_right() {
    let rig = Rig::start().await;
    let status = async |policy: &str, method: Method, path: &str| {
        let request = rig.cloud.anonymous(method, path);
        let request = request.header(AUTHORIZATION, rig.sas(policy));
        request.body("{}").send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("iothubowner", Method::GET, "/devices").await, 200);
    assert_eq!(
        status("registryRead", Method::GET, "/devices/dev1").await,
        200
    );
    assert_eq!(
        status("registryRead", Method::PUT, "/devices/dev2").await,
        401
    );
    assert_eq!(
        status("registryRead", Method::GET, "/twins/dev1").await,
        401
    );
    assert_eq!(
        status("registryReadWrite", Method::PUT, "/devices/dev2").await,
        200
    );
    assert_eq!(status("service", Method::GET, "/twins/dev1").await, 200);
    assert_eq!(status("service", Method::GET, "/devices").await, 401);
    assert_eq!(status("device", Method::GET, "/devices").await, 401);
    assert_eq!(
        status("iothubowner", Method::GET, "/emulator/telemetry").await,
        401
    );
}

#[tokio::test]
async fn the_token_opens_what_the_configuration_says() {
    for is_open in [true, false] {
        let rig = Rig::with(|config| config.token_opens_service_api = is_open).await;
        let devices = rig.cloud.get("/devices").send().await.unwrap();
        assert_eq!(devices.status() == StatusCode::OK, is_open);
        let telemetry = rig.cloud.get("/emulator/telemetry").send().await.unwrap();
        assert_eq!(telemetry.status(), StatusCode::OK);
        let wrong = rig.cloud.anonymous(Method::GET, "/emulator/telemetry");
        let wrong = wrong.bearer_auth(&TOKEN[1..]).send().await.unwrap();
        assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
        let none = rig
            .cloud
            .anonymous(Method::GET, "/devices")
            .send()
            .await
            .unwrap();
        assert_eq!(
            none.headers()["iothub-errorcode"],
            "IotHubUnauthorizedAccess"
        );
    }
}

#[tokio::test]
async fn web_pages_and_foreign_names_are_kept_out() {
    let http2 = Rig::start().await;
    let http1 = Rig::start().await.http1();
    for rig in [&http1, &http2] {
        for origin in ["https://localhost", "null"] {
            let answer = rig.cloud.get("/devices").header(ORIGIN, origin);
            let answer = answer.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN);
            assert_eq!(answer.headers()["iothub-errorcode"], "Forbidden");
        }
    }
    for (host, status) in [
        ("localhost:1", StatusCode::OK),
        ("HUB.example", StatusCode::OK),
        ("evil.example", StatusCode::FORBIDDEN),
        ("localhost.evil.example", StatusCode::FORBIDDEN),
    ] {
        let answer = http1.cloud.get("/devices").header(HOST, host);
        assert_eq!(answer.send().await.unwrap().status(), status, "{host}");
    }
    let elsewhere = |config: &mut Config| config.allowed_hosts = vec!["elsewhere.local".to_owned()];
    let foreign = Rig::with(elsewhere).await;
    let answer = foreign.cloud.get("/devices").send().await.unwrap();
    assert_eq!(
        answer.status(),
        StatusCode::FORBIDDEN,
        "HTTP/2 names its host elsewhere"
    );
}

#[tokio::test]
async fn connection_strings_work_as_printed() {
    let rig = Rig::start().await;
    let device = rig
        .emulator
        .device_connection_string(&"dev1".parse().unwrap())
        .unwrap();
    assert!(device.starts_with("HostName=hub.example;DeviceId=dev1;SharedAccessKey=AAEC"));
    let service = rig.emulator.service_connection_string("service").unwrap();
    assert!(
        service.starts_with("HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey=")
    );
    assert!(rig.emulator.service_connection_string("nobody").is_none());
}
