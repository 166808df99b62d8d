//! One spelling for each path.
//!
//! A hub matches the words of a path without regard to case (the documentation writes `deviceBound`, the SDKs `devicebound`)
//! and takes a slash at the end (the C and Node SDKs send one). Ids are exact. So paths are brought into one spelling before
//! they are routed.

use axum::{extract::Request, http::Uri};

/// Brings the path of a request into the spelling of the routes.
pub(super) async fn into_one_spelling(request: Request) -> Request {
    into_spelling(request, &BEFORE_ID)
}

/// Brings the path of a request into lower case, but for the ids: they follow the words of `before_id`.
pub(crate) fn into_spelling(mut request: Request, before_id: &[&str]) -> Request {
    if let Some(uri) = respelt(request.uri(), before_id) {
        *request.uri_mut() = uri;
    }
    request
}

fn respelt(uri: &Uri, before_id: &[&str]) -> Option<Uri> {
    let path = spelling(uri.path(), before_id);
    if path == uri.path() {
        return None;
    }
    let path_and_query = match uri.query() {
        None => path,
        Some(query) => format!("{path}?{query}"),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path_and_query.parse().ok();
    Uri::from_parts(parts).ok()
}

/// Words in lower case, ids as they are, no slash at the end. The name of a file stays as it is, with its slashes.
fn spelling(path: &str, before_id: &[&str]) -> String {
    if BEFORE_FILE.iter().any(|start| path.starts_with(start)) {
        return path.to_owned();
    }
    let path = match path.strip_suffix('/') {
        None | Some("") => path,
        Some(path) => path,
    };
    let mut spelling = String::with_capacity(path.len());
    let mut is_id = false;
    for (index, part) in path.split('/').enumerate() {
        if index > 0 {
            spelling.push('/');
        }
        if is_id {
            spelling.push_str(part);
            is_id = false;
        } else {
            let word = part.to_ascii_lowercase();
            is_id = before_id.contains(&word.as_str());
            spelling.push_str(&word);
        }
    }
    spelling
}

/// What the name of a file follows.
const BEFORE_FILE: [&str; 2] = ["/uploads/", "/emulator/files/"];
/// The words that an id follows.
const BEFORE_ID: [&str; 5] = ["devices", "twins", "modules", "devicebound", "v2"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_no_case_and_ids_have() {
        for (given, expected) in [
            ("/", "/"),
            ("/devices/", "/devices"),
            (
                "/Devices/Dev1/Messages/deviceBound/",
                "/devices/Dev1/messages/devicebound",
            ),
            (
                "/devices/D/messages/deviceBound/ABC/Abandon",
                "/devices/D/messages/devicebound/ABC/abandon",
            ),
            (
                "/devices/Modules/modules/M/messages/Events",
                "/devices/Modules/modules/M/messages/events",
            ),
            ("/devices/a%2FB", "/devices/a%2FB"),
            ("/statistics/Devices", "/statistics/devices"),
            ("//Devices//x", "//devices//x"),
            ("/jobs/v2/My-Job/Cancel", "/jobs/v2/My-Job/cancel"),
            ("/uploads/Dev1/A.txt/", "/uploads/Dev1/A.txt/"),
            ("/emulator/files/Dev1/A.txt", "/emulator/files/Dev1/A.txt"),
            ("/Emulator/Files/", "/emulator/files"),
        ] {
            assert_eq!(spelling(given, &BEFORE_ID), expected);
        }
    }

    #[test]
    fn the_query_stays() {
        let uri = "/Devices/D/?api-version=X".parse().unwrap();
        assert_eq!(
            respelt(&uri, &BEFORE_ID).unwrap(),
            "/devices/D?api-version=X"
        );
        let right = "/devices/D?A".parse().unwrap();
        assert_eq!(respelt(&right, &BEFORE_ID), None);
    }
}
