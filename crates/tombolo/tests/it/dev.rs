//! `tombolo dev`.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use leaks::{Secret, hits};
use reqwest::StatusCode;

use crate::program::{BOUND, Running, client, client_builder, errors_of, run, taken_port, tombolo};

#[tokio::test]
async fn ctrl_c_ends_a_long_poll_politely() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Running::dev(folder.path(), &[]);
    let secret = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let client = client(folder.path());
    let url = format!("{}/devices/watch-1/methods", dev.address("device API"));
    let poll = client.get(url).bearer_auth(secret("device-watch-1.token"));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(poll.header("Prefer", "wait=50").send());

    // It has arrived when the gateway counts it.
    let metrics = format!("{}/metrics", dev.address("admin API"));
    let deadline = Instant::now() + BOUND;
    loop {
        let metrics = client.get(&metrics).bearer_auth(secret("admin.token"));
        let text = metrics.send().await.unwrap().text().await.unwrap();
        if text.contains("tombolo_front_requests_in_flight 1") {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
    }
    let ended = tokio::task::spawn_blocking(|| dev.interrupt()).await;
    let polled = tasks.join_next().await.unwrap().unwrap();
    assert_eq!(polled.unwrap().status(), StatusCode::NO_CONTENT);
    ended.unwrap().assert_orderly();
}

#[tokio::test]
async fn no_secret_is_logged_at_the_most_verbose_level() {
    let (folder, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = logs.path().join("log");
    let dev = Running::dev_logging_all(folder.path(), File::create(&log).unwrap());
    let secret = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let (admin, device, hub) = (
        secret("admin.token"),
        secret("device-watch-1.token"),
        secret("hub.token"),
    );
    let client = client(folder.path());
    let at = |words: &str, path: &str| format!("{}/{path}", dev.address(words));
    for (request, token) in [
        (
            client.post(at("device API", "devices/watch-1/messages/events")),
            &device,
        ),
        (
            client.get(at("device API", "devices/watch-1/twin")),
            &device,
        ),
        (
            client
                .post(at("device API", "devices/watch-1/token"))
                .body("{}"),
            &device,
        ),
        (
            client.get(at("admin API", "admin/v1/devices/watch-1")),
            &admin,
        ),
        (client.get(at("service API", "twins/watch-1")), &hub),
    ] {
        let answer = request.bearer_auth(token.trim()).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
    tokio::task::spawn_blocking(|| dev.interrupt())
        .await
        .unwrap();

    let text = fs::read_to_string(&log).unwrap();
    leaks::keep(&text);
    for part in ["TRACE", "tombolo_front", "tombolo_upstream"] {
        assert!(text.contains(part), "{part} has logged nothing");
    }
    let secrets = [
        Secret::text("admin token", admin.trim()),
        Secret::text("gateway token", device.trim()),
        Secret::text("token of the service API", hub.trim()),
        Secret::text("key of the hub", secret("hub.key").trim()),
    ];
    assert_eq!(hits("the log", &text, &secrets), []);
}

#[test]
fn a_client_that_never_finishes_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Running::dev(folder.path(), &[]);
    let addresses = ["device API", "admin API", "TLS on", "service API"];
    let silent = addresses.map(|words| {
        let address = dev.address(words);
        TcpStream::connect(address.split("://").last().unwrap()).unwrap()
    });
    dev.interrupt().assert_orderly();
    drop(silent);
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_changes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_listener, taken) = taken_port();
    let flags = [
        "--gateway-port",
        "--admin-port",
        "--hub-mqtt-port",
        "--hub-https-port",
    ];
    for flag in flags {
        let mut dev = tombolo(["dev", "--data"]);
        dev.arg(folder.path());
        for port in flags {
            dev.args([port, if port == flag { &taken } else { "0" }]);
        }
        let refused = dev.output().unwrap();
        let errors = errors_of(&refused);
        assert_eq!(refused.status.code(), Some(1), "{errors}");
        let variable = format!("TOMBOLO_{}", &flag[2..].to_uppercase().replace('-', "_"));
        for part in [&format!("port {taken}"), flag, &variable] {
            assert!(errors.contains(part), "{part} is not in {errors}");
        }
    }
}

#[test]
fn what_devices_trust_and_hold_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let kept = || {
        ["ca.pem", "device-watch-1.token", "admin.token", "hub.key"]
            .map(|name| fs::read(data.join(name)).unwrap())
    };
    let first = Running::dev(&data, &[]);
    let other = run(["dev", "--data", data.to_str().unwrap()]);
    assert_eq!(other.status.code(), Some(1));
    assert!(
        errors_of(&other).contains("--data"),
        "{}",
        errors_of(&other)
    );
    let before = kept();
    first.interrupt().assert_orderly();
    let second = Running::dev(&data, &[]);
    assert_eq!(kept(), before);
    second.interrupt().assert_orderly();
}

#[test]
fn secrets_are_for_their_owner_alone_and_not_on_the_screen() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Running::dev(folder.path(), &[]);
    let screen = dev.printed.join("\n");
    for file in fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_public = ["ca.pem", "tombolo-ca.cer", "tombolo-ca.mobileconfig"].contains(&name);
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        let expected = match (path.is_dir(), is_public) {
            (true, _) => 0o700,
            (false, true) => 0o644,
            (false, false) => 0o600,
        };
        assert_eq!(mode, expected, "{name}");
        if name.ends_with(".token") {
            assert!(!screen.contains(&fs::read_to_string(&path).unwrap()));
        }
    }
    dev.interrupt().assert_orderly();
}

// 127.0.0.2 is an address of this machine that a listener on 127.0.0.1 does not have. Other systems have none such.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_host_opens_the_device_api_alone_and_is_in_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Running::dev(folder.path(), &["--host", "my-mac.local"]);
    let screen = dev.printed.join("\n");
    for part in [
        "https://my-mac.local:",
        "tombolo-ca.mobileconfig",
        "Certificate Trust Settings",
    ] {
        assert!(screen.contains(part), "{part} is not in {screen}");
    }
    let elsewhere = |words: &str| {
        let address = dev.address(words);
        let (_, port) = address.rsplit_once(':').unwrap();
        SocketAddr::from(([127, 0, 0, 2], port.parse().unwrap()))
    };
    let gateway = elsewhere("device API");
    let client = client_builder(folder.path()).resolve("my-mac.local", gateway);
    let url = format!("https://my-mac.local:{}/openapi.json", gateway.port());
    let answer = client.build().unwrap().get(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    for words in ["admin API", "TLS on", "service API"] {
        assert!(TcpStream::connect(elsewhere(words)).is_err(), "{words}");
    }
    dev.interrupt().assert_orderly();
}

#[test]
fn an_address_is_no_host() {
    let refused = run(["dev", "--host", "192.168.1.5"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(errors_of(&refused).contains("my-mac.local"));
}
