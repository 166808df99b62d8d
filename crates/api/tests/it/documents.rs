//! What is committed beside the code says the same as the code.

use std::{collections::BTreeSet, fs, path::PathBuf};

use tombolo_api::{Code, Operation, openapi_json};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// With `TOMBOLO_BLESS` set the file is written instead of compared.
#[test]
fn the_committed_openapi_document_is_the_generated_one() {
    let path = repository().join("openapi/tombolo.json");
    let generated = openapi_json();
    if std::env::var_os("TOMBOLO_BLESS").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "openapi/tombolo.json differs from the code: run `TOMBOLO_BLESS=1 cargo test -p tombolo-api`, and look at the diff"
    );
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let folder = repository().join("docs/errors");
    let pages: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .filter(|name| name != "README")
        .collect();
    let codes: BTreeSet<String> = Code::ALL
        .iter()
        .map(|code| code.as_str().to_owned())
        .collect();
    assert_eq!(pages, codes);

    let index = fs::read_to_string(folder.join("README.md")).unwrap();
    for code in Code::ALL {
        let name = code.as_str();
        let retry = match code.retry_after_s() {
            None => "no".to_owned(),
            Some(0) => "at once".to_owned(),
            Some(seconds) => format!("{seconds} s"),
        };
        let line = format!(
            "| {} | [`{name}`]({name}.md) | {} | {retry} |",
            code.status(),
            code.title()
        );
        assert!(
            index.contains(&line),
            "docs/errors/README.md lacks the line\n{line}"
        );

        let page = fs::read_to_string(folder.join(format!("{name}.md"))).unwrap();
        assert!(
            page.starts_with(&format!("# `{name}` ({})\n", code.status())),
            "heading of {name}.md"
        );
        for part in [
            "\n## What happened\n",
            "\n## What to do\n",
            "\n## Is a retry safe?\n",
        ] {
            assert!(page.contains(part), "{name}.md lacks {part:?}");
        }
    }
}

#[test]
fn the_guide_names_every_call() {
    let guide = fs::read_to_string(repository().join("docs/api.md")).unwrap();
    for operation in Operation::ALL {
        let call = format!("`{} {}`", operation.method().as_str(), operation.path());
        assert!(guide.contains(&call), "docs/api.md lacks {call}");
    }
}
