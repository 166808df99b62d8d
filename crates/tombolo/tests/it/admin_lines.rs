//! The lines of docs/admin.md, typed by somebody who has curl and a shell.

use std::fs;
use std::path::Path;
use std::process::Command;

use iothub::Identity;
use serde_json::Value;

use crate::served::Setup;

/// The lines of the page that ask something, as they stand there.
fn lines() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/admin.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    let lines = lines.filter(|line| line.starts_with("curl "));
    lines.map(str::to_owned).collect()
}

/// What a line printed, and the status behind it. `id` is what `ID` stands for.
fn type_in(setup: &Setup, admin: &str, id: &str, line: &str) -> (u16, Value) {
    // As a person would see the status, were it asked for.
    let shell = format!(
        "curl() {{ command curl --write-out '\\n%{{http_code}}' \"$@\"; }}\n\
         A={admin} T=$(cat {token}) ID={id}\n{line}",
        token = setup.admin_token().display()
    );
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let (body, status) = printed.rsplit_once('\n').unwrap();
    let body = match body {
        "" => Value::Null,
        body => serde_json::from_str(body).unwrap(),
    };
    (status.parse().unwrap(), body)
}

#[tokio::test]
#[ignore = "needs curl and a shell: ./test conformance"]
async fn each_line_of_the_page_works_as_printed() {
    let setup = Setup::new("watch-1");
    setup.configure("store", false);
    let hub = "tombolo-hub.localhost".parse().unwrap();
    let watch = Identity::device(hub, "watch-1".parse().unwrap());
    crate::store::fill(&setup.path("store"), &watch).await;
    let gateway = setup.start();
    let mut id = String::new();
    let mut asked = Vec::new();
    for line in lines() {
        let (status, body) = type_in(&setup, &gateway.admin, &id, &line);
        for found in [
            &body["token_id"],
            &body["tokens"][0]["token_id"],
            &body["dead_letters"][0]["id"],
        ] {
            match found {
                Value::String(text) => id = text.clone(),
                Value::Number(number) => id = number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {}
            }
        }
        asked.push((status, line));
        if let Some(reason) = body["dead"]["reason"].as_str() {
            assert_eq!(reason, "hub_closed_on_publish");
            // "given up" in base64.
            assert_eq!(body["content"]["payload"], "Z2l2ZW4gdXA=");
        }
        if body["disk"].is_object() {
            assert_eq!(body["disk"]["recovery"]["dead_letters"], 2);
            assert_eq!(body["outbox"]["waiting"], 1);
        }
    }
    // The letter that is removed is none any more: it was replayed by the lines before.
    let statuses: Vec<u16> = asked.iter().map(|(status, _)| *status).collect();
    let expected = [
        201, 200, 204, 200, 200, 200, 200, 200, 202, 200, 404, 200, 200, 200,
    ];
    assert_eq!(statuses, expected, "{asked:?}");
    assert!(gateway.running.terminate().status.success());
}
