//! Entity tags: what a reader has, in one word.

use iothub::twin::{Twin, TwinVersion};

/// The tag of a whole twin: `"d7-r12"`.
#[must_use]
pub fn of_twin(twin: &Twin) -> String {
    format!(
        "\"d{}-r{}\"",
        twin.desired.version.0, twin.reported.version.0
    )
}

/// The tag of the desired properties: their version, `"7"`.
#[must_use]
pub fn of_desired(version: TwinVersion) -> String {
    format!("\"{}\"", version.0)
}

/// The tag of a message under a lock: the lock token in quotes, as IoT Hub writes it.
#[must_use]
pub fn of_lock(token: &str) -> String {
    format!("\"{token}\"")
}

/// Whether the value of an `If-None-Match` or `If-Match` lists a tag, or is `*`.
///
/// Weak and strong tags are alike (RFC 9110, section 13.1.2: a proxy that compresses makes a tag weak), and quotes
/// may be missing (Azure's Node SDK sends a lock token without).
#[must_use]
pub fn is_listed(value: &str, tag: &str) -> bool {
    let bare = |text: &str| {
        let text = text.trim();
        text.strip_prefix("W/")
            .unwrap_or(text)
            .trim_matches('"')
            .to_owned()
    };
    let tag = bare(tag);
    value
        .split(',')
        .any(|listed| listed.trim() == "*" || bare(listed) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_is_tagged_by_both_versions() {
        let twin =
            Twin::parse(br#"{"desired":{"$version":7},"reported":{"$version":12}}"#).unwrap();
        assert_eq!(of_twin(&twin), "\"d7-r12\"");
        assert_eq!(of_desired(twin.desired.version), "\"7\"");
    }

    #[test]
    fn a_tag_is_found_in_every_spelling() {
        for value in [
            "\"7\"",
            "W/\"7\"",
            "7",
            "*",
            "\"6\", \"7\"",
            "\"6\",W/\"7\"",
        ] {
            assert!(is_listed(value, "\"7\""), "{value}");
        }
        for value in ["", "\"\"", "\"77\"", "\"6\"", "\"d7-r7\""] {
            assert!(!is_listed(value, "\"7\""), "{value}");
        }
    }
}
