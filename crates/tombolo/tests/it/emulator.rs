//! `tombolo emulator`: mistakes, and what it keeps.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::program::{Running, client, errors_of, run, tombolo};

#[test]
fn a_wrong_file_of_faults_is_misuse_and_told_with_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let faults = folder.path().join("bad-day.toml");
    fs::write(
        &faults,
        "[[rules]]\nfault = { kind = \"unreachable\" }\ntimes = 0\n",
    )
    .unwrap();
    let data = folder.path().join("data");
    for command in ["emulator", "dev"] {
        let output = run([
            command.as_ref(),
            "--data".as_ref(),
            data.as_os_str(),
            "--faults".as_ref(),
            faults.as_os_str(),
        ]);
        let errors = errors_of(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        let place = format!("{}:3: rules[0].times: ", faults.display());
        assert!(errors.contains(&place), "{errors}");
    }
}

#[test]
fn a_device_ca_that_is_none_is_misuse() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let output = run([
        "emulator".as_ref(),
        "--data".as_ref(),
        data.as_os_str(),
        "--device-ca".as_ref(),
        folder.path().join("missing.pem").as_os_str(),
    ]);
    let errors = errors_of(&output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("--device-ca: could not read"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_and_enrollments_are_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let (data, ca) = (
        folder.path().join("data"),
        folder.path().join("factory.pem"),
    );
    fs::write(&ca, authority()).unwrap();
    let enrollment = json!({
        "attestation": { "type": "x509", "x509": { "caReferences": { "primary": "factory" } } },
    });

    let first = start(&data, &["--keep", "--device-ca", ca.to_str().unwrap()]);
    let (hub, dps) = addresses(&first);
    let (_, trusted) = ask(&data, Method::GET, &hub, "emulator/certificates", None).await;
    assert_eq!(trusted.as_array().unwrap().len(), 1, "{trusted}");
    let path = "enrollmentGroups/factory?api-version=2021-10-01";
    let (status, written) = ask(&data, Method::PUT, &dps, path, Some(&enrollment)).await;
    assert_eq!(status, StatusCode::OK, "{written}");
    first.interrupt().assert_orderly();

    let second = start(&data, &["--keep"]);
    let (hub, dps) = addresses(&second);
    let (status, read) = ask(&data, Method::GET, &dps, path, None).await;
    assert_eq!((status, &read["etag"]), (StatusCode::OK, &written["etag"]));
    let (_, kept) = ask(&data, Method::GET, &hub, "emulator/certificates", None).await;
    assert_eq!(kept, trusted);
    second.interrupt().assert_orderly();
}

fn start(data: &Path, more: &[&str]) -> Running {
    let mut command = tombolo(["emulator", "--data"]);
    command.arg(data).args(more);
    command.args(["--hub-mqtt-port", "0", "--hub-https-port", "0"]);
    Running::start(command, "Ctrl-C stops.")
}

/// Where the hub and the provisioning service speak HTTPS.
fn addresses(emulator: &Running) -> (String, String) {
    let words = "HTTPS, and MQTT over WebSocket";
    let mut lines = emulator
        .printed
        .iter()
        .filter_map(|line| line.trim().strip_prefix(words));
    let mut next = || lines.next().unwrap().trim().to_owned();
    (next(), next())
}

async fn ask(
    data: &Path,
    method: Method,
    address: &str,
    path: &str,
    body: Option<&Value>,
) -> (StatusCode, Value) {
    let token = fs::read_to_string(data.join("hub.token")).unwrap();
    let request = client(data)
        .request(method, format!("https://{address}/{path}"))
        .bearer_auth(token.trim());
    let request = match body {
        None => request,
        Some(body) => request.json(body),
    };
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

fn authority() -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&key).unwrap().pem()
}
