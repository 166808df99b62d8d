//! Bad input: each gets its documented answer, and none disturbs a session that is up.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tombolo_system_tests::{Device, Rig};

/// A request, and the status and code of its answer.
type Case = (RequestBuilder, u16, &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_has_its_answer_and_disturbs_nobody() {
    let rig = Rig::start(&["dev1", "dev2"]).await;
    let device = rig.device("dev1");
    let sent = device.post("messages/events").body("before").send().await;
    assert_eq!(sent.unwrap().status(), 204);

    let cases = [credentials(&rig), paths(&rig, &device), bodies(&device)].concat_cases();
    for (request, status, code) in cases {
        let what = format!("{request:?}");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{what}");
        let content_type = &answer.headers()["content-type"];
        assert_eq!(content_type, "application/problem+json", "{what}");
        assert!(answer.headers().contains_key("iothub-errorcode"), "{what}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], code, "{what}");
        assert_eq!(problem["status"], status, "{what}");
        for member in [
            "retryable",
            "retry_after_s",
            "detail",
            "errorCode",
            "trackingId",
            "Message",
        ] {
            assert!(
                problem.get(member).is_some(),
                "{what}: no {member} in {problem}"
            );
        }
    }

    let sent = device.post("messages/events").body("after").send().await;
    assert_eq!(sent.unwrap().status(), 204);
    assert_eq!(
        rig.session("dev1").connections,
        1,
        "the session was disturbed"
    );
    assert_eq!(
        rig.session("dev2").connections,
        0,
        "a refused request opened a session"
    );
    let bodies: Vec<_> = rig
        .telemetry()
        .into_iter()
        .map(|record| record.message.payload)
        .collect();
    assert_eq!(
        bodies,
        ["before", "after"],
        "a refused message reached the hub"
    );
}

fn credentials(rig: &Rig) -> Vec<Case> {
    let url = format!(
        "https://localhost:{}/devices/dev1/messages/events",
        rig.gateway.port()
    );
    let post = || rig.http.post(&url).body("{}");
    let (mine, other) = (rig.device("dev1"), rig.device("dev2"));
    vec![
        (post(), 401, "unauthenticated"),
        (post().bearer_auth("tmb_wrong"), 401, "unauthenticated"),
        (post().basic_auth("dev1", Some("x")), 401, "unauthenticated"),
        (post().bearer_auth(other.token()), 403, "forbidden"),
        (
            post()
                .bearer_auth(mine.token())
                .header("tombolo-authorization", "Bearer tmb_other"),
            400,
            "invalid_request",
        ),
        // A device that does not exist looks like one that belongs to somebody else.
        (
            rig.http
                .post(url.replace("dev1", "nobody"))
                .bearer_auth(mine.token()),
            403,
            "forbidden",
        ),
    ]
}

fn paths(rig: &Rig, device: &Device) -> Vec<Case> {
    let url = |path: &str| format!("https://localhost:{}/{path}", rig.gateway.port());
    let get = |path: &str| rig.http.get(url(path)).bearer_auth(device.token());
    vec![
        (get("nothing/here"), 404, "not_found"),
        (get("devices/dev1/nothing"), 404, "not_found"),
        (get("devices/dev%2F1/twin"), 400, "invalid_request"),
        (get("devices/dev1%00/twin"), 400, "invalid_request"),
        (
            get("devices/dev1/messages/events"),
            405,
            "method_not_allowed",
        ),
        (
            device.request(Method::PUT, "twin"),
            405,
            "method_not_allowed",
        ),
        (
            device.get("inbox").header("prefer", "wait=soon"),
            400,
            "invalid_request",
        ),
        (
            device.get("inbox").header("prefer", "wait=-1"),
            400,
            "invalid_request",
        ),
        (
            device.delete("messages/devicebound/not-a-lock"),
            412,
            "lock_lost",
        ),
        (
            device
                .post("methods/nonsense/response")
                .body(r#"{"status":200}"#),
            404,
            "not_found",
        ),
    ]
}

fn bodies(device: &Device) -> Vec<Case> {
    let patch = |body: &'static str| device.patch("twin/properties/reported").body(body);
    let telemetry = || device.post("messages/events");
    let settle = |body: Value| device.post("inbox/settle").json(&body);
    let too_long_id = "x".repeat(129);
    vec![
        (
            telemetry().body(vec![b'x'; 262_145]),
            413,
            "message_too_large",
        ),
        (
            telemetry().header("iothub-messageid", too_long_id),
            400,
            "invalid_request",
        ),
        (
            telemetry().header("iothub-app-$.mid", "forged"),
            400,
            "invalid_request",
        ),
        (patch("{\"a\":"), 400, "invalid_request"),
        (patch("[]"), 400, "invalid_request"),
        (patch(""), 400, "invalid_request"),
        (patch(r#"{"a.b":1}"#), 400, "invalid_request"),
        (patch(r#"{"$version":1}"#), 400, "invalid_request"),
        (patch(r#"{"a":4503599627370496}"#), 400, "invalid_request"),
        (settle(json!({"token": "x"})), 400, "invalid_request"),
        (
            settle(json!([{"token": "x", "outcome": "eat"}])),
            400,
            "invalid_request",
        ),
        (
            device.post("methods/1.1/response").body("{"),
            400,
            "invalid_request",
        ),
    ]
}

/// The cases of several tables, in one list.
trait ConcatCases {
    fn concat_cases(self) -> Vec<Case>;
}

impl<const N: usize> ConcatCases for [Vec<Case>; N] {
    fn concat_cases(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_tls_port_ends_its_own_connection_only() {
    let rig = Rig::start(&["dev1"]).await;
    let device = rig.device("dev1");
    let sent = device.post("messages/events").body("before").send().await;
    assert_eq!(sent.unwrap().status(), 204);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0x16, 3, 1, 0xff, 0xff],
    ] {
        let mut socket = TcpStream::connect(rig.gateway).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // The end, perhaps after an alert; never an answer.
        let end = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest));
        let _ = end.await.expect("the gateway closes");
        assert!(rest.len() < 16, "{rest:?}");
    }
    let sent = device.post("messages/events").body("after").send().await;
    assert_eq!(sent.unwrap().status(), 204);
    assert_eq!(rig.session("dev1").connections, 1);
}
