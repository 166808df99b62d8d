//! `tombolo-leaks FOLDER`: searches what the tests have logged.
//!
//! Every `*.secrets` file of the folder names secrets; every other file is searched, a `.xml` one (a report of what tests have
//! printed) with its escapes undone. Ends with 1 if anything is found, or if there is so little to search that nothing
//! could have been.

use std::{
    collections::BTreeSet,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use tombolo_leaks::{Leak, Search, Secret, read_secrets};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        return end(2, "usage: tombolo-leaks FOLDER");
    };
    match search(Path::new(&folder)) {
        Ok(found) if found.leaks.is_empty() => end(0, &found.summary),
        Ok(found) => {
            let leaks: BTreeSet<_> = found.leaks.iter().collect();
            let lines = leaks.iter().map(|leak| {
                let Leak {
                    place,
                    line,
                    secret,
                    form,
                } = leak;
                format!("{place}:{line}: {secret} ({form})\n")
            });
            let lines: String = lines.collect();
            end(
                1,
                &format!("{lines}{} leaks in {}", leaks.len(), found.summary),
            )
        }
        Err(error) => end(1, &format!("the search failed: {error}")),
    }
}

struct Found {
    leaks: Vec<Leak>,
    summary: String,
}

fn search(folder: &Path) -> Result<Found, Box<dyn Error>> {
    let began = Instant::now();
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let (named, logs): (Vec<_>, Vec<_>) = files
        .into_iter()
        .partition(|path| path.extension().is_some_and(|kind| kind == "secrets"));
    let mut secrets = BTreeSet::new();
    for path in &named {
        secrets.extend(read_secrets(path)?);
    }
    let search = Search::new(&secrets)?;
    if let Some((secret, form)) = missed(&search, &secrets) {
        return Err(format!("{secret} would not be found ({form})").into());
    }
    let mut unheard: BTreeSet<&str> = PARTS.into();
    let mut leaks = Vec::new();
    let mut bytes = 0;
    for path in &logs {
        let content = fs::read(path)?;
        bytes += content.len();
        let mut text = String::from_utf8_lossy(&content).into_owned();
        if path.extension().is_some_and(|kind| kind == "xml") {
            text = without_escapes(&text);
        }
        unheard.retain(|part| !text.contains(part));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        leaks.extend(search.leaks(&name, &text));
    }
    if let Some(part) = unheard.first() {
        return Err(format!("nothing of {part} is in the logs").into());
    }
    if secrets.is_empty() {
        return Err("no test has marked a secret".into());
    }
    let summary = format!(
        "{} MiB of {} files, searched for {} secrets in {:.1} s",
        bytes >> 20,
        logs.len(),
        secrets.len(),
        began.elapsed().as_secs_f32()
    );
    Ok(Found { leaks, summary })
}

/// A secret that the search does not find though it is there. There is none, or the search is worth nothing.
fn missed<'a>(search: &Search, secrets: &'a BTreeSet<Secret>) -> Option<(&'a str, &'static str)> {
    let mut forms = secrets
        .iter()
        .flat_map(|secret| secret.forms().into_iter().map(move |form| (secret, form)));
    forms.find_map(|(secret, (form, text))| {
        let leaks = search.leaks("here", &format!("before {text} behind"));
        let is_found = leaks
            .iter()
            .any(|leak| leak.secret == secret.name && leak.form == form);
        (!is_found).then_some((secret.name.as_str(), form))
    })
}

fn without_escapes(xml: &str) -> String {
    let text = xml.replace("&lt;", "<").replace("&gt;", ">");
    let text = text.replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&amp;", "&")
}

#[expect(clippy::print_stdout, reason = "a program says what it has found")]
fn end(code: u8, message: &str) -> ExitCode {
    println!("{message}");
    code.into()
}

/// Who must have logged something, or the search is empty: both halves of the gateway. The hub of the tests has nothing to
/// say of a quiet life.
const PARTS: [&str; 2] = ["tombolo_front", "tombolo_upstream"];
