//! Paths and methods: who answers what, and that nobody ever redirects, challenges with `Basic` or sets a cookie.

use std::time::Duration;

use api::{Operation, Stage};
use reqwest::{Method, StatusCode};

use crate::rig::{Rig, TOKEN, assert_status, client, problem, send};

const METHODS: [Method; 7] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
];

/// Every path of the API, with ids, and whether it is below a module.
fn paths(operation: Operation) -> impl Iterator<Item = (String, bool)> {
    [
        (Some(operation.path()), false),
        (operation.module_path(), true),
    ]
    .into_iter()
    .filter_map(|(path, is_module)| {
        let path = path?.replace("{device}", "dev1").replace("{module}", "m1");
        let item = path
            .split('/')
            .map(|part| if part.starts_with('{') { "item" } else { part });
        Some((item.collect::<Vec<_>>().join("/"), is_module))
    })
}

#[tokio::test]
async fn no_answer_redirects_challenges_or_sets_a_cookie() {
    let rig = Rig::with(|config| config.waits.hub = Duration::from_millis(1)).await;
    let client = client(&rig.certificate, &[b"h2"]);
    for operation in Operation::ALL {
        for (path, _) in paths(*operation) {
            for path in [
                path.clone(),
                format!("{path}/"),
                path.to_ascii_uppercase(),
                format!("/{path}"),
                format!("{path}//"),
            ] {
                for method in METHODS {
                    for is_known in [true, false] {
                        let mut request = client
                            .request(method.clone(), rig.url(&path))
                            .header("prefer", "wait=0");
                        if is_known {
                            request = request.bearer_auth(TOKEN);
                        }
                        // Whatever it says is fine, as long as it is said in a way that every client stands.
                        let response = send(request).await;
                        let what = format!("{method} {path}: {response:?}");
                        assert!(!response.status().is_redirection(), "{what}");
                        assert!(!response.headers().contains_key("set-cookie"), "{what}");
                        let challenge = response.headers().get("www-authenticate");
                        assert!(
                            challenge.is_none_or(|value| value == "Bearer error=\"invalid_token\""),
                            "{what}"
                        );
                        if response.status().as_u16() >= 400 {
                            assert_eq!(
                                response.headers()["content-type"],
                                "application/problem+json",
                                "{what}"
                            );
                        }
                        assert_ne!(
                            response.status(),
                            StatusCode::INTERNAL_SERVER_ERROR,
                            "{what}"
                        );
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn every_call_wants_a_credential_and_planned_ones_say_so() {
    let rig = Rig::with(|config| config.waits.hub = Duration::from_millis(1)).await;
    for operation in Operation::ALL
        .iter()
        .filter(|operation| **operation != Operation::GetOpenApi)
    {
        let method: Method = operation.method().as_str().parse().unwrap();
        for (path, is_module) in paths(*operation) {
            problem(
                send(rig.anonymous(method.clone(), &path)).await,
                401,
                "unauthenticated",
            )
            .await;
            let response = send(rig.request(method.clone(), &path)).await;
            if is_module {
                // The device has no such module, which it may know of itself.
                problem(response, 404, "not_found").await;
            } else if operation.stage() == Stage::Planned {
                problem(response, 501, "not_implemented").await;
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let rig = Rig::start().await;
    let response = rig.get("/devices/dev1/messages/events").await;
    assert_eq!(response.headers()["allow"], "POST");
    problem(response, 405, "method_not_allowed").await;
    problem(rig.get("/devices/dev1/nothing").await, 404, "not_found").await;
    // IoT Hub has no cloud-to-device messages and no file upload for modules.
    for path in ["messages/devicebound", "files"] {
        let path = format!("/devices/dev1/modules/m1/{path}");
        problem(rig.get(&path).await, 404, "not_found").await;
    }
}

#[tokio::test]
async fn the_document_is_for_everybody() {
    let rig = Rig::start().await;
    let response = send(rig.anonymous(Method::GET, "/openapi.json")).await;
    assert_status(&response, StatusCode::OK);
    assert_eq!(response.text().await.unwrap(), api::openapi_json());
}

#[tokio::test]
async fn a_name_that_is_not_served_is_misdirected() {
    let rig = Rig::start().await;
    for host in ["other.example", "localhost.evil.example", "127.0.0.2"] {
        let request =
            format!("GET /openapi.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = rig.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
        assert!(answer.contains("\"misdirected\""), "{answer}");
    }
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:8443", "[::1]:5"] {
        let request =
            format!("GET /openapi.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert!(
            rig.exchange(request.as_bytes())
                .await
                .starts_with("HTTP/1.1 200 "),
            "{host}"
        );
    }
}
