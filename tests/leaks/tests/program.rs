//! The program as `./test` runs it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tombolo_leaks::Secret;

/// A folder as a suite leaves it, in which nothing is wrong.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a-1.log", "tombolo_front: x\n");
    write(folder.path(), "b-2.log", "tombolo_upstream: sig=***\n");
    let secret = Secret::text("the token", "a-token/that+is=marked");
    let secret = serde_json::to_string(&secret).unwrap();
    write(folder.path(), "b-2.secrets", &secret);
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

fn search(folder: &Path) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_tombolo-leaks");
    let Output { status, stdout, .. } = Command::new(program).arg(folder).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap())
}

#[test]
fn a_clean_suite_passes() {
    let (code, said) = search(folder().path());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("2 files, searched for 1 secrets"), "{said}");
}

#[test]
fn a_planted_leak_is_found_in_the_log_of_another_test_and_is_not_shown() {
    for (name, leak) in [
        ("c-3.log", "one\nAuthorization: a-token/that+is=marked"),
        ("c-3.log", "one\nx=a%2Dtoken%2Fthat%2Bis%3Dmarked"),
        ("c-3.log", "one\nYS10b2tlbi90aGF0K2lzPW1hcmtlZA=="),
        (
            "c-3.log",
            "one\n612d746f6b656e2f746861742b69733d6d61726b6564",
        ),
        ("gateway.err", "one\nsr=a&sig=AbCdEfGhIjKlMnOpQrSt&se=1"),
        ("junit.xml", "one\n<out>a-token/that+is=marked</out>"),
        (
            "junit.xml",
            "one\n<out>sr=a&amp;sig=AbCdEfGhIjKlMnOpQrSt</out>",
        ),
    ] {
        let folder = folder();
        write(folder.path(), name, leak);
        let (code, said) = search(folder.path());
        assert_eq!(code, 1, "{leak}: {said}");
        assert!(said.contains(&format!("{name}:2: ")), "{said}");
        for shown in ["a-token", "AbCd"] {
            assert!(!said.contains(shown), "{said}");
        }
    }
}

#[test]
fn a_suite_that_has_logged_or_marked_too_little_fails() {
    for missing in ["a-1.log", "b-2.log", "b-2.secrets"] {
        let folder = folder();
        fs::remove_file(folder.path().join(missing)).unwrap();
        let (code, said) = search(folder.path());
        assert_eq!(code, 1, "without {missing}: {said}");
    }
    assert_eq!(search(Path::new("/nowhere")).0, 1);
}

#[test]
fn a_list_of_secrets_that_cannot_be_read_fails() {
    let folder = folder();
    write(folder.path(), "c-3.secrets", "no secret\n");
    assert_eq!(search(folder.path()).0, 1);
}
