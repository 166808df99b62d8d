//! The lines to try: each works as printed, in the order printed.

use std::fmt;
use std::path::PathBuf;

use iothub::DeviceId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::curl::{Curl, in_shell};
use crate::data_folder::DataFolder;

/// What the lines are made of.
pub(super) struct Lines {
    device: Curl,
    cloud: Curl,
    /// The device's path at the gateway.
    gateway: String,
    /// The hub's service API.
    hub: String,
    /// As it stands in a path.
    id: String,
    /// Where one line leaves for the next what it was told.
    received: PathBuf,
    methods: PathBuf,
}

impl Lines {
    pub(super) fn new(
        folder: &DataFolder,
        device: Curl,
        cloud: Curl,
        gateway: &str,
        hub: String,
        id: &DeviceId,
    ) -> Self {
        let id = in_path(id);
        Self {
            device,
            cloud,
            gateway: format!("{gateway}/devices/{id}"),
            hub,
            id,
            received: folder.file("received.etag"),
            methods: folder.file("methods.json"),
        }
    }

    /// What each line does, and the line.
    fn all(&self) -> Vec<(&'static str, String)> {
        let Self {
            device,
            cloud,
            gateway,
            hub,
            id,
            received,
            methods,
        } = self;
        let (received, methods) = (in_shell(received), in_shell(methods));
        vec![
            (
                "Send telemetry",
                format!(r#"{device} {gateway}/messages/events -d '{{"temperature":21.5}}'"#),
            ),
            (
                "Read it at the cloud side",
                format!("{cloud} {hub}/emulator/telemetry"),
            ),
            ("Read the twin", format!("{device} {gateway}/twin")),
            (
                "Report a property",
                format!(
                    r#"{device} -X PATCH {gateway}/twin/properties/reported -d '{{"battery":0.82}}'"#
                ),
            ),
            (
                "Change a desired property at the cloud side",
                format!(
                    r#"{cloud} -X PATCH {hub}/twins/{id} -d '{{"properties":{{"desired":{{"interval_s":60}}}}}}'"#
                ),
            ),
            (
                "Read the desired properties",
                format!("{device} {gateway}/twin/properties/desired"),
            ),
            (
                "Send a message at the cloud side",
                format!("{cloud} {hub}/emulator/devices/{id}/messages -d 'hello, device'"),
            ),
            (
                "Receive it; its lock token is kept for the next line",
                format!(
                    "{device} --etag-save {received} {gateway}/messages/devicebound -H 'Prefer: wait=25'"
                ),
            ),
            (
                "Complete it",
                format!(
                    r#"{device} -X DELETE "{gateway}/messages/devicebound/$(tr -d '"' < {received})""#
                ),
            ),
            (
                "Invoke a direct method at the cloud side; the answer comes when the device has given it",
                format!(
                    r#"{cloud} {hub}/twins/{id}/methods -d '{{"methodName":"reboot","payload":{{"delay_s":5}},"connectTimeoutInSeconds":300,"responseTimeoutInSeconds":300}}' &"#
                ),
            ),
            (
                "Wait for direct methods",
                format!("{device} {gateway}/methods -H 'Prefer: wait=25' | tee {methods}; echo"),
            ),
            (
                "Answer it",
                format!(
                    r#"{device} "{gateway}/methods/$(sed 's/.*"request_id":"\([^"]*\)".*/\1/' {methods})/response" -d '{{"status":200,"payload":{{"ok":true}}}}'"#
                ),
            ),
        ]
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, line) in self.all() {
            write!(f, "{what}\n{line}\n\n")?;
        }
        Ok(())
    }
}

/// An id as one part of a path, and nothing that a shell would take for its own.
pub(super) fn in_path(id: &DeviceId) -> String {
    utf8_percent_encode(id.as_str(), ESCAPED).to_string()
}

/// All but the unreserved characters of URLs (RFC 3986, 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn lines(parent: &Path, folder: &str, id: &str) -> (DataFolder, Lines) {
        let folder = DataFolder::open(&parent.join(folder)).unwrap();
        let curl = |name| Curl::new(&folder, name, &"secret".into()).unwrap();
        let lines = Lines::new(
            &folder,
            curl("as-device"),
            curl("as-cloud"),
            "https://localhost:8443",
            "https://localhost:9443".into(),
            &id.parse().unwrap(),
        );
        (folder, lines)
    }

    #[test]
    fn each_step_is_one_line_that_starts_with_curl() {
        let parent = tempfile::tempdir().unwrap();
        let (_folder, lines) = lines(parent.path(), "it's a folder", "a:1(b)'c$");
        for (_, line) in lines.all() {
            assert!(line.starts_with("curl "), "{line}");
            assert!(!line.contains('\n') && !line.contains("secret"), "{line}");
            assert!(
                line.contains("/a%3A1%28b%29%27c%24") || line.ends_with("/emulator/telemetry"),
                "{line}"
            );
        }
    }

    #[test]
    fn the_readme_has_the_same_lines() {
        let readme = include_str!("../../../../README.md");
        let parent = tempfile::tempdir().unwrap();
        let (folder, lines) = lines(parent.path(), "tombolo-data", "watch-1");
        let folder = folder.path().display().to_string();
        let printed = lines.all().into_iter();
        let printed: Vec<_> = printed
            .map(|(_, line)| line.replace(&folder, "tombolo-data"))
            .collect();
        let shown: Vec<_> = readme
            .lines()
            .filter(|line| line.starts_with("curl "))
            .collect();
        assert_eq!(shown, printed);
    }
}
