//! Settings for curl, so that the lines to try carry no secret: neither on the screen nor in the list of processes.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use secrecy::{ExposeSecret as _, SecretString};

use crate::data_folder::DataFolder;
use crate::development_ca::CERTIFICATE_PEM;

/// The beginning of a curl line: `curl -K FILE`.
#[derive(Debug, Clone)]
pub(crate) struct Curl {
    settings: PathBuf,
}

impl Curl {
    /// Writes the settings into the data folder: whom to trust, what to say who is asking, and that the status is
    /// shown, which alone is the answer to many requests. It goes to standard error, out of the way of a pipe.
    ///
    /// # Errors
    ///
    /// When the file can not be written.
    pub(crate) fn new(folder: &DataFolder, name: &str, token: &SecretString) -> Result<Self> {
        let ca = folder.file(CERTIFICATE_PEM);
        let ca = in_settings(&ca.display().to_string());
        let token = in_settings(token.expose_secret());
        let settings = format!(
            "# For curl -K: who is asking, and whom to trust. Holds a secret.\n\
             silent\n\
             show-error\n\
             cacert = \"{ca}\"\n\
             header = \"Authorization: Bearer {token}\"\n\
             write-out = \"%{{stderr}} (%{{response_code}} in %{{time_total}} s)\\n\"\n"
        );
        folder.write_private(name, settings.as_bytes())?;
        Ok(Self {
            settings: folder.file(name),
        })
    }
}

impl fmt::Display for Curl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "curl -K {}", in_shell(&self.settings))
    }
}

/// A path as one word of a shell.
pub(crate) fn in_shell(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A text between the quotes of curl's settings.
fn in_settings(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(in_shell(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(in_shell(Path::new("/a b/c")), "'/a b/c'");
        assert_eq!(in_shell(Path::new("/it's")), r"'/it'\''s'");
    }

    #[test]
    fn a_line_carries_no_secret() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(parent.path()).unwrap();
        let curl = Curl::new(&folder, "as-device", &"secret-1".into()).unwrap();
        assert!(!curl.to_string().contains("secret-1"));
        let settings = String::from_utf8(folder.read("as-device").unwrap().unwrap()).unwrap();
        assert!(settings.contains("Bearer secret-1"), "{settings}");
        assert_eq!(in_settings(r#"a\b"c"#), r#"a\\b\"c"#);
    }
}
