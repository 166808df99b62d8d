//! The lines that `dev` prints, typed by somebody who has curl and a shell.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{BOUND, Running};

/// What a line printed: curl's body and, behind it, the status.
struct Answer {
    out: PathBuf,
    status: PathBuf,
}

#[test]
#[ignore = "needs curl and a shell: ./test conformance"]
fn each_line_works_as_printed_in_the_order_printed() {
    let folder = tempfile::tempdir().unwrap();
    // A name that a shell would take apart.
    let data = folder.path().join("it's my data");
    let dev = Running::dev(&data, &["--device", "watch:(1)"]);
    let lines: Vec<&String> = dev
        .printed
        .iter()
        .filter(|line| line.starts_with("curl "))
        .collect();
    let type_in = |number: usize| Answer::of(lines[number], folder.path(), number);
    assert_eq!(lines.len(), 12);

    type_in(0).expect(204);
    let telemetry = type_in(1).expect(200);
    let bodies: Vec<Value> = telemetry
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].clone())
        .collect();
    assert_eq!(
        bodies,
        [r#"{"hello":"from watch:(1)"}"#, r#"{"temperature":21.5}"#]
    );
    let twin = type_in(2).json();
    assert_eq!(twin["reported"]["$version"], 1);
    assert_eq!(type_in(3).json(), json!({ "$version": 2 }));
    let twin = type_in(4).json();
    assert_eq!(twin["properties"]["desired"]["interval_s"], 60);
    assert_eq!(twin["properties"]["reported"]["battery"], 0.82);
    assert_eq!(
        type_in(5).json(),
        json!({ "interval_s": 60, "$version": 2 })
    );

    type_in(6).expect(200);
    assert_eq!(type_in(7).expect(200), "hello, device");
    type_in(8).expect(204);

    let invoked = type_in(9);
    let methods = type_in(10).json();
    assert_eq!(methods["methods"][0]["name"], "reboot");
    assert_eq!(methods["methods"][0]["payload"], json!({ "delay_s": 5 }));
    type_in(11).expect(204);
    assert_eq!(
        invoked.json(),
        json!({ "status": 200, "payload": { "ok": true } })
    );
    dev.interrupt().assert_orderly();
}

impl Answer {
    fn of(line: &str, folder: &Path, number: usize) -> Self {
        let (out, status) = (
            folder.join(format!("{number}.out")),
            folder.join(format!("{number}.status")),
        );
        let shell = Command::new("sh")
            .args(["-c", line])
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&status).unwrap())
            .status();
        assert!(shell.unwrap().success(), "{line}");
        Self { out, status }
    }

    /// The body, if the status is this one. A line that ended in `&` is waited for.
    fn expect(&self, status: u16) -> String {
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let deadline = Instant::now() + BOUND;
        while !read(&self.status).contains(" s)") {
            assert!(Instant::now() < deadline, "{}", read(&self.status));
            std::thread::sleep(Duration::from_millis(5));
        }
        let said = read(&self.status);
        assert!(
            said.starts_with(&format!(" ({status} in ")),
            "{said}: {}",
            read(&self.out)
        );
        read(&self.out)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.expect(200)).unwrap()
    }
}
