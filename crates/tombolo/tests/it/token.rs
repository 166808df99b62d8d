//! `tombolo token`, against a gateway that runs.

use std::path::Path;
use std::process::Output;

use reqwest::StatusCode;

use crate::program::{Running, client, errors_of, printed_by, run, tombolo};

/// Asks the admin API of a `dev`.
fn token(dev: &Running, data: &Path, args: &[&str]) -> Output {
    tombolo(["token"])
        .args(args)
        .args(["--device", "watch-1", "--admin"])
        .arg(dev.address("admin API"))
        .arg("--admin-token-file")
        .arg(data.join("admin.token"))
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_token_lets_a_device_in_until_it_is_revoked_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let dev = Running::dev(data, &[]);
    let created = token(&dev, data, &["create", "--days", "30"]);
    assert!(created.status.success(), "{}", errors_of(&created));
    let secret = printed_by(&created).trim().to_owned();
    assert_eq!(secret.lines().count(), 1);
    dev.interrupt().assert_orderly();

    let dev = Running::dev(data, &[]);
    let send = async |secret: &str| {
        let url = format!(
            "{}/devices/watch-1/messages/events",
            dev.address("device API")
        );
        let sent = client(data).post(url).bearer_auth(secret).body("x").send();
        sent.await.unwrap().status()
    };
    assert_eq!(send(&secret).await, StatusCode::NO_CONTENT);

    let listed = printed_by(&token(&dev, data, &["list"]));
    assert!(!listed.contains(&secret), "{listed}");
    let line = listed.lines().find(|line| line.contains("ends"));
    let id = line.unwrap().split_whitespace().next().unwrap();
    let revoked = token(&dev, data, &["revoke", id]);
    assert!(revoked.status.success(), "{}", errors_of(&revoked));
    assert_eq!(send(&secret).await, StatusCode::UNAUTHORIZED);
    assert!(!token(&dev, data, &["revoke", id]).status.success());
    dev.interrupt().assert_orderly();
}

#[test]
fn what_is_wrong_is_said_with_the_flag_that_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admin.token");
    let file = file.to_str().unwrap();
    let create = [
        "token",
        "create",
        "--device",
        "d",
        "--admin-token-file",
        file,
    ];
    let no_file = run(create);
    assert_eq!(no_file.status.code(), Some(1));
    assert!(errors_of(&no_file).contains("TOMBOLO_ADMIN_TOKEN_FILE"));

    std::fs::write(file, "wrong").unwrap();
    // Port 9 is "discard", which nobody serves.
    let nobody = run(create
        .iter()
        .copied()
        .chain(["--admin", "http://127.0.0.1:9"]));
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        errors_of(&nobody).contains("TOMBOLO_ADMIN"),
        "{}",
        errors_of(&nobody)
    );

    let data = folder.path().join("data");
    let dev = Running::dev(&data, &[]);
    let admin = dev.address("admin API");
    let refused = run(create.iter().copied().chain(["--admin", &admin]));
    assert!(
        errors_of(&refused).contains("does not take this token"),
        "{}",
        errors_of(&refused)
    );
    dev.interrupt().assert_orderly();
}
